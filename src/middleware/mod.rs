//! Tower layers that propagate a context from a client to a server.
//!
//! [`client`] injects the context into calls, and [`server`] extracts it from requests.

pub mod client;
mod failure;
mod grpc;
mod semconv;
pub mod server;
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub mod tonic;
