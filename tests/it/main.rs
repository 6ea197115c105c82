//! Tests of public behaviour, one module per behaviour.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod error;
mod interop;
mod layering;
mod middleware;
mod reliability;
mod retry;
mod shutdown;
mod support;
mod telemetry;
mod trace_context;
