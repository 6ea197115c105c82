//! Extracts the timeout, baggage and values of a request.

use std::time::Duration;

use http::HeaderMap;
use throughline_core::propagation::{Format, baggage, deadline, values};
use throughline_core::{Context, Extractor, Propagator};

use super::layer::{Config, Trust};

/// In a request's extensions: a [`ContextLayer`](super::ContextLayer) has handled it, with this
/// trust.
///
/// A layer inside that one continues its context.
#[derive(Clone, Copy)]
pub(in crate::middleware) struct Served(pub(super) Trust);

/// The caller's timeout: the smallest that its headers have.
pub(super) fn requested_timeout(config: &Config, carrier: &impl Extractor) -> Option<Duration> {
    let named = config.custom_timeout_header.as_ref().and_then(|name| deadline::extract_from(name, carrier));
    let known = deadline::extract_shortest(&config.timeout_headers, carrier);
    named.into_iter().chain(known).min()
}

/// Extracts the context that an internal service has sent.
pub(super) fn extract(config: &Config, ctx: &Context, carrier: &impl Extractor) -> Context {
    let ctx = config.propagator.extract(ctx, carrier);
    let ctx = match config.max_baggage {
        Some((bytes, members)) => {
            let kept = ctx.baggage().truncated(bytes, members);
            let over = kept.dropped_count().saturating_sub(ctx.baggage().dropped_count());
            if over > 0 {
                carrier.record_dropped(&baggage::BAGGAGE, over);
            }
            ctx.with_baggage(kept)
        }
        None => ctx,
    };
    values::extract(&ctx, &config.keys, carrier)
}

/// Removes the headers that only internal services may send.
///
/// So no code reads them or forwards them.
pub(super) fn remove_untrusted_headers(config: &Config, headers: &mut HeaderMap) {
    for name in Propagator::new(Format::ALL).fields() {
        headers.remove(name);
    }
    let names = config.keys.iter().filter_map(|key| key.header_name());
    for name in names.chain(values::header_names(&config.base)) {
        headers.remove(name);
    }
}
