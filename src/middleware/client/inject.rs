//! Injects the context into a call, as far as the callee is trusted.

use http::HeaderMap;
use throughline_core::propagation::{Format, values, w3c};
use throughline_core::{Context, Propagator};

/// Injects the `traceparent` only, for an external host.
///
/// Removes every other header of a trace or of a context that the request already has.
pub(super) fn inject_external(propagator: &Propagator, ctx: &Context, headers: &mut HeaderMap) {
    for name in Propagator::new(Format::ALL).fields() {
        headers.remove(name);
    }
    for name in values::header_names(ctx) {
        headers.remove(name);
    }
    let speaks_w3c = propagator.formats().any(|format| format == Format::TraceContext);
    if let Some(span) = ctx.span_context().filter(|_| speaks_w3c) {
        w3c::inject(span, headers);
        headers.remove(&w3c::TRACESTATE);
    }
}
