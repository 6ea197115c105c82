//! Public behaviour of the core, one module per behaviour.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod cancelled;
mod context;
mod identity;
mod lineage;
mod memory;
mod propagation;
mod sampling;
mod span;
mod span_bounds;
mod tracestate;
