//! What a context carries across a process boundary.
//!
//! Bytes from a peer never panic, never allocate without bound and never fail a request: what is malformed is absent, and its carrier is told: [`Counted`] counts it.

pub mod b3;
pub mod baggage;
pub(crate) mod carrier;
mod counted;
pub mod deadline;
mod environment;
mod field;
pub mod jaeger;
pub mod message;
pub(crate) mod principal;
pub(crate) mod propagator;
pub mod values;
pub mod w3c;
pub mod xray;

pub use counted::{Counted, Dropped};
pub use environment::Environment;
pub use propagator::Format;
pub use values::WireKey;
