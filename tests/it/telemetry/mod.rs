mod otlp;
mod pipeline;
mod settings;
mod tracing_layer;
