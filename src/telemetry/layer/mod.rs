//! The layer that connects the spans and events of `tracing` with those of this library.

mod fields;
mod location;
mod nesting;

use std::borrow::Cow;
use std::fmt;
use std::fmt::Debug;

use throughline_core::trace::{SpanRef as CurrentSpan, Tracer};
use throughline_core::{Context, SpanContext, SpanId};
use tracing_core::span::{Attributes as NewSpan, Id, Record};
use tracing_core::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context as Scope;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use fields::{EventFields, KindField, SpanFields};
use location::Location;
use nesting::Data;
#[cfg(feature = "fmt")]
pub(super) use nesting::context_of_event;
pub(super) use nesting::{find_descendant, find_enclosing};

/// A layer for a `tracing` subscriber: made by [`Telemetry::layer`](super::Telemetry::layer).
///
/// - Each `tracing` span becomes a span of this library.
/// - Each `tracing` event becomes an event of the span around it.
/// - A span that a context starts while a `tracing` span is entered, such as a client span, is a
///   child of the `tracing` span.
///
/// Filters decide which spans and events the layer gets. It gets nothing from export threads.
///
/// # Parents
/// | a `tracing` span that starts | is a child of |
/// |---|---|
/// | with `parent: &span` | that span |
/// | with `parent: None` | no span: it starts a new trace, with a link to the span around it |
/// | in a `tracing` span that started within the ambient [`Context`] | that `tracing` span |
/// | otherwise | the span of the ambient context, or its remote parent |
///
/// A span is exported by the tracer of the ambient context. If that context sets no tracer, and is
/// in no span of a tracer, the span uses the tracer of its parent, or else the telemetry that made
/// the layer.
///
/// Work spawned with [`Context::spawn`] is a child of the innermost span.
/// `tokio::spawn(work.instrument(Span::current()))` stays in the trace only inside a `tracing`
/// span. In a handler without a `tracing` span, `Span::current()` is disabled and carries no
/// context.
///
/// [`Context::current`] does not change when a `tracing` span is entered.
/// `Context::current().current_span()` is the span of the context.
/// `tracing::Span::current().record(…)` writes to the `tracing` span.
///
/// # Cancellation
/// A span records a cancellation if the context that was ambient when it started is done when it
/// ends. So [`Context::spawn`] and [`Context::scope`] make it visible. If a future is dropped while
/// that context is live, as by `ctx.run(work)` without a scope, by `tokio::time::timeout` or by
/// `select!`, its `#[instrument]` span ends without a status, because `tracing` reports only the
/// end. Use [`Context::in_span`] for such work.
///
/// # Fields
/// Fields become attributes, including fields that are recorded later. These fields are special, as
/// in `tracing-opentelemetry`:
///
/// | field of a span | effect |
/// |---|---|
/// | `otel.name` | the name |
/// | `otel.kind` | the kind: `server`, `client`, `producer`, `consumer` or `internal`, in any case |
/// | `otel.status_code` | the status: `OK` or `ERROR`, in any case |
/// | `otel.status_description`, `otel.status_message` | the status is an error with this description, unless it is `OK` |
///
/// An event at level `ERROR`, or with a field `error` or `exception.*`, becomes an `exception`
/// event and sets the status of the span to an error. Its `exception.message` is the first of these
/// that exists: the field `exception.message`, the field `error`, the message of the event.
///
/// - A field that is a `dyn Error` includes the chain of sources.
/// - An error that is formatted with `%`, as by `#[instrument(err)]`, includes its sources only if
///   its `{:#}` shows them, as `anyhow::Error` does.
///
/// The name of any other event is its message. All events have the attributes `level` and `target`.
///
/// Samplers see the fields at the creation of a span. Fields of a span that is not recorded are not
/// formatted, with two exceptions: `otel.kind`, and all fields of the first span of a trace in this
/// process, because samplers decide on that span.
///
/// # Limits
/// A context finds `tracing` spans through a `tracing_subscriber::Registry`. Nearly all subscribers
/// use one. With other subscribers, spans of contexts are not children of `tracing` spans.
pub struct Layer {
    tracer: Tracer,
    location: Location,
}

/// The parts of the parent `tracing` span that a new span needs.
struct Outer {
    ctx: Context,
    base: Option<SpanId>,
}

impl Layer {
    pub(super) fn new(tracer: Tracer) -> Self {
        Layer { tracer, location: Location::default() }
    }

    /// Adds `code.file.path` and `code.line.number` to spans and events. The default is off.
    ///
    /// A span also gets `code.function.name` if its name is a valid function name, like the names
    /// that `#[instrument]` gives.
    ///
    /// ```
    /// use throughline::telemetry;
    ///
    /// let telemetry = telemetry::builder("cards").build()?;
    /// let layer = telemetry.layer().with_location(true).with_threads(true);
    /// # let _ = layer;
    /// # Ok::<(), telemetry::BuildError>(())
    /// ```
    #[must_use]
    pub fn with_location(mut self, location: bool) -> Self {
        self.location.is_code = location;
        self
    }

    /// Adds `thread.id` and `thread.name` to spans and events. The default is off.
    ///
    /// The thread is the one that starts the span or emits the event.
    #[must_use]
    pub fn with_threads(mut self, threads: bool) -> Self {
        self.location.is_thread = threads;
        self
    }

    fn start<'a, S: LookupSpan<'a>>(&self, new: &NewSpan<'_>, outer: Option<&SpanRef<'a, S>>) -> Data {
        let ambient = Context::current();
        let is_explicit = new.parent().is_some();
        let names_tracer = ambient.named_tracer().is_some();
        // A span that no tracer started is treated like a span of the caller.
        let is_in_span = ambient.span_context().is_some_and(|span| !span.is_remote())
            && (names_tracer || ambient.tracer().is_enabled());
        let outer = outer.and_then(|outer| {
            nesting::nearest(outer, |data| {
                let is_parent = is_explicit || data.is_inside_span_of(&ambient);
                is_parent.then(|| Outer { ctx: data.span.context().clone(), base: data.base })
            })
        });
        let base = match &outer {
            _ if new.is_root() => None,
            Some(outer) => outer.base,
            None => ambient.current_span().span_context().map(SpanContext::span_id),
        };
        let is_sampled_here = new.is_root() || (outer.is_none() && !is_in_span);

        let mut fields = if is_sampled_here { Some(self.fields(new)) } else { None };
        let mut kind = KindField::default();
        new.record(&mut kind);
        let name = fields.as_mut().and_then(|fields| fields.name.take());
        let name = name.map_or(Cow::Borrowed(new.metadata().name()), Cow::Owned);
        let mut builder = ambient.span(name).kind(kind.0.unwrap_or_default());
        let has_tracer = is_in_span || names_tracer;
        match &outer {
            Some(outer) if is_explicit || !has_tracer => builder = builder.tracer(outer.ctx.tracer()),
            None if !has_tracer => builder = builder.tracer(&self.tracer),
            _ => {}
        }
        builder = match (&outer, ambient.span_context()) {
            (Some(outer), _) => builder.parent(&outer.ctx),
            (None, Some(caller)) if !is_in_span && !new.is_root() => builder.remote_parent(caller.clone()),
            _ => builder,
        };
        if new.is_root() {
            builder = builder.new_root();
        }
        if let Some(fields) = &mut fields {
            builder = fields.attributes.drain(..).fold(builder, |builder, (key, value)| builder.attribute(key, value));
        }
        let span = builder.start();
        if span.is_recording() {
            write(span.current_span(), fields.unwrap_or_else(|| self.fields(new)));
        }
        Data { span, ambient: nesting::id(&ambient), base }
    }

    /// Formats the fields that `new` is created with.
    fn fields(&self, new: &NewSpan<'_>) -> SpanFields {
        let mut fields = SpanFields::default();
        fields.attributes = self.location.attributes(new.metadata());
        new.record(&mut fields);
        fields
    }
}

fn write(span: CurrentSpan<'_>, mut fields: SpanFields) {
    span.set_status(fields.status());
    if let Some(name) = fields.name {
        span.set_name(name);
    }
    if let Some(kind) = fields.kind {
        span.set_kind(kind);
    }
    for (key, value) in fields.attributes {
        span.set_attribute(key, value);
    }
}

/// Returns the context of the span with this id. `None` if the layer has not seen it.
fn context_of<S: Subscriber + for<'a> LookupSpan<'a>>(id: &Id, scope: &Scope<'_, S>) -> Option<Context> {
    let span = scope.span(id)?;
    let extensions = span.extensions();
    extensions.get::<Data>().map(|data| data.span.context().clone())
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Layer {
    fn on_new_span(&self, new: &NewSpan<'_>, id: &Id, scope: Scope<'_, S>) {
        let Some(span) = scope.span(id) else { return };
        // With two layers in one registry, the first one handles the span.
        if span.extensions().get::<Data>().is_some() {
            return;
        }
        let outer = if new.is_root() { scope.lookup_current() } else { span.parent() };
        let data = self.start(new, outer.as_ref());
        span.extensions_mut().insert(data);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, scope: Scope<'_, S>) {
        // Formatting runs user code, so it must not run under the lock of the registry.
        let Some(ctx) = context_of(id, &scope) else { return };
        let span = ctx.current_span();
        if !span.is_recording() {
            return;
        }
        let mut fields = SpanFields::default();
        values.record(&mut fields);
        write(span, fields);
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, scope: Scope<'_, S>) {
        let (Some(ctx), Some(follows)) = (context_of(id, &scope), context_of(follows, &scope)) else { return };
        if let Some(link) = follows.span_context() {
            ctx.current_span().add_link(link.clone());
        }
    }

    fn on_event(&self, event: &Event<'_>, scope: Scope<'_, S>) {
        if event.metadata().target() == crate::ERROR_LOG_TARGET {
            // The middleware has recorded the error on the span already.
            return;
        }
        let ctx = nesting::context_of_event(event, scope.event_span(event));
        let span = ctx.current_span();
        if !span.is_recording() {
            return;
        }
        let metadata = event.metadata();
        let mut fields = EventFields::new(metadata.level().as_str(), metadata.target());
        fields.attributes.extend(self.location.attributes(metadata));
        event.record(&mut fields);
        if fields.is_error || *metadata.level() == Level::ERROR {
            let message = fields.take_error();
            span.record_exception(message.as_deref().unwrap_or(metadata.name()), fields.attributes);
        } else {
            let name = fields.message.map_or(Cow::Borrowed(metadata.name()), Cow::Owned);
            span.add_event(name, fields.attributes);
        }
    }

    fn on_close(&self, id: Id, scope: Scope<'_, S>) {
        let data = scope.span(&id).and_then(|span| span.extensions_mut().remove::<Data>());
        // Dropped outside the lock of the registry: ending the span may run user code.
        drop(data);
    }
}

impl Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("tracer", &self.tracer).field("location", &self.location).finish()
    }
}
