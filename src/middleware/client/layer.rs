use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::header::HeaderName;
use throughline_core::Propagator;
use throughline_core::propagation::deadline::ReplyReserve;
use throughline_core::trace::Tracer;
use tower_layer::Layer;

use super::ClientService;
use super::head::OnStart;
use super::template::UrlTemplate;
use super::trust::Hosts;
use crate::middleware::hooks::{OnEnd, OnResponse};
use crate::middleware::timeout_format::TimeoutFormat;

/// Sends the context with every call: see [the module](super) for when each thing happens.
///
/// Trust is explicit; there is no default. Choose one:
/// - [`internal`](Self::internal): all callees are trusted;
/// - [`external`](Self::external): no callee is trusted;
/// - [`internal_hosts`](Self::internal_hosts): the listed hosts are trusted.
///
/// Cloning a layer costs one reference count.
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
/// let response = client.ready().await?.call(request).await?;
/// assert_eq!(response.status(), 200);
/// # Ok::<(), throughline::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientLayer {
    config: Arc<Config>,
    template: Option<UrlTemplate>,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) internal: Hosts,
    pub(super) propagator: Propagator,
    pub(super) tracer: Option<Tracer>,
    pub(super) reserve: ReplyReserve,
    pub(super) timeout_header: Option<(HeaderName, TimeoutFormat)>,
    pub(super) redacted_keys: Vec<Box<str>>,
    pub(super) peer: Option<Cow<'static, str>>,
    pub(super) on_start: Vec<Arc<OnStart>>,
    pub(super) on_response: Vec<OnResponse>,
    pub(super) on_end: Vec<OnEnd>,
    #[cfg(feature = "reqwest")]
    pub(super) redirects: u32,
}

impl Config {
    pub(super) fn has_hooks(&self) -> bool {
        !(self.on_start.is_empty() && self.on_response.is_empty() && self.on_end.is_empty())
    }
}

impl ClientLayer {
    /// A layer for calls to internal services.
    ///
    /// - They get the trace, its baggage, the values of keys that are declared for the wire, the
    ///   principal and the time left.
    /// - Their errors are trusted: code, message and origin.
    pub fn internal() -> Self {
        Self::new(Hosts::All)
    }

    /// A layer for calls to external hosts.
    ///
    /// - They get `traceparent` only. A gRPC or Connect service gets its timeout, too.
    /// - Of their errors, only the status is trusted.
    /// - Other headers of a context are removed, in case the request is a forwarded one: every
    ///   [`Format`](crate::propagation::Format) of a trace, and every timeout.
    pub fn external() -> Self {
        Self::new(Hosts::None)
    }

    /// A layer that trusts the listed hosts, and no others.
    ///
    /// Calls to the listed hosts are like [`internal`](Self::internal), all others are like
    /// [`external`](Self::external).
    ///
    /// - A host is a name or an address without a port. `*.bank.internal` matches every name below
    ///   `bank.internal`, but not that name itself.
    /// - The host of a request is that of its URI, or else of its `host` header. A request without
    ///   a host goes to an external host.
    ///
    /// # Examples
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
            timeout_header: None,
            redacted_keys: Vec::new(),
            peer: None,
            on_start: Vec::new(),
            on_response: Vec::new(),
            on_end: Vec::new(),
            #[cfg(feature = "reqwest")]
            redirects: 0,
        };
        ClientLayer { config: Arc::new(config), template: None }
    }

    /// Sets the header for the timeout over plain HTTP. Default: `grpc-timeout`.
    ///
    /// The value has the format of `grpc-timeout`. gRPC and Connect keep their own headers. For a
    /// value in milliseconds, use [`timeout_header_ms`](Self::timeout_header_ms).
    pub fn timeout_header(mut self, name: HeaderName) -> Self {
        Arc::make_mut(&mut self.config).timeout_header = Some((name, TimeoutFormat::Grpc));
        self
    }

    /// Sets the header for the timeout over plain HTTP, in milliseconds, instead of `grpc-timeout`.
    ///
    /// For callees that read such a header already.
    /// - The value is the time left less the [`reserve`](Self::reserve), rounded down: 1 to 10
    ///   digits.
    /// - It is never 0. A call with less than a millisecond is not sent, and fails with
    ///   `DEADLINE_EXCEEDED`.
    /// - A shorter timeout that the request already has stays.
    /// - gRPC and Connect keep their own headers. External hosts get none.
    ///
    /// The last call of this method or of [`timeout_header`](Self::timeout_header) counts. A
    /// service with this library reads the header with
    /// [`ContextLayer::timeout_header_ms`](crate::ContextLayer::timeout_header_ms).
    ///
    /// # Examples
    /// ```
    /// use http::HeaderName;
    /// use throughline::ClientLayer;
    ///
    /// let name = HeaderName::from_static("x-timeout-ms");
    /// let layer = ClientLayer::internal().timeout_header_ms(name);
    /// # let _ = layer;
    /// ```
    pub fn timeout_header_ms(mut self, name: HeaderName) -> Self {
        Arc::make_mut(&mut self.config).timeout_header = Some((name, TimeoutFormat::Millis));
        self
    }

    /// Redacts the values of more query keys in the span's `url.full`: `?token=REDACTED`.
    ///
    /// A second call adds its keys to those of the first.
    ///
    /// Keys are case-sensitive. The keys of presigned URLs that OpenTelemetry's semantic
    /// conventions list are always redacted, and so are the user and password. The request itself
    /// does not change.
    ///
    /// # Examples
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

    /// Names the service that is called: `service.peer.name` on the CLIENT spans.
    ///
    /// It is the `service.name` of the callee. Backends draw services as a graph by it, also where
    /// the callee sends no spans. Older ones, such as Jaeger, read `peer.service`, which the spans
    /// have, too. Default: none.
    ///
    /// # Examples
    /// ```
    /// use throughline::ClientLayer;
    ///
    /// let balance = ClientLayer::internal().peer("balance");
    /// # let _ = balance;
    /// ```
    pub fn peer(mut self, service: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.config).peer = Some(service.into());
        self
    }

    /// Follows at most this number of redirects. Only for reqwest.
    ///
    /// Default: 0. A 3xx response is then returned. Each redirect is a call of its own: see
    /// [the module](super#redirects-and-retries).
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn follow_redirects(mut self, max: u32) -> Self {
        Arc::make_mut(&mut self.config).redirects = max;
        self
    }

    /// Sets the tracer of the CLIENT spans. Default: the context's tracer.
    pub fn tracer(mut self, tracer: Tracer) -> Self {
        Arc::make_mut(&mut self.config).tracer = Some(tracer);
        self
    }

    /// Sets the formats that calls inject the trace in.
    ///
    /// Default: the formats that `OTEL_PROPAGATORS` names, or else W3C Trace Context and baggage.
    /// An external host gets only `traceparent` of them, and only if W3C Trace Context is one.
    pub fn propagator(mut self, propagator: Propagator) -> Self {
        Arc::make_mut(&mut self.config).propagator = propagator;
        self
    }

    /// Sets the part of the time left that is kept for the response's way back.
    ///
    /// Default: 1 %, at least 5 ms and at most 50 ms.
    pub fn reserve(mut self, reserve: ReplyReserve) -> Self {
        Arc::make_mut(&mut self.config).reserve = reserve;
        self
    }

    /// A layer for one operation: the template of its path names the CLIENT spans.
    ///
    /// The span is `POST /transactions/{id}/merchant`, not `POST`, and has the template as
    /// `url.template`. The copy of the layer costs one reference count, so it can be made for each
    /// call. A [`UrlTemplate`] in the extensions of a request takes precedence. A redirect that is
    /// followed leads to another path, and so has no template.
    ///
    /// # Examples
    /// ```no_run
    /// use throughline::{ClientLayer, Context, Error, SendWith};
    ///
    /// async fn save(ctx: &Context, http: &reqwest::Client, layer: &ClientLayer, id: u64) -> Result<(), Error> {
    ///     let request = http.post(format!("http://transactions/transactions/{id}/merchant"));
    ///     request.send_with(ctx, &layer.template("/transactions/{id}/merchant")).await?;
    ///     Ok(())
    /// }
    /// ```
    pub fn template(&self, template: impl Into<Cow<'static, str>>) -> Self {
        ClientLayer { config: Arc::clone(&self.config), template: Some(UrlTemplate::new(template)) }
    }

    pub(super) fn change(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }

    pub(super) fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The template of a call whose request has `own`.
    pub(super) fn template_of<'a>(&'a self, own: Option<&'a UrlTemplate>) -> Option<&'a str> {
        own.or(self.template.as_ref()).map(UrlTemplate::as_str)
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
