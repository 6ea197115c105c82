mod baggage;
mod deadline;
mod w3c;
