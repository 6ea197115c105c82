//! The public behaviour of the crate, one module per behaviour.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod breaker;
mod config;
#[cfg(feature = "sqlite")]
mod sqlite;
mod traced;
