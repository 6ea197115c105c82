mod baggage;
mod carriers;
mod deadline;
mod formats;
mod w3c;
