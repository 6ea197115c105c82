//! The methods of [`Context`] for spans.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use super::builder::SpanBuilder;
use super::span::Span;
use super::span_context::SpanContext;
use super::span_ref::SpanRef;
use super::state::{SPAN, SpanState, TRACER, tracer};
use super::tracer::Tracer;
use super::value::Value;
use crate::Context;

/// # Spans
impl Context {
    /// Returns a builder for a span below this context's. [`start`](SpanBuilder::start) starts it.
    ///
    /// An empty name becomes `unknown`. The parent is this context's span or its remote parent;
    /// [`Context::current`] is not read. Spans of another tracing system, such as `tracing`, can be
    /// the parent in two cases:
    ///
    /// - A span that descends from this context's span is the parent in its place
    ///   ([`FindDescendant`](crate::trace::FindDescendant)).
    /// - If this context is in no span, the parent is the span that the task is in
    ///   ([`FindEnclosing`](crate::trace::FindEnclosing)). [`new_root`](SpanBuilder::new_root)
    ///   starts a new trace in this case too.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::Context;
    ///
    /// async fn debit(ctx: &Context) { /* … */ }
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let ctx = Context::background();
    /// let span = ctx.span("reserve").attribute("card", 7).start();
    /// debit(&span).await; // `&span` is the context of the span
    /// span.end();
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn span(&self, name: impl Into<Cow<'static, str>>) -> SpanBuilder<'_> {
        SpanBuilder::new(self, name.into())
    }

    /// Runs `work` in a span.
    ///
    /// - Starts the span at the first poll.
    /// - Makes the span's context the current one during each poll.
    /// - Records an `Err`.
    /// - Ends the span when `work` completes.
    ///
    /// # Errors
    /// Returns the error of `work`, unchanged. It becomes the span's status and an `exception`
    /// event, unless `work` has recorded it. An error that only reports that the context is done,
    /// such as a [`ContextError`](crate::ContextError), is not an error of the span: the
    /// [cause](SpanRef::record_cancelled) is recorded instead.
    ///
    /// # Cancellation safety
    /// If the future is dropped before it completes, by an abort or as the loser of a `select!`, it
    /// drops `work` and ends the span with the [cause](SpanRef::record_cancelled). That is the
    /// context's cause, or [`Abandoned`](crate::Cause::Abandoned) if the context is live. Nothing
    /// starts before the first poll.
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

    /// Returns the span that this context is in, to write to.
    ///
    /// If there is none, writes have no effect.
    #[inline]
    pub fn current_span(&self) -> SpanRef<'_> {
        match self.value(&SPAN) {
            Some(SpanState { writes_to: Some(ctx), .. }) => SpanRef::new(ctx, ctx.value(&SPAN)),
            state => SpanRef::new(self, state),
        }
    }

    /// Returns the identity of this context's span, or of its remote parent.
    ///
    /// This is what is injected into outgoing requests.
    #[inline]
    pub fn span_context(&self) -> Option<&SpanContext> {
        self.value(&SPAN).map(|state| &state.span_context)
    }

    /// Returns a context whose next span continues the trace of `parent`.
    ///
    /// `parent` is a span in another process.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::{Context, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    ///
    /// let caller = SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, true);
    /// let ctx = Context::background().with_remote_parent(caller.clone());
    /// let span = ctx.span("GET /").start();
    /// let own = span.span_context().expect("a span has an identity");
    /// assert_eq!((own.trace_id(), own.is_sampled()), (caller.trace_id(), true));
    /// assert_ne!(own.span_id(), caller.span_id());
    /// ```
    pub fn with_remote_parent(&self, parent: SpanContext) -> Context {
        self.with_value(&SPAN, SpanState::unrecorded(parent.into_remote(), false))
    }

    /// Returns a context whose spans, and those below, go to `tracer`.
    ///
    /// The process's default is not used for them. What was decided above on
    /// [recording](SpanBuilder#which-spans-are-recorded) a trace still holds below.
    pub fn with_tracer(&self, tracer: &Tracer) -> Context {
        self.with_value(&TRACER, tracer.clone())
    }

    /// Returns the tracer of this context's spans.
    ///
    /// It is the one of the nearest [`with_tracer`](Self::with_tracer), or the process's default.
    #[inline]
    pub fn tracer(&self) -> &Tracer {
        tracer(self)
    }

    /// Returns the tracer set by [`with_tracer`](Self::with_tracer).
    ///
    /// It is `None` if the spans go to the process's default.
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

    /// Starts a new trace for work that outlives the request.
    ///
    /// The new span links the span of this context. Its context keeps the values, and has no
    /// deadline and no cancellation from here.
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

    /// Derives a child that stays live for `grace` after this context is done.
    ///
    /// Use it for a step that must not stop half-way, such as a payment and its booking. The step
    /// gets time to complete, but not for ever.
    ///
    /// - The child keeps the values and the trace.
    /// - While this context is live, so is the child. When this context is cancelled, or its
    ///   deadline passes, the child stays live for `grace`. Then it is done with the same error and
    ///   cause.
    /// - Its deadline is `grace` after the deadline of this context.
    /// - If this context is done already, `grace` counts from the time when it was done.
    /// - When `grace` begins to count, the span of the child gets an event `throughline.shield`. It
    ///   has the cause and the grace.
    ///
    /// A timer ends the child after a cancellation, up to a few milliseconds late. A grace below 1
    /// ms counts as 1 ms, and a grace of zero makes no shield. The child uses no task. This context
    /// keeps nothing of a child that is gone.
    ///
    /// It does not keep a future from being dropped. A server drops its handler when the client
    /// disconnects, so spawn the step there. A shutdown of the process waits for the step, until
    /// its own limit.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use std::time::Duration;
    /// use throughline_core::{Cause, Context, ContextError};
    ///
    /// let second = Duration::from_secs(1);
    /// let request = Context::background().with_cancel();
    /// let payment = request.shielded(10 * second);
    /// let charge = payment.spawn(async move { tokio::time::sleep(3 * second).await; "charged" });
    ///
    /// request.cancel_with(Cause::ClientDisconnected);
    /// assert!(!payment.is_done());
    /// assert_eq!(charge.await.expect("the task did not panic"), Ok("charged"));
    ///
    /// payment.done().await; // 10 s after the request
    /// assert_eq!(payment.err(), Some(ContextError::Canceled));
    /// assert!(matches!(payment.cause(), Some(Cause::ClientDisconnected)));
    /// # }
    /// ```
    #[must_use = "deriving returns a new context and does not change this one"]
    pub fn shielded(&self, grace: Duration) -> Context {
        self.shield(grace, |ctx, cause, grace| {
            let grace_ms = grace.as_micros() as f64 / 1e3;
            let attributes = [
                ("throughline.cancel.cause", Value::from(cause.name())),
                ("throughline.shield.grace_ms", grace_ms.into()),
            ];
            ctx.current_span().add_event("throughline.shield", attributes);
        })
    }
}
