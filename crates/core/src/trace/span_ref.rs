use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use super::attributes::Attributes;
use super::clock::UnixNanos;
use super::record::{Event, Link, SpanKind, Status};
use super::span_context::SpanContext;
use super::state::{SpanState, count_late_write};
use super::value::Value;
use crate::error_message::{Bounded, error_message};
use crate::{Cause, Context, ContextError};

/// The attribute that holds the message of an `exception` event.
const MESSAGE: &str = "exception.message";

/// The span that a context is in. It can be written to, but not ended.
///
/// It is for code that is called with the context. Copying it is free. If the span is not recorded,
/// a write costs one test. Writes after the span has ended are ignored and
/// [counted](crate::trace::Tracer::late_writes).
///
/// # Examples
/// ```
/// use throughline_core::Context;
///
/// fn charge(ctx: &Context) {
///     let span = ctx.current_span();
///     span.set_attribute("amount", 250);
///     span.set_attribute_with("receipt", || format!("computed only when {}", "recorded"));
/// }
///
/// charge(&Context::background());
/// assert!(!Context::background().current_span().is_recording());
/// ```
#[derive(Clone, Copy)]
pub struct SpanRef<'a> {
    ctx: &'a Context,
    state: Option<&'a SpanState>,
}

impl<'a> SpanRef<'a> {
    #[inline]
    pub(super) fn new(ctx: &'a Context, state: Option<&'a SpanState>) -> Self {
        Self { ctx, state }
    }

    /// Returns the span's identity.
    ///
    /// If the context is in no span of this process, this is the remote parent's.
    pub fn span_context(&self) -> Option<&'a SpanContext> {
        self.state.map(|state| &state.span_context)
    }

    /// Whether writes have an effect: the span is recorded and has not ended.
    pub fn is_recording(&self) -> bool {
        self.state.is_some_and(SpanState::is_recording)
    }

    /// Sets an attribute. The last write of a key wins.
    ///
    /// An attribute with an empty key, or beyond the [limit](crate::trace::SpanLimits), is dropped.
    /// The span's record counts it.
    #[inline]
    pub fn set_attribute(&self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        if let Some(state) = self.recorded_state() {
            let (key, value) = (key.into(), value.into());
            state.write(self.ctx, |span, limits| span.set_attribute(key, value, limits));
        }
    }

    /// Removes an attribute. A span without it does not change.
    pub fn remove_attribute(&self, key: &str) {
        if let Some(state) = self.recorded_state() {
            state.write(self.ctx, |span, _| span.attributes.retain(|name, _| name != key));
        }
    }

    /// Sets an attribute to what `value` returns.
    ///
    /// `value` is called only if the span is recording.
    #[inline]
    pub fn set_attribute_with<V: Into<Value>>(&self, key: impl Into<Cow<'static, str>>, value: impl FnOnce() -> V) {
        if self.is_recording() {
            self.set_attribute(key, value());
        } else if self.recorded_state().is_some() {
            count_late_write(self.ctx);
        }
    }

    /// Adds an event at the current time.
    ///
    /// `attributes` is `()` for none, an array of pairs, or [`Attributes`].
    pub fn add_event(&self, name: impl Into<Cow<'static, str>>, attributes: impl Into<Attributes>) {
        if let Some(state) = self.recorded_state() {
            self.push_event(Event::new(name, state.epoch.now(), attributes));
        }
    }

    /// Adds an event that happened at `time`.
    pub fn add_event_at(
        &self,
        name: impl Into<Cow<'static, str>>,
        time: SystemTime,
        attributes: impl Into<Attributes>,
    ) {
        if self.recorded_state().is_some() {
            self.push_event(Event::new(name, UnixNanos::from(time), attributes));
        }
    }

    /// Links a related span that is not the parent.
    ///
    /// A [`SpanContext`] is a link without attributes.
    pub fn add_link(&self, link: impl Into<Link>) {
        if let Some(state) = self.recorded_state() {
            let link = link.into();
            state.write(self.ctx, |span, limits| span.rare().add_link(link, limits));
        }
    }

    /// Sets the status.
    ///
    /// - `Ok` is final: a later `Error` is ignored.
    /// - `Unset` changes nothing.
    pub fn set_status(&self, status: Status) {
        if let Some(state) = self.recorded_state() {
            state.write(self.ctx, |span, _| span.rare().set_status(status));
        }
    }

    /// Sets the status to `Error` and adds an `exception` event.
    ///
    /// The event has `exception.type` and `exception.message`. The message includes the chain of
    /// [`source`](Error::source)s: at most 16 of them, and at most 4 KiB in all.
    ///
    /// An error that is recorded twice on one span is one event. Two calls record the same error if
    /// the address and the message are the same. An error that was returned has moved to another
    /// address: use [`record_returned`](Self::record_returned) for it.
    pub fn record_error<E: Error + ?Sized>(&self, error: &E) {
        if self.recorded_state().is_some() {
            let address = std::ptr::from_ref(error).cast::<()>().addr();
            self.add_exception(Some(address), std::any::type_name::<E>(), error_message(error));
        }
    }

    /// Records an error that the work under the span has returned.
    ///
    /// It is [`record_error`](Self::record_error) for an error that the work may have recorded
    /// before it returned it, at another address. It does nothing if the message of the last
    /// recorded error is the same or begins with this one.
    pub fn record_returned<E: Error + ?Sized>(&self, error: &E) {
        if self.recorded_state().is_some() {
            self.add_exception(None, std::any::type_name::<E>(), error_message(error));
        }
    }

    /// Sets the status to `Error` with `message` and adds an `exception` event with it.
    ///
    /// Use it for an error of which only the text is available, as in a log event. Each call adds
    /// an event. At most 4 KiB of the text are recorded. `attributes` are those of the event; if
    /// they have an `exception.message`, it is kept. [`record_returned`](Self::record_returned)
    /// does not record the same error again.
    ///
    /// ```
    /// use throughline_core::Context;
    ///
    /// let span = Context::background().span("save").start();
    /// span.current_span().record_exception("disk full", [("exception.type", "IoError")]);
    /// ```
    pub fn record_exception(&self, message: &str, attributes: impl Into<Attributes>) {
        if let Some(state) = self.recorded_state() {
            let mut text = Bounded(String::new());
            let _ = text.write_str(message);
            let mut attributes = attributes.into();
            if attributes.get(MESSAGE).is_none() {
                attributes.set(MESSAGE, text.0.clone());
            }
            let event = Event::new("exception", state.epoch.now(), attributes);
            state.write(self.ctx, |span, limits| span.rare().add_new_exception(text.0, event, limits));
        }
    }

    /// Changes the kind. The sampler has seen the first one.
    pub fn set_kind(&self, kind: SpanKind) {
        if let Some(state) = self.recorded_state() {
            state.write(self.ctx, |span, _| span.kind = kind);
        }
    }

    /// Records that the work under the span was cancelled. The status does not change.
    ///
    /// - The attribute `throughline.cancel.cause` is the cause's [`name`](Cause::name).
    /// - The attribute `throughline.cancel.message` is the text of an error, with its sources.
    /// - There is one event, `throughline.cancelled`.
    ///
    /// The first cause stays. A span that ends while its context is done records the context's
    /// cause by itself. Call this for work that is stopped while the context is live, or to give
    /// the event a time before the end of the span. The request's own span ignores
    /// [`RequestFinished`](Cause::RequestFinished).
    ///
    /// ```
    /// use throughline_core::{Cause, Context};
    ///
    /// Context::background().current_span().record_cancelled(&Cause::Abandoned);
    /// ```
    pub fn record_cancelled(&self, cause: &Cause) {
        self.record_cancellation("throughline.cancelled", cause, None);
    }

    /// Records that work was not started. Its event is `throughline.shed`.
    ///
    /// Otherwise it does the same as [`record_cancelled`](Self::record_cancelled).
    pub fn record_shed(&self, cause: &Cause) {
        self.record_cancellation("throughline.shed", cause, None);
    }

    pub(super) fn record_cancellation(&self, event: &'static str, cause: &Cause, time: Option<UnixNanos>) {
        let is_end_of_own_request = |state: &SpanState| state.is_local_root && matches!(cause, Cause::RequestFinished);
        let Some(state) = self.recorded_state().filter(|state| !is_end_of_own_request(state)) else { return };
        let message = match cause {
            // This may run in the destructor of a span that ends while its thread unwinds. A second
            // panic there would abort the process.
            Cause::Error(error) => Some(catch_unwind(AssertUnwindSafe(|| error_message(&**error))).unwrap_or_default()),
            _ => None,
        };
        let time = time.unwrap_or_else(|| state.epoch.now());
        state.write(self.ctx, |span, limits| span.record_cancellation(event, cause.name(), message, time, limits));
    }

    /// Changes the name, for example once a server knows the route.
    ///
    /// The sampler has seen the first one.
    pub fn set_name(&self, name: impl Into<Cow<'static, str>>) {
        if let Some(state) = self.recorded_state() {
            let name = name.into();
            state.write(self.ctx, |span, _| span.set_name(name));
        }
    }

    /// Records an error of which only the text is known.
    ///
    /// An error that only reports that the context is done is not recorded.
    pub(super) fn record_failure<E: fmt::Display>(&self, error: &E) {
        if self.recorded_state().is_some() {
            let mut text = Bounded(String::new());
            let _ = write!(text, "{error:#}");
            if !self.ctx.err().is_some_and(|stopped| only_reports(&text.0, stopped)) {
                self.add_exception(None, std::any::type_name::<E>(), text.0);
            }
        }
    }

    fn add_exception(&self, address: Option<usize>, kind: &'static str, message: String) {
        let Some(state) = self.state else { return };
        let status = Status::Error(message.clone().into());
        let attributes = [("exception.type", Value::from(kind)), (MESSAGE, Value::from(message.clone()))];
        let event = Event::new("exception", state.epoch.now(), attributes);
        state.write(self.ctx, |span, limits| span.rare().add_exception(address, message, event, status, limits));
    }

    fn push_event(&self, event: Event) {
        if let Some(state) = self.recorded_state() {
            state.write(self.ctx, |span, limits| span.rare().add_event(event, limits));
        }
    }

    #[inline]
    fn recorded_state(&self) -> Option<&'a SpanState> {
        self.state.filter(|state| state.is_recorded)
    }
}

impl fmt::Debug for SpanRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanRef").field("span_context", &self.span_context()).finish_non_exhaustive()
    }
}

/// Whether an error's text only reports that the context is done.
///
/// - A [`ContextError`], perhaps inside another error: the text ends with its text.
/// - A service error: the text begins with the code.
fn only_reports(text: &str, stopped: ContextError) -> bool {
    let code = if stopped.is_timeout() { "DEADLINE_EXCEEDED: " } else { "CANCELLED: " };
    text.starts_with(code) || text.ends_with(&stopped.to_string())
}
