//! Tower layers that carry a context across a connection: one on the server, one on the client.

pub mod client;
mod semconv;
pub mod server;
