mod options;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::request::Parts;
use throughline_core::propagation::WireKey;
use throughline_core::propagation::deadline::{ReplyReserve, TimeoutHeader};
use throughline_core::trace::Tracer;
use throughline_core::{Context, Lifecycle, Propagator};
use tower_layer::Layer;

use super::ContextService;
use super::authenticated::Authenticator;
use super::counts::Counts;
use super::methods::Methods;
use super::peer::{PeerAddress, Proxies};
use super::route::{OnDisconnect, Routes};
use super::shed::Governor;
use crate::middleware::hooks::{HookSpan, OnEnd, OnResponse};
use crate::middleware::timeout_format::TimeoutFormat;

/// Gives every request its context. [The module](super) says when each thing happens.
///
/// Trust is explicit; there is no default. A layer is made by [`internal`](Self::internal), by
/// [`edge`](Self::edge), or by [`trust_fn`](Self::trust_fn), which decides for each request. A
/// clone costs one reference count.
///
/// A client that disconnects cancels its request. Over HTTP/1, an unread body and pipelining hide
/// the disconnect: see [what a server cannot see](super#what-a-server-cannot-see).
///
/// # Examples
/// ```
/// use axum::{Router, routing::get};
/// use throughline::{ContextLayer, Ctx};
///
/// async fn remaining(Ctx(ctx): Ctx) -> String {
///     format!("{:?}", ctx.remaining())
/// }
///
/// let app: Router = Router::new().route("/", get(remaining)).layer(ContextLayer::internal());
/// # let _ = app;
/// ```
/// A public port, whose requests end with the process and take at most 10 s:
/// ```
/// use std::time::Duration;
/// use throughline::{Context, ContextLayer};
///
/// let process = Context::background().with_cancel();
/// let layer = ContextLayer::edge().base(&process).max_timeout(Duration::from_secs(10));
/// assert_eq!(layer.shed_count(), 0);
/// ```
#[derive(Clone)]
#[must_use]
pub struct ContextLayer {
    config: Arc<Config>,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) trust: TrustRule,
    pub(super) propagator: Propagator,
    pub(super) keys: Arc<[&'static dyn WireKey]>,
    pub(super) authenticator: Option<Arc<Authenticator>>,
    /// An inner service authenticates, and may respond that it refuses a request.
    pub(super) inner_may_refuse: bool,
    /// The most bytes and members of baggage, if fewer than the global limits.
    pub(super) max_baggage: Option<(usize, usize)>,
    pub(super) tracer: Option<Tracer>,
    /// The service's name, if the tracer has none.
    pub(super) service_name: Option<Arc<str>>,
    pub(super) base: Context,
    /// Counts the requests: the lifecycle of the base.
    pub(super) lifecycle: Option<Lifecycle>,
    pub(super) max_timeout: Option<Duration>,
    pub(super) default_timeout: Option<Duration>,
    pub(super) timeout_headers: Vec<TimeoutHeader>,
    pub(super) custom_timeout_headers: Vec<(HeaderName, TimeoutFormat)>,
    pub(super) reserve: ReplyReserve,
    pub(super) outer_layers_may_drop: bool,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) on_start: Vec<Arc<OnStart>>,
    pub(super) on_response: Vec<OnResponse>,
    pub(super) on_end: Vec<OnEnd>,
    /// The response header with the trace id.
    pub(super) trace_response: Option<HeaderName>,
    pub(super) peer_address: Option<Arc<PeerAddress>>,
    pub(super) proxies: Option<Proxies>,
    pub(super) counts: Arc<Counts>,
    pub(super) methods: Arc<Methods>,
    pub(super) routes: Routes,
    pub(super) governor: Option<Arc<Governor>>,
}

pub(super) type OnStart = dyn Fn(&HookSpan<'_>, &Parts) + Send + Sync;

/// How far a caller is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// An internal service, as under [`ContextLayer::internal`].
    Internal,
    /// An untrusted client, as under [`ContextLayer::edge`].
    Edge,
}

#[derive(Clone)]
pub(super) enum TrustRule {
    Always(Trust),
    PerRequest(Arc<dyn Fn(&Parts) -> Trust + Send + Sync>),
}

impl TrustRule {
    pub(super) fn of(&self, head: &Parts) -> Trust {
        match self {
            TrustRule::Always(trust) => *trust,
            TrustRule::PerRequest(decide) => decide(head),
        }
    }
}

impl Config {
    pub(super) fn has_hooks(&self) -> bool {
        !(self.on_start.is_empty() && self.on_response.is_empty() && self.on_end.is_empty())
    }

    /// The longest time that a request may take.
    pub(super) fn max_timeout(&self, trust: Trust) -> Option<Duration> {
        match trust {
            Trust::Internal => self.max_timeout,
            Trust::Edge => {
                Some(self.max_timeout.unwrap_or(ContextLayer::EDGE_TIMEOUT).min(ContextLayer::MAX_EDGE_TIMEOUT))
            }
        }
    }
}

impl ContextLayer {
    /// The limit for an untrusted client's request if [`max_timeout`](Self::max_timeout) is
    /// not set: 60 s.
    pub const EDGE_TIMEOUT: Duration = Duration::from_secs(60);
    /// The upper limit of `max_timeout` for an untrusted client's request: a day.
    pub const MAX_EDGE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

    /// A layer for requests of internal services.
    ///
    /// - Their trace continues, and their sampling decision holds.
    /// - Their deadline holds.
    /// - The context has their baggage, the values of [`keys`](Self::keys), and the principal.
    pub fn internal() -> Self {
        Self::new(TrustRule::Always(Trust::Internal))
    }

    /// A layer for requests of untrusted clients, on a public port.
    ///
    /// - A new trace starts, with a link to the caller's span. This service makes the sampling
    ///   decision.
    /// - A caller's deadline can only be shorter than [`max_timeout`](Self::max_timeout), which is
    ///   60 s if not set.
    /// - Errors are [redacted](crate::Error::redacted): they have no origin, no path, and only
    ///   [public details](crate::Error::with_public_detail).
    /// - Baggage, principal, keys, and headers of other trace formats are ignored, and removed from
    ///   the request. A handler that forwards the request does not forward them.
    pub fn edge() -> Self {
        Self::new(TrustRule::Always(Trust::Edge))
    }

    /// Decides for each request, by its head, how far the caller is trusted.
    ///
    /// Decide by the address of the peer, which the server has put into the extensions, or by the
    /// TLS certificate. An untrusted client can write any header.
    ///
    /// `decide` is called once per request, before the layer reads anything else.
    ///
    /// # Examples
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// use throughline::{ContextLayer, Trust};
    ///
    /// let layer = ContextLayer::trust_fn(|head| match head.extensions.get() {
    ///     Some(ConnectInfo(SocketAddr::V4(peer))) if peer.ip().is_private() => Trust::Internal,
    ///     _ => Trust::Edge,
    /// });
    /// # let _ = layer;
    /// ```
    pub fn trust_fn(decide: impl Fn(&Parts) -> Trust + Send + Sync + 'static) -> Self {
        Self::new(TrustRule::PerRequest(Arc::new(decide)))
    }

    fn new(trust: TrustRule) -> Self {
        let config = Config {
            trust,
            propagator: Propagator::current_default(),
            keys: Arc::default(),
            authenticator: None,
            inner_may_refuse: false,
            max_baggage: None,
            tracer: None,
            service_name: None,
            base: Context::background(),
            lifecycle: None,
            max_timeout: None,
            default_timeout: None,
            timeout_headers: vec![TimeoutHeader::GrpcTimeout, TimeoutHeader::ConnectTimeoutMs],
            custom_timeout_headers: Vec::new(),
            reserve: ReplyReserve::DEFAULT,
            outer_layers_may_drop: false,
            on_disconnect: OnDisconnect::Cancel,
            on_start: Vec::new(),
            on_response: Vec::new(),
            on_end: Vec::new(),
            trace_response: None,
            peer_address: None,
            proxies: None,
            counts: Arc::default(),
            methods: Arc::default(),
            routes: Routes::default(),
            governor: None,
        };
        ContextLayer::from_config(Arc::new(config))
    }

    /// The values to read from requests of internal services, by their keys.
    ///
    /// Baggage with other names is passed on undecoded. Default: only the principal.
    ///
    /// ```
    /// use throughline::{Codec, ContextLayer, Key};
    ///
    /// static TENANT: Key<u64> = Key::baggage("tenant");
    /// static SHARD: Key<u8> = Key::header("x-shard", Codec::text());
    ///
    /// let layer = ContextLayer::internal().keys(&[&TENANT, &SHARD]);
    /// # let _ = layer;
    /// ```
    pub fn keys(self, keys: &[&'static dyn WireKey]) -> Self {
        self.change(|config| config.keys = keys.into())
    }

    /// Limits the baggage of a request from an internal service, in bytes and in members.
    ///
    /// Members beyond the limit are dropped whole. Default and upper limit:
    /// [`Baggage::MAX_BYTES`](crate::Baggage::MAX_BYTES) and
    /// [`Baggage::MAX_MEMBERS`](crate::Baggage::MAX_MEMBERS).
    pub fn max_baggage(self, bytes: usize, members: usize) -> Self {
        self.change(|config| config.max_baggage = Some((bytes, members)))
    }

    /// Reads the caller's timeout from these headers, too.
    ///
    /// The smallest timeout counts. Default: `grpc-timeout` and `connect-timeout-ms`.
    ///
    /// ```
    /// use throughline::{ContextLayer, TimeoutHeader};
    ///
    /// let envoy = TimeoutHeader::XEnvoyExpectedRqTimeoutMs;
    /// let behind_envoy = ContextLayer::internal().accept_timeouts([envoy]);
    /// # let _ = behind_envoy;
    /// ```
    pub fn accept_timeouts(self, headers: impl IntoIterator<Item = TimeoutHeader>) -> Self {
        self.change(|config| config.timeout_headers.extend(headers))
    }

    /// Reads the caller's timeout from this header, too, in the grammar of `grpc-timeout`.
    ///
    /// For callers that send the time left over plain HTTP. `grpc-timeout` itself is still read,
    /// and so is each header of an earlier call.
    pub fn timeout_header(self, name: HeaderName) -> Self {
        self.change(|config| config.custom_timeout_headers.push((name, TimeoutFormat::Grpc)))
    }

    /// Reads the caller's timeout from this header, too, in milliseconds.
    ///
    /// - The value is 1 to 10 digits. Zero means that no time is left: the layer responds with a
    ///   504.
    /// - Any other value counts as absent, and is [counted](Self::dropped_context).
    /// - The smallest timeout of all headers counts. It can only shorten the service's own limits.
    ///
    /// ```
    /// use http::HeaderName;
    /// use throughline::ContextLayer;
    ///
    /// let name = HeaderName::from_static("x-timeout-ms");
    /// let layer = ContextLayer::internal().timeout_header_ms(name);
    /// # let _ = layer;
    /// ```
    pub fn timeout_header_ms(self, name: HeaderName) -> Self {
        self.change(|config| config.custom_timeout_headers.push((name, TimeoutFormat::Millis)))
    }

    /// Sends the request's span, and the spans below it, to this tracer.
    ///
    /// Default: the tracer of the base, or the default of the process. The `service.name` of the
    /// tracer's resource is the name that errors get in their path here.
    pub fn tracer(self, tracer: Tracer) -> Self {
        self.change(|config| config.tracer = Some(tracer))
    }

    /// Names the service in the path of errors, if the tracer's resource has no `service.name`.
    ///
    /// Without either, this service is not in the path.
    ///
    /// ```
    /// use throughline::ContextLayer;
    ///
    /// let layer = ContextLayer::internal().service_name("balance");
    /// # let _ = layer;
    /// ```
    pub fn service_name(self, name: impl Into<Arc<str>>) -> Self {
        self.change(|config| config.service_name = Some(name.into()))
    }

    /// The parent context of all requests: cancelling it cancels them.
    ///
    /// Default: the background. With the context of a [`Shutdown`](crate::Shutdown), requests are
    /// counted, and the shutdown waits for them.
    pub fn base(self, base: &Context) -> Self {
        self.change(|config| {
            config.base = base.clone();
            config.lifecycle = Lifecycle::of(base).cloned();
        })
    }

    /// The trace formats to extract from requests.
    ///
    /// Default: the formats in `OTEL_PROPAGATORS`, or W3C Trace Context and baggage.
    pub fn propagator(self, propagator: Propagator) -> Self {
        self.change(|config| config.propagator = propagator)
    }

    /// The longest time until the head of a response, then for each frame.
    ///
    /// [Limits](super#limits) says what that means for streams. A caller can only ask for less. At
    /// an edge it is at most a day
    /// ([`MAX_EDGE_TIMEOUT`](Self::MAX_EDGE_TIMEOUT)).
    pub fn max_timeout(self, timeout: Duration) -> Self {
        self.change(|config| config.max_timeout = Some(timeout))
    }

    /// The limit for a request whose caller has sent no timeout.
    ///
    /// It covers what `max_timeout` does.
    /// Default: [`max_timeout`](Self::max_timeout), or no limit.
    pub fn default_timeout(self, timeout: Duration) -> Self {
        self.change(|config| config.default_timeout = Some(timeout))
    }

    /// Says that outer layers may drop a request.
    ///
    /// A drop then does not mean that the client has disconnected. Its cause is not a disconnect,
    /// but [`Cause::Abandoned`](crate::Cause::Abandoned).
    pub fn outer_layers_may_drop(self) -> Self {
        self.change(|config| config.outer_layers_may_drop = true)
    }

    /// The reply reserve: the time that callers keep for the transfer of the response.
    ///
    /// If a request is dropped when no more than this is left of the timeout that the caller
    /// *sent*, its cause is the deadline.
    pub fn reserve(self, reserve: ReplyReserve) -> Self {
        self.change(|config| config.reserve = reserve)
    }

    /// What happens to a handler when its client disconnects. Default: it is cancelled.
    pub fn on_disconnect(self, then: OnDisconnect) -> Self {
        self.change(|config| config.on_disconnect = then)
    }

    pub(super) fn from_config(config: Arc<Config>) -> Self {
        ContextLayer { config }
    }

    pub(super) fn change(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService::new(inner, Arc::clone(&self.config))
    }
}

impl fmt::Debug for ContextLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.config.trust {
            TrustRule::Always(Trust::Internal) => "ContextLayer::internal",
            TrustRule::Always(Trust::Edge) => "ContextLayer::edge",
            TrustRule::PerRequest(_) => "ContextLayer::trust_fn",
        })
    }
}
