//! Propagation: how a context crosses a process boundary.
//!
//! Bytes from a peer never panic, never allocate without bound and never fail a request. Malformed
//! input is dropped: it counts as absent. The carrier is notified of each drop, and [`Counted`]
//! counts them.
//!
//! # Glossary
//! - **Carrier**: a set of names and values, such as the headers of a request or a message.
//! - **Inject**: write parts of a context to a carrier, through [`Injector`](crate::Injector).
//! - **Extract**: read them from a carrier, through [`Extractor`](crate::Extractor).
//! - **Format**: the names and the grammar of one specification, such as W3C Trace Context.
//! - **Propagator**: a list of formats to inject and extract ([`Propagator`](crate::Propagator)).
//! - **Wire key**: a [`Key`](crate::Key) whose values travel to other services ([`values`]).
//! - **Reply reserve**: the time a caller keeps back for the response
//!   ([`ReplyReserve`](deadline::ReplyReserve)).

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
