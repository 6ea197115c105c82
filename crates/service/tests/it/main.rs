//! The public behaviour of the crate, one module per behaviour.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod authorize;
mod breaker;
mod client;
mod config;
mod drain;
mod health;
mod json;
mod layers;
mod routes;
mod services;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;
mod support;
