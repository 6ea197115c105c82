use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::attributes::Attributes;
use super::id::TraceId;
use super::record::{Link, SpanKind};
use super::span_context::SpanContext;
use super::tracestate::TraceState;
use super::value::Value;

/// Decides whether a trace is recorded, once: when its first span in this process starts.
///
/// The spans below follow the decision. The sampler is called on the task that starts the span, so
/// it should be fast. If it panics, the trace is not recorded.
///
/// # Examples
/// ```
/// use throughline_core::trace::{Sampler, SamplingParameters, SamplingResult};
///
/// struct NoHealthChecks;
///
/// impl Sampler for NoHealthChecks {
///     fn sample(&self, span: &SamplingParameters<'_>) -> SamplingResult {
///         if span.name.ends_with("/health") { SamplingResult::drop() } else { SamplingResult::record() }
///     }
/// }
/// ```
pub trait Sampler: Send + Sync {
    /// Decides whether to record the trace of `span`, its first span in this process.
    fn sample(&self, span: &SamplingParameters<'_>) -> SamplingResult;
}

/// What a sampler can base its decision on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SamplingParameters<'a> {
    /// The trace's id.
    pub trace_id: TraceId,
    /// The span's name.
    pub name: &'a str,
    /// The span's kind.
    pub kind: SpanKind,
    /// The attributes that are set so far.
    pub attributes: &'a Attributes,
    /// The links that are set so far.
    pub links: &'a [Link],
    /// The parent span, which is in another process; `None` for the root of a trace.
    pub parent: Option<&'a SpanContext>,
}

impl<'a> SamplingParameters<'a> {
    /// Returns the parameters of a root span of kind [`Internal`](SpanKind::Internal) without
    /// attributes.
    pub fn new(trace_id: TraceId, name: &'a str) -> Self {
        static NONE: Attributes = Attributes::new();
        Self { trace_id, name, kind: SpanKind::Internal, attributes: &NONE, links: &[], parent: None }
    }
}

/// The decision of a sampler.
#[derive(Clone, Debug, PartialEq, Default)]
#[non_exhaustive]
pub struct SamplingResult {
    /// Whether the spans are recorded. It is propagated as the sampled flag.
    pub sampled: bool,
    /// Attributes for the first span, such as the rule that matched.
    pub attributes: Vec<(Cow<'static, str>, Value)>,
    /// The tracestate to propagate; `None` keeps the parent's.
    pub trace_state: Option<TraceState>,
}

impl SamplingResult {
    /// Returns the decision to record the trace.
    pub const fn record() -> Self {
        Self { sampled: true, attributes: Vec::new(), trace_state: None }
    }

    /// Returns the decision not to record the trace.
    pub const fn drop() -> Self {
        Self { sampled: false, attributes: Vec::new(), trace_state: None }
    }
}

/// Records every trace.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysOn;

impl Sampler for AlwaysOn {
    fn sample(&self, _: &SamplingParameters<'_>) -> SamplingResult {
        SamplingResult::record()
    }
}

/// Records no trace.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysOff;

impl Sampler for AlwaysOff {
    fn sample(&self, _: &SamplingParameters<'_>) -> SamplingResult {
        SamplingResult::drop()
    }
}

/// Follows the caller's decision. If there is none, another sampler decides.
///
/// The other sampler decides for traces that start in this process, and for those whose caller has
/// left the decision to the callee, as [B3](crate::propagation::b3) allows.
///
/// # Examples
/// ```
/// use throughline_core::trace::{ParentBased, Sampler, SamplingParameters, TraceIdRatio};
/// use throughline_core::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
///
/// let sampler = ParentBased::new(TraceIdRatio::new(0.0));
/// let id = TraceId::random();
/// let mut span = SamplingParameters::new(id, "GET /");
/// assert!(!sampler.sample(&span).sampled, "no caller: the ratio decides");
///
/// let caller = SpanContext::new(id, SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, true);
/// span.parent = Some(&caller);
/// assert!(sampler.sample(&span).sampled, "the caller records, so this process does");
/// ```
#[derive(Clone)]
pub struct ParentBased(Arc<dyn Sampler>);

impl ParentBased {
    /// The sampler `root` decides where no caller has decided.
    pub fn new(root: impl Sampler + 'static) -> Self {
        Self(Arc::new(root))
    }
}

impl Default for ParentBased {
    /// Records every trace that starts in this process.
    fn default() -> Self {
        Self::new(AlwaysOn)
    }
}

impl fmt::Debug for ParentBased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParentBased").finish_non_exhaustive()
    }
}

impl Sampler for ParentBased {
    fn sample(&self, span: &SamplingParameters<'_>) -> SamplingResult {
        match span.parent {
            Some(parent) if !parent.is_undecided() => {
                SamplingResult { sampled: parent.is_sampled(), ..SamplingResult::default() }
            }
            _ => self.0.sample(span),
        }
    }
}
