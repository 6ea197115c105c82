//! Foreign spans, which are spans of another tracing system in this process, as parents.
//!
//! - [`FindDescendant`] is for a context that is in a span. It returns a descendant of that span.
//! - [`FindEnclosing`] is for a context that is in no span of this process. It returns the span
//!   that the task is in.

use std::sync::OnceLock;

use super::span_context::SpanContext;
use super::state::{SPAN, SpanState, TRACER, tracer};
use super::tracer::{FindDescendant, Tracer, TracerConfig};
use crate::Context;
use crate::context::set_derive_for_spawn;

/// Finds the span of another tracing system that the calling task is in.
///
/// It returns a context in that span. It is called with a context that is in no span of this
/// process, such as [`Context::background`]. A new span is then a child of the span found. It goes
/// where the spans of the returned context go, unless its own context names a tracer. If the
/// context has a remote parent, only a span of the same trace may be returned.
pub type FindEnclosing = fn(&Context) -> Option<Context>;

static FIND_ENCLOSING: OnceLock<FindEnclosing> = OnceLock::new();

impl TracerConfig {
    /// Sets how to find the foreign span that descends from a context's span. Default: none.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use throughline_core::Context;
    /// use throughline_core::trace::TracerConfig;
    ///
    /// fn join_foreign_spans(config: &mut TracerConfig) {
    ///     config.set_find_descendant(Arc::new(|_ctx: &Context| None));
    /// }
    /// ```
    pub fn set_find_descendant(&mut self, find: FindDescendant) {
        self.find_descendant = Some(find);
        set_derive_for_spawn(for_spawned);
    }
}

impl Tracer {
    /// Sets how to find the foreign span that encloses a context in no span.
    ///
    /// It can be set once per process; later calls have no effect. It is not called for spans of
    /// kind [`Server`](super::SpanKind::Server) and [`Consumer`](super::SpanKind::Consumer), whose
    /// parents are in another process.
    ///
    /// ```
    /// use throughline_core::trace::Tracer;
    ///
    /// Tracer::set_find_enclosing(|_ctx| None);
    /// ```
    pub fn set_find_enclosing(find: FindEnclosing) {
        // The first call wins. One function finds the spans of its whole tracing system.
        let _ = FIND_ENCLOSING.set(find);
        set_derive_for_spawn(for_spawned);
    }
}

/// Returns the foreign span that descends from `parent`, which is the span of `ctx`.
#[inline]
pub(super) fn descendant(ctx: &Context, config: Option<&TracerConfig>, parent: &SpanContext) -> Option<SpanContext> {
    let find_descendant = config?.find_descendant.as_ref()?;
    find_descendant(ctx).filter(|span| span.trace_id() == parent.trace_id() && span.span_id() != parent.span_id())
}

/// Returns a context in the foreign span that the task is in.
///
/// `ctx` is in no span of this process.
#[inline]
pub(super) fn enclosing(ctx: &Context) -> Option<Context> {
    let enclosing_ctx = FIND_ENCLOSING.get()?(ctx)?;
    let trace_id = |ctx: &Context| ctx.span_context().map(SpanContext::trace_id);
    let is_in_trace = trace_id(ctx).is_none_or(|remote| trace_id(&enclosing_ctx) == Some(remote));
    is_in_trace.then_some(enclosing_ctx)
}

/// Returns the parent of spawned work: `ctx` below the spawning task's foreign span.
fn for_spawned(ctx: &Context) -> Option<Context> {
    match ctx.value(&SPAN).filter(|state| !state.span_context.is_remote()) {
        Some(state) if state.is_recorded => {
            let span = descendant(ctx, tracer(ctx).config(), &state.span_context)?;
            Some(ctx.with_value(&SPAN, SpanState::for_spawned_work(span, state, ctx)))
        }
        // The spans of the work are not recorded.
        Some(_) => None,
        None => {
            let enclosing_ctx = enclosing(ctx)?;
            let state = enclosing_ctx.value(&SPAN)?;
            let parent_state = SpanState::for_spawned_work(state.span_context.clone(), state, ctx);
            let with_tracer = ctx.value(&TRACER).is_none().then(|| ctx.with_tracer(tracer(&enclosing_ctx)));
            Some(with_tracer.as_ref().unwrap_or(ctx).with_value(&SPAN, parent_state))
        }
    }
}
