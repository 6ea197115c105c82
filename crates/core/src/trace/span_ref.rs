use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use super::attributes::Attributes;
use super::record::{Event, Link, SpanKind, Status, UnixNanos};
use super::span_context::SpanContext;
use super::state::{SpanState, count_late_write};
use super::value::Value;
use crate::{Cause, Context, ContextError};

/// Bytes of an error's message, its sources included.
const MAX_MESSAGE: usize = 4 * 1024;
/// Sources of an error that its message names; a bound for chains that never end.
const MAX_SOURCES: usize = 16;
/// The attribute of an `exception` event that has the message.
const MESSAGE: &str = "exception.message";

/// The span that a context is in, for code further down: it adds to the span and never ends it.
///
/// Copying is free. Where nothing is recorded, each write is a test and nothing more. Writes after the span has ended are
/// ignored and [counted](crate::trace::Tracer::late_writes).
///
/// # Examples
/// ```
/// use throughline_core::Context;
///
/// fn charge(ctx: &Context) {
///     let span = ctx.current_span();
///     span.set_attribute("amount", 250);
///     span.set_attribute_with("receipt", || format!("only made when {}", "recorded"));
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

    /// The span's identity, or its remote parent's where none was started here.
    pub fn span_context(&self) -> Option<&'a SpanContext> {
        self.state.map(|state| &state.span_context)
    }

    /// Whether writes have an effect: the span is recorded and has not ended.
    pub fn is_recording(&self) -> bool {
        self.state.is_some_and(SpanState::is_recording)
    }

    /// Sets an attribute; the last write of a key wins. One with an empty key, or beyond the
    /// [limit](crate::trace::SpanLimits), is dropped and counted in the record.
    #[inline]
    pub fn set_attribute(&self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        if let Some(state) = self.recorded_state() {
            let (key, value) = (key.into(), value.into());
            state.write(self.ctx, |span, limits| span.set_attribute(key, value, limits));
        }
    }

    /// Sets an attribute to what `value` returns; it is called only if the span is recording.
    #[inline]
    pub fn set_attribute_with<V: Into<Value>>(&self, key: impl Into<Cow<'static, str>>, value: impl FnOnce() -> V) {
        if self.is_recording() {
            self.set_attribute(key, value());
        } else if self.recorded_state().is_some() {
            count_late_write(self.ctx);
        }
    }

    /// Adds an event that happens now. `attributes`: `()` for none, an array of pairs, or [`Attributes`].
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

    /// Links a span that this one has to do with; a [`SpanContext`] is a link without attributes.
    pub fn add_link(&self, link: impl Into<Link>) {
        if let Some(state) = self.recorded_state() {
            let link = link.into();
            state.write(self.ctx, |span, limits| span.rare().add_link(link, limits));
        }
    }

    /// Sets the status. `Ok` is final: a later `Error` is ignored. `Unset` changes nothing.
    pub fn set_status(&self, status: Status) {
        if let Some(state) = self.recorded_state() {
            state.write(self.ctx, |span, _| span.rare().set_status(status));
        }
    }

    /// Sets the status to `Error` and adds an `exception` event: `exception.type`, and `exception.message` with the chain
    /// of [`source`](Error::source)s, at most 16 of them and 4 KiB in all.
    ///
    /// An error recorded twice on one span, which is to say at one address with one message, is one event. One that was
    /// returned lies elsewhere: [`record_returned`](Self::record_returned) is for those.
    pub fn record_error<E: Error + ?Sized>(&self, error: &E) {
        if self.recorded_state().is_some() {
            let address = std::ptr::from_ref(error).cast::<()>().addr();
            self.add_exception(Some(address), std::any::type_name::<E>(), error_message(error));
        }
    }

    /// [`record_error`](Self::record_error), for who gets the error that the work under the span has returned: the work may
    /// have recorded it, and it has moved since. Nothing is done if the last error recorded has the same message, or one
    /// that begins with it.
    pub fn record_returned<E: Error + ?Sized>(&self, error: &E) {
        if self.recorded_state().is_some() {
            self.add_exception(None, std::any::type_name::<E>(), error_message(error));
        }
    }

    /// Sets the status to `Error` with `message` and adds an `exception` event with it, each time it is called.
    ///
    /// It is for an error of which only the text is left, as in a log event; at most 4 KiB of it are recorded. `attributes`
    /// are the event's; an `exception.message` among them stays. [`record_returned`](Self::record_returned) does not record the same error again.
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
    /// cause by itself. Call this for work that is cut off while the context is live, or to date
    /// the event before the end. The request's own span ignores
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

    /// As [`record_cancelled`](Self::record_cancelled), for work that did not start. The event is
    /// `throughline.shed`.
    pub fn record_shed(&self, cause: &Cause) {
        self.record_cancellation("throughline.shed", cause, None);
    }

    pub(super) fn record_cancellation(&self, event: &'static str, cause: &Cause, time: Option<UnixNanos>) {
        let is_end_of_own_request = |state: &SpanState| state.is_local_root && matches!(cause, Cause::RequestFinished);
        let Some(state) = self.recorded_state().filter(|state| !is_end_of_own_request(state)) else { return };
        let message = match cause {
            // It may run in the destructor of a span that ends while its thread unwinds: there a
            // second panic would abort.
            Cause::Error(error) => Some(catch_unwind(AssertUnwindSafe(|| error_message(&**error))).unwrap_or_default()),
            _ => None,
        };
        let time = time.unwrap_or_else(|| state.epoch.now());
        state.write(self.ctx, |span, limits| span.record_cancellation(event, cause.name(), message, time, limits));
    }

    /// Changes the name, as a server does once it knows the route. The sampler has seen the first one.
    pub fn set_name(&self, name: impl Into<Cow<'static, str>>) {
        if let Some(state) = self.recorded_state() {
            let name = name.into();
            state.write(self.ctx, |span, _| span.set_name(name));
        }
    }

    /// Records an error that has only a text. An error that only reports that the context is done
    /// is not recorded.
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

/// Whether an error's text only reports this end of a context. It is a [`ContextError`], perhaps
/// within another error, whose text then ends with it; or an error of the services' taxonomy, whose
/// text begins with the code.
fn only_reports(text: &str, stopped: ContextError) -> bool {
    let code = if stopped.is_timeout() { "DEADLINE_EXCEEDED: " } else { "CANCELLED: " };
    text.starts_with(code) || text.ends_with(&stopped.to_string())
}

/// The error's message and those of its [`source`](Error::source)s, as `a: b: c`.
///
/// It names at most 16 sources and has at most 4 KiB. A message that ends with its source's is not followed by it.
///
/// ```
/// use throughline_core::trace::error_message;
///
/// #[derive(Debug)]
/// struct Save(std::io::Error);
///
/// impl std::fmt::Display for Save {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("cannot save")
///     }
/// }
///
/// impl std::error::Error for Save {
///     fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
///         Some(&self.0)
///     }
/// }
///
/// let error = Save(std::io::Error::other("disk full"));
/// assert_eq!(error_message(&error), "cannot save: disk full");
/// ```
pub fn error_message<E: Error + ?Sized>(error: &E) -> String {
    let mut text = Bounded(String::new());
    let _ = write!(text, "{error}");
    let mut source = error.source();
    for _ in 0..MAX_SOURCES {
        let Some(error) = source else { break };
        let mut more = Bounded(String::new());
        let _ = write!(more, "{error}");
        if !text.0.ends_with(&more.0) {
            let _ = write!(text, ": {}", more.0);
        }
        source = error.source();
    }
    text.0
}

/// Text that stops taking more, and with it a `Display` that would not end.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_MESSAGE - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        Err(fmt::Error)
    }
}
