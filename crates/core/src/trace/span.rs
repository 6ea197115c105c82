use std::borrow::Cow;
use std::error::Error;
use std::ops::Deref;
use std::time::SystemTime;

use super::attributes::Attributes;
use super::clock::UnixNanos;
use super::record::{Link, SpanRecord, Status};
use super::span_ref::SpanRef;
use super::state::{SPAN, tracer};
use super::value::Value;
use crate::{Cause, Context};

/// A span that has started. It ends when it is dropped or by [`end`](Self::end).
///
/// It dereferences to its [`Context`]: pass `&span` to the code that works in the span. Clones of
/// that context may outlive the span. Their writes to it are then ignored and
/// [counted](crate::trace::Tracer::late_writes).
///
/// # How a span ends
/// - By [`end`](Self::end): with the status that is set.
/// - Dropped by a panic that began after the span's start: with the status `Error`, even after
///   `Ok`, and with `error.type` = `panic`.
/// - Dropped otherwise: with the status that is set. See
///   [`abandoned_if_dropped`](Self::abandoned_if_dropped) for work that may be dropped.
/// - In each case, if its context is done: the context's cause is
///   [recorded](SpanRef::record_cancelled). The request's own span never records `RequestFinished`,
///   which is set after it.
///
/// Ending a span ends that span alone. It cancels nothing, and spans below it may continue.
///
/// # Examples
/// ```
/// use throughline_core::Context;
///
/// fn reserve(ctx: &Context) {
///     ctx.current_span().set_attribute("card", 7);
/// }
///
/// let span = Context::background().span("authorize").start();
/// reserve(&span);
/// assert!(span.span_context().is_some());
/// span.end();
/// ```
#[must_use = "a span ends when it is dropped"]
#[derive(Debug)]
pub struct Span {
    ctx: Context,
    /// Whether this ends the recording of the context's span.
    ///
    /// It does not if it shares the identity of an unrecorded span.
    is_owner: bool,
    /// Whether a drop without [`end`](Self::end) means that the work was dropped.
    abandoned_if_dropped: bool,
    /// Whether the thread was unwinding at the start.
    ///
    /// A destructor started the span then, and that panic is not the span's.
    started_in_panic: bool,
}

impl Span {
    #[inline]
    pub(super) fn recorded(ctx: Context) -> Self {
        Self { ctx, is_owner: true, abandoned_if_dropped: false, started_in_panic: std::thread::panicking() }
    }

    #[inline]
    pub(super) fn unrecorded(ctx: Context) -> Self {
        Self { ctx, is_owner: false, abandoned_if_dropped: false, started_in_panic: false }
    }

    /// Returns the context of the span: what `&span` dereferences to.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Makes a drop without [`end`](Self::end) record that the work was dropped.
    ///
    /// This is for futures that lose a `select!`, and for tasks that may be aborted. The span
    /// records the cause [`Abandoned`](Cause::Abandoned), unless:
    ///
    /// - its context is done,
    /// - another cause is [recorded](SpanRef::record_cancelled),
    /// - or a panic drops it.
    ///
    /// [`in_span`](Context::in_span) does this by itself.
    ///
    /// ```
    /// use throughline_core::Context;
    ///
    /// async fn reserve(ctx: &Context) {
    ///     let span = ctx.span("reserve").start().abandoned_if_dropped();
    ///     tokio::task::yield_now().await; // a caller may drop the future here
    ///     span.end();
    /// }
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(reserve(&Context::background()));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn abandoned_if_dropped(mut self) -> Self {
        self.abandoned_if_dropped = true;
        self
    }

    /// Ends the span now.
    #[inline]
    pub fn end(mut self) {
        self.finish(None, |_| {});
    }

    /// Ends the span at `time`, or at its start if `time` is before that.
    pub fn end_at(mut self, time: SystemTime) {
        self.finish(Some(time.into()), |_| {});
    }

    /// Whether writes have an effect.
    ///
    /// Check it before work that only prepares data for the span.
    pub fn is_recording(&self) -> bool {
        self.as_ref().is_recording()
    }

    /// See [`SpanRef::set_attribute`].
    pub fn set_attribute(&self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        self.as_ref().set_attribute(key, value);
    }

    /// See [`SpanRef::remove_attribute`].
    pub fn remove_attribute(&self, key: &str) {
        self.as_ref().remove_attribute(key);
    }

    /// See [`SpanRef::set_attribute_with`].
    pub fn set_attribute_with<V: Into<Value>>(&self, key: impl Into<Cow<'static, str>>, value: impl FnOnce() -> V) {
        self.as_ref().set_attribute_with(key, value);
    }

    /// See [`SpanRef::add_event`].
    pub fn add_event(&self, name: impl Into<Cow<'static, str>>, attributes: impl Into<Attributes>) {
        self.as_ref().add_event(name, attributes);
    }

    /// See [`SpanRef::add_event_at`].
    pub fn add_event_at(
        &self,
        name: impl Into<Cow<'static, str>>,
        time: SystemTime,
        attributes: impl Into<Attributes>,
    ) {
        self.as_ref().add_event_at(name, time, attributes);
    }

    /// See [`SpanRef::add_link`].
    pub fn add_link(&self, link: impl Into<Link>) {
        self.as_ref().add_link(link);
    }

    /// See [`SpanRef::set_status`].
    pub fn set_status(&self, status: Status) {
        self.as_ref().set_status(status);
    }

    /// See [`SpanRef::record_error`].
    pub fn record_error<E: Error + ?Sized>(&self, error: &E) {
        self.as_ref().record_error(error);
    }

    /// See [`SpanRef::record_returned`].
    pub fn record_returned<E: Error + ?Sized>(&self, error: &E) {
        self.as_ref().record_returned(error);
    }

    /// See [`SpanRef::record_cancelled`].
    pub fn record_cancelled(&self, cause: &Cause) {
        self.as_ref().record_cancelled(cause);
    }

    /// See [`SpanRef::record_shed`].
    pub fn record_shed(&self, cause: &Cause) {
        self.as_ref().record_shed(cause);
    }

    /// See [`SpanRef::set_name`].
    pub fn set_name(&self, name: impl Into<Cow<'static, str>>) {
        self.as_ref().set_name(name);
    }

    pub(super) fn as_ref(&self) -> SpanRef<'_> {
        if self.is_owner { self.ctx.current_span() } else { SpanRef::new(&self.ctx, None) }
    }

    /// Ends the span, once. `last` may change the record before the recorder takes it.
    #[inline]
    fn finish(&mut self, end: Option<UnixNanos>, last: impl FnOnce(&mut SpanRecord)) {
        if !self.is_owner {
            return;
        }
        let Some(state) = self.ctx.value(&SPAN) else { return };
        let end = end.unwrap_or_else(|| state.epoch.now());
        if self.ctx.is_done() {
            self.record_cause(end);
        }
        self.is_owner = false;
        let Some(mut record) = state.end(end) else { return };
        last(&mut record);
        if let Some(config) = tracer(&self.ctx).config() {
            config.recorder.record(record);
        }
    }

    /// Records why the context is done, unless a cause is recorded already.
    #[cold]
    fn record_cause(&self, end: UnixNanos) {
        if let Some(cause) = self.ctx.cause() {
            self.as_ref().record_cancellation("throughline.cancelled", &cause, Some(end));
        }
    }
}

impl Deref for Span {
    type Target = Context;

    #[inline]
    fn deref(&self) -> &Context {
        &self.ctx
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if self.is_owner {
            let panicking = std::thread::panicking();
            let panicked = panicking && !self.started_in_panic;
            if self.abandoned_if_dropped && !panicking && !self.ctx.is_done() {
                self.record_cancelled(&Cause::Abandoned);
            }
            self.finish(None, |record| {
                if panicked {
                    record.status = Status::Error("panicked".into());
                    record.attributes.set("error.type", "panic");
                }
            });
        }
    }
}
