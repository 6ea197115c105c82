//! Extracts the context of a request: its timeout, trace, baggage and values.

use std::time::Duration;

use http::{Extensions, HeaderMap};
use throughline_core::propagation::{Counted, Format, baggage, deadline, values};
use throughline_core::{CancelHandle, Context, Extractor, Propagator};
use tokio::time::Instant;

use super::layer::{Config, Trust};
use super::route::Route;
use super::shed::Shortage;

/// In a request's extensions: a [`ContextLayer`](super::ContextLayer) has handled it.
///
/// A layer inside that one continues its context.
#[derive(Clone)]
pub(in crate::middleware) struct Served {
    pub(super) trust: Trust,
    /// The context of the whole exchange. The handler's own also ends at the layer's limit.
    pub(super) whole: Context,
    pub(super) handler: Context,
}

impl Served {
    /// Puts the contexts where the handler and inner layers find them.
    pub(super) fn insert_into(self, extensions: &mut Extensions) {
        extensions.insert(self.handler.clone());
        extensions.insert(self);
    }
}

/// The context of a request, before its span starts.
pub(super) struct Inbound {
    /// Ends the request.
    pub(super) handle: CancelHandle,
    /// Below the handle, with everything that the caller has sent.
    pub(super) ctx: Context,
    /// The layer's own limit: for the head of the response, then for each frame.
    pub(super) limit: Option<Duration>,
    /// The request is shed because of this.
    pub(super) shortage: Option<Shortage>,
    /// The time that is left of an outer layer's limit for the head.
    pub(super) outer_limit: Option<Duration>,
    /// The context of an outer `ContextLayer`.
    pub(super) outer: Option<Context>,
    /// The request is from an internal service, for this layer and for all outer ones.
    pub(super) is_internal: bool,
    /// When the caller may give up: at its own deadline, minus its reply reserve.
    ///
    /// Not the deadline of this layer's maximum, which the caller does not know.
    pub(super) reserve_starts_at: Option<Instant>,
}

impl Inbound {
    pub(super) fn extract(
        config: &Config,
        trust: Trust,
        route: &Route,
        extensions: &Extensions,
        carrier: &Counted<'_, HeaderMap>,
    ) -> Inbound {
        let served = extensions.get::<Served>();
        let outer = served.and_then(|served| {
            let found = extensions.get::<Context>()?;
            // A layer in between may have derived a context of its own.
            Some(if *found == served.handler { served.whole.clone() } else { found.clone() })
        });
        let mut sent = requested_timeout(config, carrier);
        let left = sent.into_iter().chain(outer.as_ref().and_then(Context::remaining)).min();
        let mut shortage = Shortage::of(left, route.min_remaining);
        if let Some(governor) = &config.governor
            && !governor.sheds(shortage.is_some())
        {
            // An expired timeout is ignored. The limits of the layer hold.
            if shortage.take() == Some(Shortage::Expired) {
                sent = None;
            }
        }
        let default = config.default_timeout.filter(|_| sent.is_none());
        let limit = route.limit(default.into_iter().chain(config.max_timeout(trust)).min());
        let reserve_starts_at =
            sent.and_then(|sent| Instant::now().checked_add(sent.saturating_sub(config.reserve.of(sent))));
        let outer_limit = served.filter(|served| served.handler != served.whole);
        let outer_limit = outer_limit.and_then(|served| served.handler.remaining());
        let base = match &outer {
            Some(outer) => &Context::merge(outer, &config.base),
            None => &config.base,
        };
        let handle = match sent {
            Some(timeout) => base.with_timeout(timeout).with_cancel(),
            None => base.with_cancel(),
        };
        // The outermost layer decides whether the request is from an internal service.
        let is_internal = trust == Trust::Internal && served.is_none_or(|outer| outer.trust == Trust::Internal);
        let ctx = match (&outer, is_internal) {
            (Some(_), true) => values::extract(handle.context(), &config.keys, carrier),
            (None, true) => extract(config, handle.context(), carrier),
            (_, false) => handle.context().clone(),
        };
        Inbound { handle, ctx, limit, shortage, outer_limit, outer, is_internal, reserve_starts_at }
    }
}

/// The caller's timeout: the smallest that its headers have.
fn requested_timeout(config: &Config, carrier: &impl Extractor) -> Option<Duration> {
    let named = config.custom_timeout_headers.iter().filter_map(|(name, format)| format.extract(name, carrier));
    let known = deadline::extract_shortest(&config.timeout_headers, carrier);
    named.into_iter().chain(known).min()
}

/// Extracts the context that an internal service has sent.
fn extract(config: &Config, ctx: &Context, carrier: &impl Extractor) -> Context {
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
