mod exporters;
mod limits;
mod otlp;
mod outage;
mod pipeline;
mod settings;
mod tracing_layer;
