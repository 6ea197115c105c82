mod baggage;
mod carriers;
mod counted;
mod deadline;
mod formats;
mod timeouts;
mod w3c;
