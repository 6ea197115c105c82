use super::id::{SpanId, TraceFlags, TraceId};
use super::tracestate::TraceState;

/// The identity of a span: trace id, span id, flags and tracestate.
///
/// The parts are those of W3C Trace Context Level 2.
///
/// It is what is propagated between processes. It is always valid: neither id can be zero.
///
/// # Examples
/// ```
/// use throughline_core::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
///
/// let parent = SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, true);
/// assert!(parent.is_sampled() && parent.is_remote());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanContext {
    trace_id: TraceId,
    span_id: SpanId,
    flags: TraceFlags,
    is_remote: bool,
    /// Whether the caller has left it to the callee to decide on recording.
    ///
    /// The sampled flag is not set then.
    is_undecided: bool,
    trace_state: TraceState,
}

impl SpanContext {
    /// Returns the identity made of these parts. `is_remote`: it came from another process.
    pub const fn new(
        trace_id: TraceId,
        span_id: SpanId,
        flags: TraceFlags,
        trace_state: TraceState,
        is_remote: bool,
    ) -> Self {
        Self { trace_id, span_id, flags, is_remote, is_undecided: false, trace_state }
    }

    /// Returns the id of the span's trace.
    #[inline]
    pub const fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// Returns the span's id, which is unique in its trace.
    #[inline]
    pub const fn span_id(&self) -> SpanId {
        self.span_id
    }

    /// Returns the trace's flags.
    #[inline]
    pub const fn flags(&self) -> TraceFlags {
        self.flags
    }

    /// Whether the process that created the span may have recorded it.
    #[inline]
    pub const fn is_sampled(&self) -> bool {
        self.flags.is_sampled()
    }

    /// Returns what tracing systems propagate with the trace. It is empty most of the time.
    #[inline]
    pub const fn trace_state(&self) -> &TraceState {
        &self.trace_state
    }

    /// Whether the identity came from another process.
    #[inline]
    pub const fn is_remote(&self) -> bool {
        self.is_remote
    }

    /// Returns the same identity with another tracestate.
    #[must_use]
    pub fn with_trace_state(self, trace_state: TraceState) -> Self {
        Self { trace_state, ..self }
    }

    /// Whether recording of the trace is not decided yet. It is not sampled then.
    #[inline]
    pub(crate) const fn is_undecided(&self) -> bool {
        self.is_undecided
    }

    pub(crate) fn into_undecided(self) -> Self {
        Self { flags: self.flags.with_sampled(false), is_undecided: true, ..self }
    }

    pub(super) fn into_remote(self) -> Self {
        Self { is_remote: true, ..self }
    }

    /// Returns the identity of a child in this process, with the same decision on recording.
    #[inline]
    pub(super) fn child(&self, span_id: SpanId) -> Self {
        Self { span_id, is_remote: false, trace_state: self.trace_state.clone(), ..*self }
    }
}
