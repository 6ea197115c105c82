//! What a [`Context`] can do with spans.

use std::borrow::Cow;
use std::fmt::Display;

use super::builder::SpanBuilder;
use super::span::Span;
use super::span_context::SpanContext;
use super::span_ref::SpanRef;
use super::state::{SPAN, SpanState, TRACER, tracer};
use super::tracer::Tracer;
use crate::Context;

/// # Spans
impl Context {
    /// Builds a span below this context's; [`start`](SpanBuilder::start) starts it. An empty name becomes `unknown`.
    ///
    /// The parent is this context's span, or its remote parent. [`Context::current`] is not looked at. Spans of another tracing
    /// system, as `tracing`'s are, have a part in two cases:
    ///
    /// - One that descends from this context's span takes its place ([`FindDescendant`](crate::trace::FindDescendant)).
    /// - Where this context is in no span, the one that the task is in is the parent
    ///   ([`FindEnclosing`](crate::trace::FindEnclosing)); [`new_root`](SpanBuilder::new_root) starts a trace all the same.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::Context;
    ///
    /// async fn debit(ctx: &Context) { /* … */ }
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let ctx = Context::background();
    /// let span = ctx.span("reserve").attribute("card", 7).start();
    /// debit(&span).await; // the span is the context to work under
    /// span.end();
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn span(&self, name: impl Into<Cow<'static, str>>) -> SpanBuilder<'_> {
        SpanBuilder::new(self, name.into())
    }

    /// Runs `work` in a span: starts it, makes its context the current one during each poll, records an `Err`, and ends
    /// it.
    ///
    /// # Errors
    /// That of `work`, unchanged. It becomes the span's status and an `exception` event, unless
    /// `work` has recorded it. One that only reports that the context is done, as a
    /// [`ContextError`](crate::ContextError) does, is no error of the span: the
    /// [cause](SpanRef::record_cancelled) is recorded.
    ///
    /// # Cancellation safety
    /// Dropped before its end, as an aborted task or the loser of a `select!` is, it drops `work`
    /// and ends the span with the [cause](SpanRef::record_cancelled): the context's, or
    /// [`Abandoned`](crate::Cause::Abandoned) where that is live. Nothing starts before the first
    /// poll.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::Context;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let ctx = Context::background();
    /// let sum = ctx.in_span("add", async |ctx| {
    ///     ctx.current_span().set_attribute("terms", 2);
    ///     Ok::<_, std::convert::Infallible>(1 + 1)
    /// });
    /// assert_eq!(sum.await, Ok(2));
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn in_span<F, Fut, T, E>(&self, name: impl Into<Cow<'static, str>>, work: F) -> Result<T, E>
    where
        F: FnOnce(Context) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Display,
    {
        let span = self.span(name).start().abandoned_if_dropped();
        let result = span.scope(work(span.context().clone())).await;
        if let Err(error) = &result {
            span.as_ref().record_failure(error);
        }
        span.end();
        result
    }

    /// The span that this context is in, to add to. Where there is none, every write is a no-op.
    #[inline]
    pub fn current_span(&self) -> SpanRef<'_> {
        match self.value(&SPAN) {
            Some(SpanState { writes_to: Some(ctx), .. }) => SpanRef::new(ctx, ctx.value(&SPAN)),
            state => SpanRef::new(self, state),
        }
    }

    /// The identity of the span that this context is in, or else of its remote parent; what goes on the wire.
    #[inline]
    pub fn span_context(&self) -> Option<&SpanContext> {
        self.value(&SPAN).map(|state| &state.span_context)
    }

    /// A context whose next span goes on with the trace of `parent`, which another process has sent.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::{Context, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    ///
    /// let caller = SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, true);
    /// let ctx = Context::background().with_remote_parent(caller.clone());
    /// let span = ctx.span("GET /").start();
    /// let ours = span.span_context().expect("a span has one");
    /// assert_eq!((ours.trace_id(), ours.is_sampled()), (caller.trace_id(), true));
    /// assert_ne!(ours.span_id(), caller.span_id());
    /// ```
    pub fn with_remote_parent(&self, parent: SpanContext) -> Context {
        self.with_value(&SPAN, SpanState::identity(parent.into_remote(), false))
    }

    /// A context whose spans, and those below, go to `tracer` instead of the process's default. A trace that is
    /// [recorded](SpanBuilder#which-spans-are-recorded) or not above stays so below.
    pub fn with_tracer(&self, tracer: &Tracer) -> Context {
        self.with_value(&TRACER, tracer.clone())
    }

    /// Where this context's spans go: the [`with_tracer`](Self::with_tracer) next above, or the process's default.
    #[inline]
    pub fn tracer(&self) -> &Tracer {
        tracer(self)
    }

    /// The tracer that [`with_tracer`](Self::with_tracer) named; `None` where spans go to the process's default.
    ///
    /// ```
    /// use throughline_core::Context;
    /// use throughline_core::trace::Tracer;
    ///
    /// let ctx = Context::background();
    /// assert!(ctx.named_tracer().is_none());
    /// assert!(ctx.with_tracer(&Tracer::noop()).named_tracer().is_some());
    /// ```
    #[inline]
    pub fn named_tracer(&self) -> Option<&Tracer> {
        self.value(&TRACER)
    }

    /// Leaves the request for work that outlives it: a new trace that links the span it left, without deadline and
    /// cancellation, with the values.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().span("POST /payments").start();
    /// let audit = request.detach_linked("audit");
    /// let trace_id = |ctx: &Context| ctx.span_context().map(|span| span.trace_id());
    /// assert_ne!(trace_id(&audit), trace_id(&request));
    /// ```
    pub fn detach_linked(&self, name: impl Into<Cow<'static, str>>) -> Span {
        self.detach().span(name).new_root().start()
    }
}
