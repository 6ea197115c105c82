//! Throughline: one `Context` for every request, and the spans it leaves.

mod error;
pub mod middleware;
pub mod telemetry;

pub use error::{Code, Error, ParseCodeError};
pub use middleware::client::ClientLayer;
pub use middleware::server::ContextLayer;
pub use throughline_core::{
    Baggage, CancelHandle, Cause, Context, ContextError, Extractor, FutureExt, Group, Injector, Key, Span, SpanContext,
    SpanId, SpanRecord, TraceFlags, TraceId, TraceState, propagation, trace, try_join,
};
