//! Tower layers that propagate a context from a client to a server.
//!
//! [`client`] injects the context into calls, and [`server`] extracts it from requests.

#[cfg(feature = "axum")]
mod axum;
pub mod client;
mod failure;
mod grpc;
mod hooks;
mod semconv;
pub mod server;
mod timeout_format;
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub mod tonic;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use axum::Ctx;

pub use hooks::{Finished, HookSpan};
