use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::request::Parts;
use throughline_core::propagation::deadline::{ReplyReserve, TimeoutHeader};
use throughline_core::propagation::{Dropped, WireKey};
use throughline_core::trace::Tracer;
use throughline_core::{Context, Principal, Propagator};
use tower_layer::Layer;

use super::ContextService;
use super::counts::Counts;
use super::methods::Methods;
use crate::error::Error;

/// Gives every request its context: see [the module](super) for when each thing happens.
///
/// Who the callers are is said by name: [`internal`](Self::internal) or [`edge`](Self::edge), or for each request by
/// [`trust_fn`](Self::trust_fn). Cloning it costs one reference count.
///
/// # Examples
/// ```
/// use axum::{Extension, Router, routing::get};
/// use throughline::{Context, ContextLayer};
///
/// async fn left(Extension(ctx): Extension<Context>) -> String {
///     format!("{:?}", ctx.remaining())
/// }
///
/// let app: Router = Router::new().route("/", get(left)).layer(ContextLayer::internal());
/// # let _ = app;
/// ```
/// A public port, whose requests end with the process and take 10 s at most:
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
    /// The most bytes and members of baggage, if fewer than there may be anyway.
    pub(super) max_baggage: Option<(usize, usize)>,
    pub(super) tracer: Option<Tracer>,
    pub(super) base: Context,
    pub(super) max_timeout: Option<Duration>,
    pub(super) default_timeout: Option<Duration>,
    pub(super) timeout_headers: Vec<TimeoutHeader>,
    pub(super) custom_timeout_header: Option<HeaderName>,
    pub(super) reserve: ReplyReserve,
    pub(super) outer_layers_may_drop: bool,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) counts: Arc<Counts>,
    pub(super) methods: Arc<Methods>,
}

pub(super) type Authenticator = dyn Fn(&Parts) -> Result<Option<Principal>, Error> + Send + Sync;

/// What a caller is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A service of ours, as under [`ContextLayer::internal`].
    Internal,
    /// A stranger, as under [`ContextLayer::edge`].
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
    /// The longest that a request may take.
    pub(super) fn max_timeout(&self, trust: Trust) -> Option<Duration> {
        match trust {
            Trust::Internal => self.max_timeout,
            Trust::Edge => {
                Some(self.max_timeout.unwrap_or(ContextLayer::EDGE_TIMEOUT).min(ContextLayer::MAX_EDGE_TIMEOUT))
            }
        }
    }
}

/// What becomes of a handler whose client has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It is dropped, and its context cancelled.
    #[default]
    Cancel,
    /// It goes on in a task of its own, until its deadline: for work that may not stop half-way.
    Detach,
}

impl ContextLayer {
    /// What a stranger's request may take where [`max_timeout`](Self::max_timeout) does not say: 60 s.
    pub const EDGE_TIMEOUT: Duration = Duration::from_secs(60);
    /// What a stranger's request may take whatever `max_timeout` says: a day.
    pub const MAX_EDGE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

    /// For callers that are services of ours: their trace goes on, their sampling decision stands, their deadline holds, and their
    /// baggage, the [`keys`](Self::keys) and the principal go with the context.
    pub fn internal() -> Self {
        Self::new(TrustRule::Always(Trust::Internal))
    }

    /// For strangers, on a public port: a new trace begins and links the caller's; sampling is ours to decide; a deadline can only be
    /// shorter than [`max_timeout`](Self::max_timeout), which is 60 s if not given; errors go out without origin, path and details.
    ///
    /// Baggage, principal, keys, and headers of other trace formats are not read, and are removed from the request: whoever passes it
    /// on does not pass them on.
    pub fn edge() -> Self {
        Self::new(TrustRule::Always(Trust::Edge))
    }

    /// Decides for each request, by its head: by the address of the peer that the server has put among its extensions, or what the
    /// TLS certificate said. What the head says of itself, strangers can say as well.
    ///
    /// `decide` is called once per request, before anything else is read.
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
            max_baggage: None,
            tracer: None,
            base: Context::background(),
            max_timeout: None,
            default_timeout: None,
            timeout_headers: vec![TimeoutHeader::GrpcTimeout, TimeoutHeader::ConnectTimeoutMs],
            custom_timeout_header: None,
            reserve: ReplyReserve::DEFAULT,
            outer_layers_may_drop: false,
            on_disconnect: OnDisconnect::Cancel,
            counts: Arc::default(),
            methods: Arc::default(),
        };
        ContextLayer::from_config(Arc::new(config))
    }

    /// The values that requests from services of ours may bring, by their keys; what travels in the baggage under other names is passed
    /// on undecoded. Default: none but the principal.
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

    /// Finds out who a stranger's request is made for; services of ours say so themselves. `None`: nobody in particular. An error
    /// is the answer, in place of a handler's; the code for it is [`Code::Unauthenticated`](crate::Code::Unauthenticated).
    ///
    /// It is called once, after the deadline has been looked at and before the handler is called, and must not block. What has to
    /// wait (for a session store, say) is done by a layer outside of this one, which leaves what it found among the request's
    /// extensions.
    ///
    /// ```
    /// use throughline::{Code, ContextLayer, Error, Principal};
    ///
    /// # fn verify(_token: &[u8]) -> Option<String> { None }
    /// let layer = ContextLayer::edge().authenticator(|head| {
    ///     let Some(token) = head.headers.get("authorization") else { return Ok(None) };
    ///     let user = verify(token.as_bytes()).and_then(Principal::new);
    ///     user.map(Some).ok_or_else(|| Error::new(Code::Unauthenticated, "the token is not valid"))
    /// });
    /// # let _ = layer;
    /// ```
    pub fn authenticator(
        self,
        authenticate: impl Fn(&Parts) -> Result<Option<Principal>, Error> + Send + Sync + 'static,
    ) -> Self {
        self.change(|config| config.authenticator = Some(Arc::new(authenticate)))
    }

    /// How much baggage a request from a service of ours may bring, in bytes and in members; of what is more, whole members are left
    /// out. Default, and the most there is: [`Baggage::MAX_BYTES`](crate::Baggage::MAX_BYTES) and
    /// [`Baggage::MAX_MEMBERS`](crate::Baggage::MAX_MEMBERS).
    pub fn max_baggage(self, bytes: usize, members: usize) -> Self {
        self.change(|config| config.max_baggage = Some((bytes, members)))
    }

    /// Reads these headers, too, for the time that callers grant; the least counts. Default: `grpc-timeout` and `connect-timeout-ms`.
    ///
    /// ```
    /// use throughline::{ContextLayer, TimeoutHeader};
    ///
    /// let behind_envoy = ContextLayer::internal().accept_timeouts([TimeoutHeader::XEnvoyExpectedRqTimeoutMs]);
    /// # let _ = behind_envoy;
    /// ```
    pub fn accept_timeouts(self, headers: impl IntoIterator<Item = TimeoutHeader>) -> Self {
        self.change(|config| config.timeout_headers.extend(headers))
    }

    /// The header that callers write the time left into on plain HTTP, in the grammar of `grpc-timeout`; that one is read as well.
    pub fn timeout_header(self, name: HeaderName) -> Self {
        self.change(|config| config.custom_timeout_header = Some(name))
    }

    /// Where the spans go, as well as those below; default: where the base's spans go, or the process's default. Its resource's
    /// `service.name` is what errors that leave here have in their path.
    pub fn tracer(self, tracer: Tracer) -> Self {
        self.change(|config| config.tracer = Some(tracer))
    }

    /// The context that requests stand below: when it is cancelled, they are. Default: the background.
    pub fn base(self, base: &Context) -> Self {
        self.change(|config| config.base = base.clone())
    }

    /// The formats in which callers tell of their trace; default: those that `OTEL_PROPAGATORS` names, or W3C's, and baggage.
    pub fn propagator(self, propagator: Propagator) -> Self {
        self.change(|config| config.propagator = propagator)
    }

    /// The longest that any request may take; a caller can only ask for less. At an edge it is a day at most
    /// ([`MAX_EDGE_TIMEOUT`](Self::MAX_EDGE_TIMEOUT)).
    pub fn max_timeout(self, timeout: Duration) -> Self {
        self.change(|config| config.max_timeout = Some(timeout))
    }

    /// What a request may take whose caller has sent no deadline; default: the maximum, or no limit.
    pub fn default_timeout(self, timeout: Duration) -> Self {
        self.change(|config| config.default_timeout = Some(timeout))
    }

    /// Layers outside of this one may drop a request, so that a drop does not mean that the client has gone.
    pub fn outer_layers_may_drop(self) -> Self {
        self.change(|config| config.outer_layers_may_drop = true)
    }

    /// The reserve that callers keep back for the answer's way; a drop with no more time than that left of what the caller *sent* is a
    /// deadline.
    pub fn reserve(self, reserve: ReplyReserve) -> Self {
        self.change(|config| config.reserve = reserve)
    }

    /// What becomes of a handler whose client has gone; default: it is cancelled.
    pub fn on_disconnect(self, then: OnDisconnect) -> Self {
        self.change(|config| config.on_disconnect = then)
    }

    /// How many requests were answered without calling their handler, as no time was left or the base was done. Clones of the layer
    /// count together.
    pub fn shed_count(&self) -> u64 {
        self.config.counts.shed()
    }

    /// How much of the context that callers have sent was malformed or beyond a limit, and so left out: their requests went on without
    /// it, and nothing is logged. Clones of the layer count together.
    ///
    /// Where [`internal`](Self::internal) counts any, a service of ours sends it, or a stranger reaches a port that is not for strangers.
    pub fn dropped_context(&self) -> Dropped {
        self.config.counts.dropped()
    }

    pub(super) fn from_config(config: Arc<Config>) -> Self {
        ContextLayer { config }
    }

    fn change(mut self, change: impl FnOnce(&mut Config)) -> Self {
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
