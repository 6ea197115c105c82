mod deadline;
mod w3c;
