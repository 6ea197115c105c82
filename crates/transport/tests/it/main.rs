//! The public behaviour of the crate, one module per behaviour.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod bounds;
mod carriers;
mod conformance;
mod events;
#[cfg(feature = "http2")]
mod http2;
mod in_process;
#[cfg(feature = "nats")]
mod jetstream;
#[cfg(feature = "nats")]
mod nats;
mod redelivery;
mod support;
