//! The public behaviour of the crate, one module per behaviour.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod conformance;
mod events;
mod in_process;
mod redelivery;
mod support;
