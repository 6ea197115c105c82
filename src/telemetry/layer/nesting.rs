//! Which span is innermost: that of the ambient context, or that of `tracing`.
//!
//! Each `tracing` span keeps two span ids, so that no question walks up the spans:
//!
//! - **ambient**: the span of the ambient context at its start. While the same span is ambient, the `tracing` span was
//!   started within it, and is further in.
//! - **base**: the nearest span above it that a context is in. It is another one where the `tracing` span was given its
//!   parent, or started on a task without the context.

use std::sync::Arc;

use throughline_core::trace::FindDescendant;
use throughline_core::{Context, Span, SpanContext, SpanId};
use tracing::dispatcher;
use tracing_core::{Event, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// What a `tracing` span carries.
pub(super) struct Data {
    pub(super) span: Span,
    pub(super) ambient: Option<SpanId>,
    pub(super) base: Option<SpanId>,
}

impl Data {
    /// Whether it is the span `outer`, or further in than that.
    fn is_within(&self, outer: SpanId) -> bool {
        let id = self.span.span_context().map(SpanContext::span_id);
        [id, self.ambient, self.base].contains(&Some(outer))
    }

    /// Whether it is the innermost of the two: of this span and that of the ambient context.
    pub(super) fn is_inside_span_of(&self, ambient: &Context) -> bool {
        id(ambient).is_none_or(|outer| self.is_within(outer))
    }
}

/// The answer of `find` about the nearest span, from `span` up, that the layer has seen.
pub(super) fn nearest<'a, S: LookupSpan<'a>, T>(span: &SpanRef<'a, S>, find: impl Fn(&Data) -> Option<T>) -> Option<T> {
    // A filter may keep spans from the layer.
    span.scope().find_map(|span| span.extensions().get::<Data>().map(&find)).flatten()
}

/// The id of the context's span, or of its remote parent.
pub(super) fn id(ctx: &Context) -> Option<SpanId> {
    ctx.span_context().map(SpanContext::span_id)
}

/// The answer of `find` about the `tracing` span that is entered on this thread.
fn entered<T>(find: impl Fn(&Data) -> Option<T>) -> Option<T> {
    dispatcher::get_default(|dispatch| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        let id = registry.current_span().id().cloned()?;
        nearest(&registry.span(&id)?, &find)
    })
}

/// The entered span, if it is further in than the context's.
pub(in crate::telemetry) fn find_descendant() -> FindDescendant {
    Arc::new(|ctx: &Context| {
        let outer = id(ctx)?;
        entered(|data| if data.is_within(outer) { data.span.span_context().cloned() } else { None })
    })
}

/// The entered span, for a context that is in no span of this process, if no other context is ambient.
///
/// A context that names a tracer was set up to start traces. It joins only a span that no context stands above.
pub(in crate::telemetry) fn find_enclosing(ctx: &Context) -> Option<Context> {
    let remote = id(ctx);
    if remote.is_none() && id(&Context::current()).is_some() {
        return None;
    }
    let is_named = ctx.named_tracer().is_some();
    entered(|data| {
        let is_in = match remote {
            Some(remote) => data.is_within(remote),
            None => !is_named || data.base.is_none(),
        };
        is_in.then(|| data.span.context().clone())
    })
}

/// The context that an event happens in: that of the `tracing` span around it if it is further in than the ambient one.
pub(in crate::telemetry) fn context_of_event<'a, S: LookupSpan<'a>>(
    event: &Event<'_>,
    outer: Option<SpanRef<'a, S>>,
) -> Context {
    if event.is_root() {
        return Context::background();
    }
    let ambient = Context::current();
    let of_tracing = outer.and_then(|outer| {
        nearest(&outer, |data| {
            let is_in = event.parent().is_some() || data.is_inside_span_of(&ambient);
            is_in.then(|| data.span.context().clone())
        })
    });
    of_tracing.unwrap_or(ambient)
}
