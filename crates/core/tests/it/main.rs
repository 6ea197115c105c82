//! Public behaviour of the core, one module per behaviour.

mod identity;
mod tracestate;
