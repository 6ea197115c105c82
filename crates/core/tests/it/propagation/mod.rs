mod baggage;
mod carriers;
mod deadline;
mod w3c;
