use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::SystemTime;

use super::attributes::Attributes;
use super::clock::{self, Epoch, UnixNanos};
use super::foreign;
use super::id::{SpanId, TraceFlags, TraceId};
use super::limits::SpanLimits;
use super::record::{Link, SpanKind};
use super::sampler::{SamplingParameters, SamplingResult};
use super::span::Span;
use super::span_context::SpanContext;
use super::state::{RareFields, Recording, SPAN, SpanState, TRACER, bound_name, tracer};
use super::tracer::{Tracer, TracerConfig};
use super::value::Value;
use crate::Context;

/// A span that has not started. [`Context::span`] makes it, [`start`](Self::start) starts it.
///
/// # Which spans are recorded
/// The tracer's [`Sampler`](crate::trace::Sampler) decides for the first span of a trace in this
/// process. The spans below follow that decision.
///
/// A span that is not recorded still has an identity, which is propagated:
///
/// - A span that enters or leaves the process has its own.
/// - A span of kind [`Internal`](SpanKind::Internal) shares that of the unrecorded span above it.
///   No one can look for it, since neither is exported.
///
/// # Examples
/// ```
/// use throughline_core::Context;
/// use throughline_core::trace::SpanKind;
///
/// let ctx = Context::background();
/// let span = ctx.span("charge").kind(SpanKind::Client).attribute("amount", 250).start();
/// let below = span.span("encode").start();
/// let trace_id = |ctx: &Context| ctx.span_context().map(|span| span.trace_id());
/// assert_eq!(trace_id(&below), trace_id(&span));
/// ```
#[must_use = "a span starts with `start()`"]
pub struct SpanBuilder<'a> {
    ctx: &'a Context,
    name: Cow<'static, str>,
    kind: SpanKind,
    start: Option<UnixNanos>,
    tracer: Option<&'a Tracer>,
    attributes: Attributes,
    links: Vec<Link>,
    is_root: bool,
    remote_parent: Option<SpanContext>,
    /// The context whose span is the parent, if that is not `ctx`.
    parent_ctx: Option<Context>,
    /// Whether the spans go where the spans of `parent_ctx` go.
    uses_parent_tracer: bool,
    decision: Option<Decision>,
}

/// The identity of a span, its parent, and whether it is recorded.
struct Decision {
    span_context: SpanContext,
    parent_span_id: Option<SpanId>,
    parent_is_remote: bool,
    is_recorded: bool,
    is_local_root: bool,
    epoch: Epoch,
    attributes: Vec<(Cow<'static, str>, Value)>,
}

impl<'a> SpanBuilder<'a> {
    #[inline]
    pub(super) fn new(ctx: &'a Context, name: Cow<'static, str>) -> Self {
        Self {
            ctx,
            name,
            kind: SpanKind::Internal,
            start: None,
            tracer: None,
            attributes: Attributes::new(),
            links: Vec::new(),
            is_root: false,
            remote_parent: None,
            parent_ctx: None,
            uses_parent_tracer: false,
            decision: None,
        }
    }

    /// Sets the kind: the span's role between processes. Default: `Internal`.
    #[inline]
    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets an attribute of the span from its start.
    ///
    /// Samplers see it. The last write of a key wins.
    #[inline]
    pub fn attribute(mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.attributes.set(key, value);
        self
    }

    /// Sets an attribute whose value is computed only if the span is recorded.
    ///
    /// Whether it is recorded is decided in this call, from what is set so far. Set kind, parent,
    /// tracer, and the attributes for samplers before.
    #[inline]
    pub fn attribute_with<V: Into<Value>>(
        mut self,
        key: impl Into<Cow<'static, str>>,
        value: impl FnOnce() -> V,
    ) -> Self {
        if self.decision.is_none() && !self.is_shared() {
            self.decision = Some(self.decide(clock::ticks()));
        }
        let is_recorded = self.decision.as_ref().is_some_and(|decision| decision.is_recorded);
        if is_recorded { self.attribute(key, value()) } else { self }
    }

    /// Links a related span that is not the parent.
    ///
    /// A [`SpanContext`] is a link without attributes.
    pub fn link(mut self, link: impl Into<Link>) -> Self {
        self.links.push(link.into());
        self
    }

    /// Adds several [`link`](Self::link)s, for example those of a batch of messages.
    pub fn links<L: Into<Link>>(mut self, links: impl IntoIterator<Item = L>) -> Self {
        self.links.extend(links.into_iter().map(Into::into));
        self
    }

    /// Sets the start time. Default: the time of [`start`](Self::start).
    pub fn start_time(mut self, time: SystemTime) -> Self {
        self.start = Some(time.into());
        self
    }

    /// Starts a new trace, which links the span that would be the parent.
    ///
    /// Deadline, cancellation and values stay those of the context.
    pub fn new_root(mut self) -> Self {
        if !self.is_root {
            let span_left = self.span_left();
            self.links.extend(span_left.map(Link::from));
            self.is_root = true;
        }
        self
    }

    /// Continues a trace of another process: `parent` is the parent instead of the context's span.
    ///
    /// It is [`Context::with_remote_parent`] for this span only.
    pub fn remote_parent(mut self, parent: SpanContext) -> Self {
        self.remote_parent = Some(parent.into_remote());
        self
    }

    /// Sets the parent: the span of `parent` instead of the context's own.
    ///
    /// Deadline, cancellation, values and tracer are still the context's.
    ///
    /// ```
    /// use throughline_core::Context;
    ///
    /// let job = Context::background().span("job").start();
    /// let request = Context::background().span("request").start();
    /// let step = request.span("step").parent(&job).start();
    /// let trace_id = |ctx: &Context| ctx.span_context().map(|span| span.trace_id());
    /// assert_eq!(trace_id(&step), trace_id(&job));
    /// ```
    pub fn parent(mut self, parent: &Context) -> Self {
        self.parent_ctx = Some(parent.clone());
        self
    }

    /// Sets the tracer of this span and those below it. Default: the context's.
    pub fn tracer(mut self, tracer: &'a Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// Starts the span.
    #[inline]
    pub fn start(mut self) -> Span {
        if self.decision.is_none() && self.is_shared() {
            return Span::unrecorded(self.ctx.clone());
        }
        self.start_with_own_identity()
    }

    /// Whether the span shares the identity of an unrecorded span.
    #[inline]
    fn is_shared(&self) -> bool {
        let shares = !self.is_root && self.remote_parent.is_none() && self.kind == SpanKind::Internal;
        shares
            && self.ctx.value(&SPAN).is_some_and(|state| {
                !state.is_recorded
                    && !state.span_context.is_remote()
                    && self.parent_ctx.as_ref().is_none_or(|parent_ctx| is_in(parent_ctx, state))
            })
    }

    fn start_with_own_identity(&mut self) -> Span {
        let now = clock::ticks();
        let decision = match self.decision.take() {
            Some(decision) => decision,
            None => self.decide(now),
        };
        let with_tracer;
        let ctx = match self.other_tracer().filter(|new| !new.is(tracer(self.ctx))) {
            Some(tracer) => {
                with_tracer = self.ctx.with_value(&TRACER, tracer.clone());
                &with_tracer
            }
            None => self.ctx,
        };
        let Some(config) = tracer(ctx).config().filter(|_| decision.is_recorded) else {
            return Span::unrecorded(
                ctx.with_value(&SPAN, SpanState::unrecorded(decision.span_context, decision.is_local_root)),
            );
        };
        if let Some(from_context) = &config.from_context {
            from_context(ctx, &mut self.attributes);
        }
        let limits = config.limits;
        bound_name(&mut self.name);
        let (mut dropped_attributes, mut rare) = (0, None);
        if !(self.attributes.is_untouched() && decision.attributes.is_empty() && self.links.is_empty()) {
            (dropped_attributes, rare) = self.apply_limits(decision.attributes, &limits);
        }
        let recording = Recording {
            is_live: true,
            is_cancelled: false,
            parent_is_remote: decision.parent_is_remote,
            kind: self.kind,
            dropped_attributes,
            parent_span_id: decision.parent_span_id,
            start_time: self.start.unwrap_or_else(|| decision.epoch.at(now)),
            name: std::mem::take(&mut self.name),
            attributes: self.attributes.take(),
            rare,
        };
        let state = SpanState {
            span_context: decision.span_context,
            is_recorded: true,
            is_local_root: decision.is_local_root,
            limits,
            epoch: decision.epoch,
            writes_to: None,
            recording: Mutex::new(recording),
        };
        Span::recorded(ctx.with_value(&SPAN, state))
    }

    /// Adds the sampler's attributes and applies `limits`.
    ///
    /// Returns the number of dropped attributes, and the links.
    fn apply_limits(
        &mut self,
        sampled: Vec<(Cow<'static, str>, Value)>,
        limits: &SpanLimits,
    ) -> (u32, Option<Box<RareFields>>) {
        self.attributes.extend(sampled);
        let dropped = self.attributes.shrink_to(limits.attributes, limits);
        if self.links.is_empty() {
            return (dropped, None);
        }
        let mut rare = Box::<RareFields>::default();
        std::mem::take(&mut self.links).into_iter().for_each(|link| rare.add_link(link, limits));
        (dropped, Some(rare))
    }

    fn decide(&mut self, now: u64) -> Decision {
        let ctx = self.ctx;
        let context_span = ctx.value(&SPAN);
        let has_explicit_parent = self.is_root || self.remote_parent.is_some() || self.parent_ctx.is_some();
        if !has_explicit_parent {
            self.find_enclosing(context_span);
        }
        let config = self.other_tracer().unwrap_or_else(|| tracer(ctx)).config();
        let current = match &self.parent_ctx {
            _ if self.is_root || self.remote_parent.is_some() => None,
            Some(parent_ctx) => parent_ctx.value(&SPAN),
            None => context_span,
        };
        let Some(current) = current else {
            return self.decide_root(config, self.remote_parent.as_ref(), now);
        };
        let parent = &current.span_context;
        let descendant = if has_explicit_parent { None } else { foreign::descendant(ctx, config, parent) };
        match descendant {
            // The local root of this trace is a foreign span, which has its own start time.
            Some(span) if parent.is_remote() => follow(config, &span, span.is_sampled(), clock::epoch(), now),
            Some(span) => follow(config, &span, current.is_recorded, current.epoch, now),
            None if parent.is_remote() => self.decide_root(config, Some(parent), now),
            None => follow(config, parent, current.is_recorded, current.epoch, now),
        }
    }

    /// The tracer of the spans, if it is not the context's.
    #[inline]
    fn other_tracer(&self) -> Option<&Tracer> {
        let parent_tracer = || self.parent_ctx.as_ref().filter(|_| self.uses_parent_tracer).map(tracer);
        self.tracer.or_else(parent_tracer)
    }

    /// Finds the foreign span that the task is in.
    ///
    /// The context is in no span of this process. A span that enters the process has its parent
    /// elsewhere.
    #[inline]
    fn find_enclosing(&mut self, context_span: Option<&SpanState>) {
        let is_in_span = context_span.is_some_and(|state| !state.span_context.is_remote());
        if !is_in_span && !matches!(self.kind, SpanKind::Server | SpanKind::Consumer) {
            self.parent_ctx = foreign::enclosing(self.ctx);
            self.uses_parent_tracer = self.ctx.value(&TRACER).is_none();
        }
    }

    /// The span that a new root links: the one that would be its parent.
    fn span_left(&mut self) -> Option<SpanContext> {
        let context_span = self.ctx.value(&SPAN);
        if self.parent_ctx.is_none() {
            self.find_enclosing(context_span);
        }
        if let Some(parent_ctx) = &self.parent_ctx {
            return parent_ctx.span_context().cloned();
        }
        let current = context_span?;
        let config = tracer(self.ctx).config().filter(|_| current.is_recorded);
        foreign::descendant(self.ctx, config, &current.span_context).or_else(|| Some(current.span_context.clone()))
    }

    /// Decides for the first span of a trace in this process.
    fn decide_root(&self, config: Option<&TracerConfig>, parent: Option<&SpanContext>, now: u64) -> Decision {
        let trace_id = parent.map_or_else(|| TraceId::random_at(now), SpanContext::trace_id);
        let result = match config {
            Some(config) => {
                let span = SamplingParameters {
                    trace_id,
                    name: &self.name,
                    kind: self.kind,
                    attributes: &self.attributes,
                    links: &self.links,
                    parent,
                };
                catch_unwind(AssertUnwindSafe(|| config.sampler.sample(&span))).unwrap_or_default()
            }
            // No sampler: the caller's decision is propagated, or the fact that there is none.
            None => {
                SamplingResult { sampled: parent.is_some_and(SpanContext::is_sampled), ..SamplingResult::default() }
            }
        };
        let new_trace_flags =
            if config.is_some_and(|config| config.random_flag) { TraceFlags::RANDOM } else { TraceFlags::NONE };
        let flags = parent.map_or(new_trace_flags, SpanContext::flags).with_sampled(result.sampled);
        let trace_state = result.trace_state.or_else(|| parent.map(|parent| parent.trace_state().clone()));
        let decided = SpanContext::new(trace_id, SpanId::random_at(now), flags, trace_state.unwrap_or_default(), false);
        let stays_undecided = config.is_none() && parent.is_some_and(SpanContext::is_undecided);
        let is_recorded = result.sampled && config.is_some_and(|config| config.recorder.admit());
        Decision {
            span_context: if stays_undecided { decided.into_undecided() } else { decided },
            parent_span_id: parent.map(SpanContext::span_id),
            parent_is_remote: parent.is_some(),
            is_recorded,
            is_local_root: true,
            epoch: if is_recorded { clock::epoch() } else { Epoch::default() },
            attributes: result.attributes,
        }
    }
}

/// Whether `ctx` is in the span of `state`.
fn is_in(ctx: &Context, state: &SpanState) -> bool {
    ctx.span_context().is_some_and(|span| span.span_id() == state.span_context.span_id())
}

/// Follows the decision of the parent, a span of this process.
#[inline]
fn follow(config: Option<&TracerConfig>, parent: &SpanContext, is_recorded: bool, epoch: Epoch, now: u64) -> Decision {
    Decision {
        span_context: parent.child(SpanId::random_at(now)),
        parent_span_id: Some(parent.span_id()),
        parent_is_remote: false,
        is_recorded: is_recorded && config.is_some_and(|config| config.recorder.admit()),
        is_local_root: false,
        epoch,
        attributes: Vec::new(),
    }
}
