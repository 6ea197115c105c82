//! The core types of throughline: `Context`, spans and propagation.
//!
//! A service has one [`Context`] per request. The context carries the deadline, the cancellation
//! and typed values. Spans record what the request did. Propagators copy both to and from the
//! headers of calls.

mod context;
mod error_message;
pub mod propagation;
pub mod trace;

#[cfg(all(feature = "signal", any(unix, windows)))]
#[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
pub use context::TerminationSignals;
pub use context::{
    AfterFunc, CancelHandle, Cause, Codec, Context, ContextError, Done, DoneOwned, FutureExt, Group, GroupError,
    GroupHandle, Key, Lifecycle, Run, RunningWork, SharedError, WithContext, Work, try_join,
};
pub use error_message::error_message;
pub use propagation::baggage::value::Baggage;
pub use propagation::carrier::{Extractor, Injector};
pub use propagation::principal::Principal;
pub use propagation::propagator::Propagator;
pub use trace::id::{SpanId, TraceFlags, TraceId};
pub use trace::record::SpanRecord;
pub use trace::span::Span;
pub use trace::span_context::SpanContext;
pub use trace::tracestate::TraceState;
