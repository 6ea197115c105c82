//! Spans of another tracing system that the same task is in, and how they become parents.
//!
//! - [`FindDescendant`]: for a context that is in a span. The answer is a descendant of that span.
//! - [`FindEnclosing`]: for a context that is in no span of this process. The answer is the span that the task is in.

use std::sync::{Arc, OnceLock};

use super::span_context::SpanContext;
use super::state::{SPAN, SpanState, TRACER, tracer};
use super::tracer::{Tracer, TracerConfig};
use crate::Context;
use crate::context::set_derive_for_spawn;

/// Answers which span, of another tracing system in this process, is the innermost one that descends from the given
/// context's span (or remote parent); `None` if there is none. A new span is then its child.
///
/// Asked on the task that starts a span, once for each recorded one. It must answer for a descendant only, never for the
/// span of another request that happens to sit in a thread-local; an answer from another trace is ignored.
pub type FindDescendant = Arc<dyn Fn(&Context) -> Option<SpanContext> + Send + Sync>;

/// Finds the span, of another tracing system in this process, that the calling task is in: as a context that is in it.
///
/// It is called with a context that is in no span of this process, as [`Context::background`]. A new span is then a
/// child of the span that it finds, and goes where the spans of that context go unless its own context names a tracer.
/// Where a caller in another process is the parent, it must find a span of the same trace only.
pub type FindEnclosing = fn(&Context) -> Option<Context>;

static FIND_ENCLOSING: OnceLock<FindEnclosing> = OnceLock::new();

impl Tracer {
    /// Sets how a context that is in no span finds the span of another tracing system that the task is in.
    ///
    /// It is set once in a process; later calls have no effect. It is not called for spans of kind
    /// [`Server`](super::SpanKind::Server) and [`Consumer`](super::SpanKind::Consumer), which start in another process.
    ///
    /// ```
    /// use throughline_core::trace::Tracer;
    ///
    /// Tracer::set_find_enclosing(|_ctx| None);
    /// ```
    pub fn set_find_enclosing(find: FindEnclosing) {
        // Of several it is the first: each must find the spans of its whole system.
        let _ = FIND_ENCLOSING.set(find);
        set_derive_for_spawn(for_spawned);
    }
}

/// The span of another tracing system that descends from `parent`, which is the span of `ctx`.
#[inline]
pub(super) fn descendant(ctx: &Context, config: Option<&TracerConfig>, parent: &SpanContext) -> Option<SpanContext> {
    let find_descendant = config?.find_descendant.as_ref()?;
    find_descendant(ctx).filter(|span| span.trace_id() == parent.trace_id() && span.span_id() != parent.span_id())
}

/// A context in the span of another tracing system that the task is in, for a `ctx` that is in no span of this process.
#[inline]
pub(super) fn enclosing(ctx: &Context) -> Option<Context> {
    let outer = FIND_ENCLOSING.get()?(ctx)?;
    let trace_id = |ctx: &Context| ctx.span_context().map(SpanContext::trace_id);
    let is_in_trace = trace_id(ctx).is_none_or(|remote| trace_id(&outer) == Some(remote));
    is_in_trace.then_some(outer)
}

/// `ctx` below the span of another tracing system that the spawning task is in, for the spans of the spawned work.
pub(super) fn for_spawned(ctx: &Context) -> Option<Context> {
    match ctx.value(&SPAN).filter(|state| !state.span_context.is_remote()) {
        Some(state) if state.is_recorded => {
            let span = descendant(ctx, tracer(ctx).config(), &state.span_context)?;
            Some(ctx.with_value(&SPAN, SpanState::spawner(span, state, ctx)))
        }
        // Nobody will see the spans of the work.
        Some(_) => None,
        None => {
            let outer = enclosing(ctx)?;
            let state = outer.value(&SPAN)?;
            let spawner = SpanState::spawner(state.span_context.clone(), state, ctx);
            let with_tracer = ctx.value(&TRACER).is_none().then(|| ctx.with_tracer(tracer(&outer)));
            Some(with_tracer.as_ref().unwrap_or(ctx).with_value(&SPAN, spawner))
        }
    }
}
