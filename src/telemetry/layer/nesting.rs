//! Decides which span is innermost: the span of the ambient context or the `tracing` span.
//!
//! Each `tracing` span stores two span ids, so that the decision does not walk up the parents:
//!
//! - **ambient**: the span of the ambient context when the `tracing` span started. If that span is
//!   still ambient, the `tracing` span started inside it, so the `tracing` span is further in.
//! - **base**: the nearest ancestor that is the span of a context. It differs from **ambient** if
//!   the `tracing` span has an explicit parent, or started on a task without the context.

use std::sync::Arc;

use throughline_core::trace::FindDescendant;
use throughline_core::{Context, Span, SpanContext, SpanId};
use tracing::dispatcher;
use tracing_core::{Event, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// The data that the layer stores in a `tracing` span.
pub(super) struct Data {
    pub(super) span: Span,
    pub(super) ambient: Option<SpanId>,
    pub(super) base: Option<SpanId>,
}

impl Data {
    /// Whether this span is `outer`, or is inside `outer`.
    fn is_within(&self, outer: SpanId) -> bool {
        let id = self.span.span_context().map(SpanContext::span_id);
        [id, self.ambient, self.base].contains(&Some(outer))
    }

    /// Whether this span is inside the span of `ambient`, or `ambient` has no span.
    pub(super) fn is_inside_span_of(&self, ambient: &Context) -> bool {
        id(ambient).is_none_or(|outer| self.is_within(outer))
    }
}

/// Calls `find` with the nearest span, from `span` up, that the layer has seen.
pub(super) fn nearest<'a, S: LookupSpan<'a>, T>(span: &SpanRef<'a, S>, find: impl Fn(&Data) -> Option<T>) -> Option<T> {
    // A filter may hide spans from the layer.
    span.scope().find_map(|span| span.extensions().get::<Data>().map(&find)).flatten()
}

/// Returns the id of the context's span or remote parent.
pub(super) fn id(ctx: &Context) -> Option<SpanId> {
    ctx.span_context().map(SpanContext::span_id)
}

/// Calls `find` with the `tracing` span that is entered on this thread.
fn entered<T>(find: impl Fn(&Data) -> Option<T>) -> Option<T> {
    dispatcher::get_default(|dispatch| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        let id = registry.current_span().id().cloned()?;
        nearest(&registry.span(&id)?, &find)
    })
}

/// Returns the entered span if it is inside the span of the context.
pub(in crate::telemetry) fn find_descendant() -> FindDescendant {
    Arc::new(|ctx: &Context| {
        let outer = id(ctx)?;
        entered(|data| if data.is_within(outer) { data.span.span_context().cloned() } else { None })
    })
}

/// Returns the context of the entered span, for a context without a local span.
///
/// Returns `None` if another context is ambient. A context that sets a tracer is meant to start
/// traces. It joins the entered span only if no ancestor of that span is the span of a context.
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

/// Returns the context of an event.
///
/// It is the context of the `tracing` span around the event if that span is inside the span of the
/// ambient context. Otherwise it is the ambient context.
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
