//! Spans: how they start, which of them are recorded, and where finished spans go.
//!
//! The core depends neither on an exporter nor on `tracing`. A [`Tracer`] connects it to them. Its
//! [`Sampler`] decides once per trace and process. Its [`Recorder`] takes each finished
//! [`SpanRecord`](crate::SpanRecord).
//!
//! # Terms
//! - Identity: a [`SpanContext`](crate::SpanContext): trace id, span id, flags and tracestate.
//! - Remote parent: the identity of a span in another process, extracted from a request.
//! - Local root: the first span of a trace in this process. The sampler is called for it alone.
//! - Recorded span: a span that keeps attributes, events, links and a status until it ends.
//! - Shared identity: an unrecorded internal span has the identity of the unrecorded span above it.
//! - Late write: a write to a recorded span that has ended. It is ignored and counted.
//! - Foreign span: a span of another tracing system in this process, such as `tracing`.
//! - Epoch: the wall-clock time of tick zero, shared by a local root and the spans below it.

mod attributes;
mod builder;
mod clock;
mod foreign;
pub(crate) mod hex;
pub(crate) mod id;
mod limits;
mod methods;
mod ratio;
pub(crate) mod record;
mod rng;
mod sampler;
pub(crate) mod span;
pub(crate) mod span_context;
mod span_ref;
mod state;
mod tracer;
pub(crate) mod tracestate;
mod value;

pub use attributes::{Attributes, Iter};
pub use builder::SpanBuilder;
pub use clock::UnixNanos;
pub use foreign::FindEnclosing;
pub use id::ParseIdError;
pub use limits::SpanLimits;
pub use ratio::TraceIdRatio;
pub use record::{Batch, Event, Link, Resource, SpanKind, Status};
pub use sampler::{AlwaysOff, AlwaysOn, ParentBased, Sampler, SamplingParameters, SamplingResult};
pub use span_ref::SpanRef;
pub use tracer::{FindDescendant, FromContext, Recorder, SetDefaultError, Tracer, TracerConfig};
pub use tracestate::TraceStateError;
pub use value::Value;
