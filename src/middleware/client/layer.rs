use std::fmt;
use std::sync::Arc;

use http::header::HeaderName;
use throughline_core::Propagator;
use throughline_core::propagation::deadline::ReplyReserve;
use throughline_core::trace::Tracer;
use tower_layer::Layer;

use super::ClientService;
use super::trust::Hosts;

/// Sends the context with every call: see [the module](super) for when each thing happens.
///
/// Whom the calls go to is said by name: [`internal`](Self::internal) or [`external`](Self::external), or for each host by
/// [`internal_hosts`](Self::internal_hosts). Cloning it costs one reference count.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use throughline::{ClientLayer, Context};
/// use tower::{Layer, Service, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let peer = service_fn(async |request: Request<()>| {
///     assert!(request.headers().contains_key("traceparent"));
///     assert!(request.headers().contains_key("grpc-timeout"));
///     Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("done"))))
/// });
/// let mut client = ClientLayer::internal().layer(peer);
///
/// let ctx = Context::background().with_timeout(std::time::Duration::from_secs(2));
/// let mut request = Request::new(());
/// request.extensions_mut().insert(ctx);
/// let answer = client.ready().await?.call(request).await?;
/// assert_eq!(answer.status(), 200);
/// # Ok::<(), throughline::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientLayer {
    config: Arc<Config>,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) internal: Hosts,
    pub(super) propagator: Propagator,
    pub(super) tracer: Option<Tracer>,
    pub(super) reserve: ReplyReserve,
    pub(super) timeout_name: Option<HeaderName>,
    pub(super) redacted_keys: Vec<Box<str>>,
    #[cfg(feature = "reqwest")]
    pub(super) redirects: u32,
}

impl ClientLayer {
    /// For services of ours: they get the trace, its baggage, the values of keys that are declared for the wire, the principal and the
    /// time left, and what their errors tell is believed.
    pub fn internal() -> Self {
        Self::new(Hosts::All)
    }

    /// For strangers: they get `traceparent` alone (a gRPC or Connect service its timeout too), and of their errors the status counts.
    /// What a request that is passed on has of the other headers, in any [`Format`](crate::propagation::Format) of a trace and for any
    /// time left, is taken out.
    pub fn external() -> Self {
        Self::new(Hosts::None)
    }

    /// As [`internal`](Self::internal) for listed hosts, and as [`external`](Self::external) for all others.
    ///
    /// A host is a name or an address without a port; `*.bank.internal` is every name below `bank.internal`. It is the one of the
    /// request's URI, or else of its `host` header; a request that names none goes to a stranger.
    ///
    /// ```
    /// use throughline::ClientLayer;
    ///
    /// let layer = ClientLayer::internal_hosts(["balance", "*.bank.internal"]);
    /// # let _ = layer;
    /// ```
    pub fn internal_hosts<H: Into<String>>(hosts: impl IntoIterator<Item = H>) -> Self {
        Self::new(Hosts::listed(hosts))
    }

    fn new(internal: Hosts) -> Self {
        let config = Config {
            internal,
            propagator: Propagator::current_default(),
            tracer: None,
            reserve: ReplyReserve::DEFAULT,
            timeout_name: None,
            redacted_keys: Vec::new(),
            #[cfg(feature = "reqwest")]
            redirects: 0,
        };
        ClientLayer { config: Arc::new(config) }
    }

    /// The header that tells the time left on plain HTTP, in the grammar of `grpc-timeout`, which is its default. gRPC and Connect have
    /// names of their own.
    pub fn timeout_header(mut self, name: HeaderName) -> Self {
        Arc::make_mut(&mut self.config).timeout_name = Some(name);
        self
    }

    /// Redacts the values of listed keys of the query in the span's `url.full`, too:
    /// `?token=REDACTED`. Calls add up.
    ///
    /// Keys are case-sensitive. The keys of presigned URLs that OpenTelemetry's semantic
    /// conventions list are always redacted, and so are the user and password. The request itself
    /// does not change.
    ///
    /// ```
    /// use throughline::ClientLayer;
    ///
    /// let layer = ClientLayer::external().redact_query(["token", "api_key"]);
    /// # let _ = layer;
    /// ```
    pub fn redact_query<K: Into<Box<str>>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        Arc::make_mut(&mut self.config).redacted_keys.extend(keys.into_iter().map(Into::into));
        self
    }

    /// Follows so many redirects with reqwest, each as a call of its own: see [the module](super#redirects). Default: none, a 3xx comes
    /// back as it is.
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn follow_redirects(mut self, most: u32) -> Self {
        Arc::make_mut(&mut self.config).redirects = most;
        self
    }

    /// Where the spans go; default: where the context's go.
    pub fn tracer(mut self, tracer: Tracer) -> Self {
        Arc::make_mut(&mut self.config).tracer = Some(tracer);
        self
    }

    /// The formats in which calls tell of their trace; default: those that `OTEL_PROPAGATORS` names, or W3C's, and baggage. Of them a stranger gets `traceparent`, or nothing.
    pub fn propagator(mut self, propagator: Propagator) -> Self {
        Arc::make_mut(&mut self.config).propagator = propagator;
        self
    }

    /// What is kept back of the time left for the answer's way; default: 5 ms or 1 %, and at most 50 ms.
    pub fn reserve(mut self, reserve: ReplyReserve) -> Self {
        Arc::make_mut(&mut self.config).reserve = reserve;
        self
    }

    pub(super) fn config(&self) -> &Arc<Config> {
        &self.config
    }
}

impl<S> Layer<S> for ClientLayer {
    type Service = ClientService<S>;

    fn layer(&self, inner: S) -> ClientService<S> {
        ClientService::new(inner, self.clone())
    }
}

impl fmt::Debug for ClientLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.config.internal {
            Hosts::All => "ClientLayer::internal",
            Hosts::None => "ClientLayer::external",
            Hosts::Listed(_) => "ClientLayer::internal_hosts",
        })
    }
}
