//! Spans: what they are, where they go, and which are recorded. The core knows neither exporters nor `tracing`.
//!
//! [`Tracer`] is the seam: a [`Recorder`] takes each finished [`SpanRecord`](crate::SpanRecord), a [`Sampler`] decides
//! once per trace and process.

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
pub use foreign::{FindDescendant, FindEnclosing};
pub use id::ParseIdError;
pub use limits::SpanLimits;
pub use ratio::TraceIdRatio;
pub use record::{Batch, Event, Link, Resource, SpanKind, Status, UnixNanos};
pub use sampler::{AlwaysOff, AlwaysOn, ParentBased, Sampler, SamplingParameters, SamplingResult};
pub use span_ref::{SpanRef, error_message};
pub use tracer::{FromContext, Recorder, SetDefaultError, Tracer, TracerConfig};
pub use tracestate::TraceStateError;
pub use value::Value;
