//! Tower layers that carry a context across a connection: one on the server, one on the client.

pub mod client;
mod failure;
mod grpc;
mod semconv;
pub mod server;
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub mod tonic;
