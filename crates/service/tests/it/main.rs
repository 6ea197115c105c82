//! The public behaviour of the crate, one module per behaviour.
#![allow(clippy::unwrap_used)]

mod config;
