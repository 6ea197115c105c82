//! Spans and events of the `tracing` crate as spans and events of ours, and the other way round.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::fmt::Debug;
use std::sync::Arc;

use throughline_core::trace::{Attributes, Innermost, SpanKind, Tracer, Value};
use throughline_core::{Context, Span, SpanContext, SpanId};
use tracing::dispatcher;
use tracing::field::{Field, Visit};
use tracing_core::span::{Attributes as NewSpan, Id, Record};
use tracing_core::{Event, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::Context as Scope;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// A layer for a `tracing` subscriber: made by [`Telemetry::layer`](super::Telemetry::layer).
///
/// A `tracing` span becomes a span below the one that the ambient [`Context`] is in, or below the `tracing` span around it if that is
/// further in. It goes where that context's spans go, and to the telemetry that made the layer where there is none. In turn, what the
/// context starts while the `tracing` span is entered (a client's span, for one) is its child. Events become events of the span they
/// happen in, with their message as the name.
///
/// Fields become attributes, those recorded later too. `otel.name` and `otel.kind`, as `tracing-opentelemetry` knows them, name the span and
/// its kind. Which spans and events come is for filters to say; nothing that happens on the export thread does.
///
/// The way from our spans to `tracing`'s leads through a `tracing_subscriber::Registry`, which nearly all subscribers stand on; on others it
/// is closed.
pub struct Layer {
    tracer: Tracer,
}

/// What a `tracing` span carries.
struct Data {
    span: Span,
    /// The span that it is a child of.
    parent: Option<SpanId>,
}

thread_local! {
    /// Whether a layer is starting a span: it has found the parent itself.
    static STARTING: Cell<bool> = const { Cell::new(false) };
}

impl Layer {
    pub(super) fn new(tracer: Tracer) -> Self {
        Layer { tracer }
    }

    fn start<'a, S: LookupSpan<'a>>(&self, new: &NewSpan<'_>, outer: Option<&SpanRef<'a, S>>) -> Data {
        let ambient = Context::current();
        let is_further_in = new.parent().is_some()
            || ambient.span_context().is_none_or(|base| outer.is_some_and(|outer| descends(outer, base.span_id())));
        let outer_ctx = outer.filter(|_| is_further_in).and_then(context_of);
        let ctx = outer_ctx.unwrap_or(ambient);
        let parent = ctx.span_context().map(SpanContext::span_id);

        let mut fields = Fields::default();
        new.record(&mut fields);
        let name = fields.name.take().map_or(Cow::Borrowed(new.metadata().name()), Cow::Owned);
        let mut builder = ctx.span(name).kind(fields.kind);
        if parent.is_none() {
            builder = builder.tracer(&self.tracer);
        }
        STARTING.set(true);
        let span = builder.start();
        STARTING.set(false);
        fields.attributes.into_iter().for_each(|(key, value)| span.set_attribute(key, value));
        Data { span, parent }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Layer {
    fn on_new_span(&self, new: &NewSpan<'_>, id: &Id, scope: Scope<'_, S>) {
        let Some(span) = scope.span(id) else { return };
        let data = self.start(new, span.parent().as_ref());
        span.extensions_mut().replace(data);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, scope: Scope<'_, S>) {
        let Some(span) = scope.span(id) else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(data) = span.extensions().get::<Data>() {
            fields.attributes.into_iter().for_each(|(key, value)| data.span.set_attribute(key, value));
        }
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, scope: Scope<'_, S>) {
        let (Some(span), Some(follows)) = (scope.span(id), scope.span(follows)) else { return };
        let link = follows.extensions().get::<Data>().and_then(|data| data.span.span_context().cloned());
        if let (Some(data), Some(link)) = (span.extensions().get::<Data>(), link) {
            data.span.add_link(link);
        }
    }

    fn on_event(&self, event: &Event<'_>, scope: Scope<'_, S>) {
        if event.metadata().target() == crate::LOG_OF_ERRORS {
            // The span has it already.
            return;
        }
        let ctx = context_of_event(event, scope.event_span(event));
        let span = ctx.current_span();
        if !span.is_recording() {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let name = fields.message.unwrap_or_else(|| metadata.name().to_owned());
        let mut attributes = Attributes::new();
        attributes.set("level", metadata.level().as_str());
        attributes.set("target", metadata.target());
        for (key, value) in fields.attributes {
            attributes.set(key, value);
        }
        span.add_event(name, attributes);
    }

    fn on_close(&self, id: Id, scope: Scope<'_, S>) {
        let data = scope.span(&id).and_then(|span| span.extensions_mut().remove::<Data>());
        // Outside of the registry's lock: what it ends with is the user's.
        drop(data);
    }
}

impl Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("tracer", &self.tracer).finish()
    }
}

/// The span of the `tracing` span that is entered on this thread, if it descends from the context's.
pub(super) fn innermost() -> Innermost {
    Arc::new(|ctx: &Context| {
        let base = ctx.span_context()?.span_id();
        if STARTING.get() {
            return None;
        }
        dispatcher::get_default(|dispatch| {
            let registry = dispatch.downcast_ref::<Registry>()?;
            let id = registry.current_span().id().cloned()?;
            let span = registry.span(&id).filter(|span| descends(span, base))?;
            context_of(&span)?.span_context().cloned()
        })
    })
}

/// The context that an event happens in: that of the `tracing` span around it if it is further in than the ambient one.
pub(super) fn context_of_event<'a, S: LookupSpan<'a>>(event: &Event<'_>, outer: Option<SpanRef<'a, S>>) -> Context {
    let ambient = Context::current();
    let is_further_in = event.parent().is_some()
        || ambient
            .span_context()
            .is_none_or(|base| outer.as_ref().is_some_and(|outer| descends(outer, base.span_id())));
    outer.filter(|_| is_further_in).as_ref().and_then(context_of).unwrap_or(ambient)
}

/// Whether `span` is the span `base`, or one below it by way of `tracing` spans.
fn descends<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>, base: SpanId) -> bool {
    let mut expected = None;
    for span in span.scope() {
        let extensions = span.extensions();
        let Some(data) = extensions.get::<Data>() else { continue };
        let id = data.span.span_context().map(SpanContext::span_id);
        if expected.is_some() && id != expected {
            return false;
        }
        if id == Some(base) || data.parent == Some(base) {
            return true;
        }
        expected = data.parent;
    }
    false
}

fn context_of<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>) -> Option<Context> {
    span.scope().find_map(|span| span.extensions().get::<Data>().map(|data| data.span.context().clone()))
}

/// The fields of a `tracing` span or event.
#[derive(Default)]
struct Fields {
    attributes: Vec<(&'static str, Value)>,
    message: Option<String>,
    name: Option<String>,
    kind: SpanKind,
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.attributes.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.attributes.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.attributes.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.attributes.push((field.name(), value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = Some(value.to_owned()),
            "otel.name" => self.name = Some(value.to_owned()),
            "otel.kind" => self.kind = kind(value),
            name => self.attributes.push((name, value.to_owned().into())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn kind(name: &str) -> SpanKind {
    let kinds = [SpanKind::Server, SpanKind::Client, SpanKind::Producer, SpanKind::Consumer];
    kinds.into_iter().find(|kind| kind.to_string().eq_ignore_ascii_case(name)).unwrap_or_default()
}
