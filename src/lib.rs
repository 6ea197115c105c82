//! Throughline: one `Context` for every request, and the spans it leaves.

mod error;
pub mod telemetry;

pub use error::{Code, Error, ParseCodeError};
pub use throughline_core::{
    CancelHandle, Cause, Context, ContextError, FutureExt, Group, Key, Span, SpanContext, SpanId, SpanRecord,
    TraceFlags, TraceId, TraceState, propagation, trace, try_join,
};
