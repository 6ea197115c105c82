mod baggage;
mod carriers;
mod counted;
mod deadline;
mod formats;
mod timeouts;
mod values;
mod w3c;
