//! What a context carries across a process boundary.
//!
//! Bytes from a peer never panic, never allocate without bound and never fail a request: what is malformed is absent.

pub mod baggage;
pub(crate) mod carrier;
pub mod deadline;
mod environment;
pub mod w3c;

pub use environment::Environment;
