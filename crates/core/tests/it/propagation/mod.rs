mod baggage;
mod carriers;
mod deadline;
mod formats;
mod timeouts;
mod w3c;
