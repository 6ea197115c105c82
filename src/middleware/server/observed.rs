//! What a layer shows of its requests beyond the standard: hooks, addresses, the trace id.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, response};
use throughline_core::SpanContext;
use throughline_core::propagation::w3c;

use super::layer::ContextLayer;
use super::peer::{Proxies, ProxyHeader};
use crate::middleware::hooks::{Finished, HookSpan};

/// The header that names the span of a response: W3C Trace Context Level 3, a draft.
const TRACE_RESPONSE: &str = "traceresponse";

/// # Hooks
///
/// They are called for the outermost layer's span, with the request's context as the ambient one.
/// A hook that panics does not fail the request. Several hooks of one kind are called in the order
/// in which they were set.
impl ContextLayer {
    /// Calls `hook` when the span of a request has started.
    ///
    /// It gets the head of the request.
    /// At an edge, the headers that only internal services may send are removed before.
    ///
    /// ```
    /// use throughline::ContextLayer;
    ///
    /// let layer = ContextLayer::edge().on_start(|span, head| {
    ///     if let Some(id) = head.headers.get("x-request-id").and_then(|id| id.to_str().ok()) {
    ///         span.set_attribute("bank.request_id", id.chars().take(64).collect::<String>());
    ///     }
    ///     span.remove_attribute("user_agent.original");
    /// });
    /// # let _ = layer;
    /// ```
    pub fn on_start(self, hook: impl Fn(&HookSpan<'_>, &Parts) + Send + Sync + 'static) -> Self {
        self.change(|config| config.on_start.push(Arc::new(hook)))
    }

    /// Calls `hook` before the head of the response is passed on.
    ///
    /// The span has what the layer knows of the response. The hook can set the
    /// [route](HookSpan::set_route) of a server without axum, which its handler has put into the
    /// extensions of the response:
    /// ```
    /// use throughline::ContextLayer;
    ///
    /// #[derive(Clone)]
    /// struct Route(&'static str);
    ///
    /// let layer = ContextLayer::internal().on_response(|span, head| {
    ///     if let Some(Route(route)) = head.extensions.get() {
    ///         span.set_route(route);
    ///     }
    /// });
    /// # let _ = layer;
    /// ```
    pub fn on_response(self, hook: impl Fn(&HookSpan<'_>, &response::Parts) + Send + Sync + 'static) -> Self {
        self.change(|config| config.on_response.push(Arc::new(hook)))
    }

    /// Calls `hook` before the span of a request ends.
    ///
    /// It gets what is known about the request.
    /// Once for each request, also for those that are cancelled, that panic, that are not recorded,
    /// or whose handler is not called. It is the place to count requests and their durations.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    /// use throughline::ContextLayer;
    ///
    /// static FAILED: AtomicU64 = AtomicU64::new(0);
    ///
    /// let layer = ContextLayer::internal().on_end(|_, request| {
    ///     FAILED.fetch_add(u64::from(request.error_type.is_some()), Relaxed);
    /// });
    /// # let _ = layer;
    /// ```
    pub fn on_end(self, hook: impl Fn(&HookSpan<'_>, &Finished<'_>) + Send + Sync + 'static) -> Self {
        self.change(|config| config.on_end.push(Arc::new(hook)))
    }

    /// Adds a header with the trace id to each response. Default: none.
    ///
    /// For clients that report a failed request by it. `traceresponse` has the form of
    /// `traceparent`: version, trace id, span id, flags. Any other header has the trace id alone.
    ///
    /// ```
    /// use http::HeaderName;
    /// use throughline::ContextLayer;
    ///
    /// let layer = ContextLayer::edge().trace_response(HeaderName::from_static("x-trace-id"));
    /// # let _ = layer;
    /// ```
    pub fn trace_response(self, header: HeaderName) -> Self {
        self.change(|config| config.trace_response = Some(header))
    }

    /// Says how to find the address that a connection comes from.
    ///
    /// The span then has `network.peer.address`, `network.peer.port`, and `client.address`: the
    /// same address, unless the peer is one of the [`trusted_proxies`](Self::trusted_proxies).
    /// Default: the span has none of them.
    ///
    /// With axum, serve with `into_make_service_with_connect_info::<SocketAddr>()`, and then:
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// use throughline::ContextLayer;
    ///
    /// let layer = ContextLayer::edge()
    ///     .peer_address(|head| head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0));
    /// # let _ = layer;
    /// ```
    pub fn peer_address(self, find: impl Fn(&Parts) -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        self.change(|config| config.peer_address = Some(Arc::new(find)))
    }

    /// Names the proxies whose word on the client's address counts, and the header they write.
    ///
    /// If the peer of the connection is one of them, `client.address` is the right-most address of
    /// the header that is not a proxy's. Its left part is the client's own text, and is not read.
    /// If an address in the right part cannot be parsed, or if the header is longer than 8 KiB or
    /// 32 addresses, the header is ignored.
    ///
    /// It needs [`peer_address`](Self::peer_address). It changes the span only: neither
    /// [trust](Self::trust_fn) nor the handler's request.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// use throughline::ContextLayer;
    /// use throughline::middleware::server::ProxyHeader;
    ///
    /// let is_ingress = |ip| matches!(ip, IpAddr::V4(ip) if ip.is_private());
    /// let layer = ContextLayer::edge().trusted_proxies(ProxyHeader::XForwardedFor, is_ingress);
    /// # let _ = layer;
    /// ```
    pub fn trusted_proxies(
        self,
        header: ProxyHeader,
        is_proxy: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.change(|config| config.proxies = Some(Proxies { header, is_proxy: Arc::new(is_proxy) }))
    }
}

/// The value of a response header that names the span's trace.
pub(super) fn trace_response(name: &HeaderName, span: &SpanContext) -> HeaderValue {
    if name == TRACE_RESPONSE {
        let mut headers = HeaderMap::new();
        w3c::inject(span, &mut headers);
        return headers.remove(&w3c::TRACEPARENT).expect("`inject` has just written it");
    }
    HeaderValue::try_from(span.trace_id().to_string()).expect("hexadecimal digits")
}
