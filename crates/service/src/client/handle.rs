use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;
use serde::de::DeserializeOwned;
use throughline::middleware::client::{UrlTemplate, error_for_status};
use throughline::{ClientLayer, Code, Context, Error, Idempotent, RetryPolicy};
use throughline_transport::{Endpoint, Transport};
use tower::{Layer as _, Service as _};

use super::balance::{Balance, LastInstance};
use super::instances::Discovery;
use crate::breaker::{Breaker, BreakerSettings, SharedSettings};
use crate::config::{ClientSettings, Watched};

/// Calls one service: balanced over its instances, each with a circuit breaker.
///
/// See [the module](super) for when each thing happens. Make it once, and clone it: a clone is
/// cheap, and shares instances, breakers and the retry budget.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use http::Response;
/// use serde::{Deserialize, Serialize};
/// use throughline::Context;
/// use throughline_service::Client;
/// use throughline_transport::Transport;
///
/// #[derive(Serialize)]
/// struct Reservation { card: u64, cents: u64 }
///
/// #[derive(Deserialize)]
/// struct Balance { cents: u64 }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let transport = Transport::in_process();
/// let mut listener = transport.listen("balance").await?;
/// tokio::spawn(async move {
///     while let Some(incoming) = listener.next().await {
///         assert_eq!(incoming.request.uri().path(), "/reserve");
///         incoming.responder.respond(Response::new(Bytes::from(r#"{"cents":58}"#)));
///     }
/// });
///
/// let balance = Client::new("balance", &transport).timeout(std::time::Duration::from_secs(1));
/// let reservation = Reservation { card: 7, cents: 42 };
/// let left: Balance = balance.call(&Context::background(), "reserve", &reservation).await?;
/// assert_eq!(left.cents, 58);
/// # Ok::<(), throughline::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    /// The service, whichever instance of it: makes the URIs.
    endpoint: Endpoint,
    layer: ClientLayer,
    balance: Balance,
    breakers: SharedSettings,
    timeout: Option<Duration>,
    routes: HashMap<Box<str>, Route>,
    retries: RetryPolicy,
    settings: Option<Settings>,
}

/// What was declared for a route, by its path.
#[derive(Clone, Copy, Default)]
struct Route {
    timeout: Option<Duration>,
    is_idempotent: bool,
}

#[derive(Clone)]
struct Settings {
    all: Watched<ClientSettings>,
    /// Those of the code.
    breakers: BreakerSettings,
    applied: Watched<Applied>,
}

/// One version of the settings, and what it makes of those of the code.
struct Applied {
    settings: ClientSettings,
    retries: RetryPolicy,
    breakers: Arc<BreakerSettings>,
}

impl Settings {
    fn new(all: Watched<ClientSettings>, retries: RetryPolicy, breakers: BreakerSettings) -> Self {
        let base = breakers.clone();
        let applied = all.map(move |settings| Applied {
            retries: settings.retry.apply(retries.clone()),
            breakers: Arc::new(settings.breaker.apply(base.clone())),
            settings: settings.clone(),
        });
        Settings { all, breakers, applied }
    }
}

impl Client {
    /// A client for `service`. It looks up the instances with the first call.
    pub fn new(service: impl Into<Arc<str>>, transport: &Transport) -> Self {
        let service = service.into();
        let breakers = SharedSettings::new(BreakerSettings::default());
        let discovery = Discovery::new(Arc::clone(&service), transport.clone(), breakers.clone());
        let inner = Inner {
            endpoint: transport.endpoint(&service, None),
            layer: ClientLayer::internal().peer(service.to_string()),
            balance: Balance(Arc::new(discovery)),
            breakers,
            timeout: None,
            routes: HashMap::new(),
            retries: RetryPolicy::new(),
            settings: None,
        };
        Client { inner: Arc::new(inner) }
    }

    /// Sets the longest time of a call with all its attempts. Default: no limit.
    ///
    /// If the context has less time left, that holds.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.change(|inner| inner.timeout = Some(timeout))
    }

    /// Sets the longest time of calls to one route, instead of the client's.
    pub fn route_timeout(self, route: &str, timeout: Duration) -> Self {
        self.change(|inner| inner.routes.entry(path(route).into()).or_default().timeout = Some(timeout))
    }

    /// Declares routes idempotent: calls to them may be sent again.
    ///
    /// Other POSTs are never retried. See [retries](throughline::middleware::client::retry).
    pub fn idempotent<R: AsRef<str>>(self, routes: impl IntoIterator<Item = R>) -> Self {
        self.change(|inner| {
            for route in routes {
                inner.routes.entry(path(route.as_ref()).into()).or_default().is_idempotent = true;
            }
        })
    }

    /// Sets when calls to idempotent routes are sent again. Default: [`RetryPolicy::new`].
    pub fn retry(self, policy: RetryPolicy) -> Self {
        self.change(|inner| {
            inner.retries = policy;
            if let Some(settings) = &mut inner.settings {
                *settings = Settings::new(settings.all.clone(), inner.retries.clone(), settings.breakers.clone());
            }
        })
    }

    /// Sets the layer that sends the context. Default: [`ClientLayer::internal`].
    ///
    /// Its [`peer`](ClientLayer::peer) becomes the service.
    pub fn client_layer(self, layer: ClientLayer) -> Self {
        self.change(|inner| inner.layer = layer.peer(inner.endpoint.service().to_owned()))
    }

    /// Changes when the breakers of the instances open. It holds from the next result on.
    ///
    /// For this client and all its clones, also while calls run.
    pub fn set_breaker(&self, settings: BreakerSettings) {
        self.inner.breakers.set(settings);
    }

    /// Follows settings that change while calls run.
    ///
    /// They hold for the next call: timeouts, retries and the breakers of the instances. A call
    /// that runs keeps those that it began with. What is absent there stays as the code says: a
    /// [`route_timeout`](Self::route_timeout) is replaced by the timeout of that route only. From
    /// then on, [`set_breaker`](Self::set_breaker) has no effect.
    ///
    /// # Examples
    /// ```
    /// use throughline_service::Client;
    /// use throughline_service::config::ClientSettings;
    /// use throughline_transport::Transport;
    ///
    /// // A program takes them from its `Config`.
    /// let settings = ClientSettings::default();
    /// let balance = Client::new("balance", &Transport::in_process()).settings(settings);
    /// # let _ = balance;
    /// ```
    pub fn settings(self, settings: impl Into<Watched<ClientSettings>>) -> Self {
        self.change(|inner| {
            let breakers = BreakerSettings::clone(&inner.breakers.load());
            inner.settings = Some(Settings::new(settings.into(), inner.retries.clone(), breakers));
        })
    }

    /// Returns the name of the service.
    pub fn service(&self) -> &str {
        self.inner.endpoint.service()
    }

    /// Returns the breakers of the instances that are known now, to read.
    pub fn breakers(&self) -> Vec<Breaker> {
        self.inner.balance.0.known().iter().map(|instance| instance.breaker.clone()).collect()
    }

    /// Calls a route with a JSON body, and returns the JSON response.
    ///
    /// It sends a POST to `/{route}`.
    ///
    /// # Errors
    /// Those of [`send`](Self::send), and:
    /// - `INVALID_ARGUMENT`: `body` cannot be JSON.
    /// - `INTERNAL`: the response is not the expected JSON. The message names the service and the
    ///   route, and contains nothing of the response.
    ///
    /// # Cancellation safety
    /// Dropping the future cancels the call: the handler's context is cancelled.
    pub async fn call<T: DeserializeOwned>(
        &self,
        ctx: &Context,
        route: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|e| Error::wrap(Code::InvalidArgument, e))?;
        let mut request = self.request(Method::POST, route, body.into())?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.json(ctx, route, request).await
    }

    /// Gets a route, and returns the JSON response. It is idempotent, and so may be retried.
    ///
    /// # Errors
    /// Those of [`call`](Self::call).
    pub async fn get<T: DeserializeOwned>(&self, ctx: &Context, route: &str) -> Result<T, Error> {
        let request = self.request(Method::GET, route, Bytes::new())?;
        self.json(ctx, route, request).await
    }

    /// Calls a route with any body: a POST to `/{route}`.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub async fn call_bytes(&self, ctx: &Context, route: &str, body: impl Into<Bytes>) -> Result<Bytes, Error> {
        let request = self.request(Method::POST, route, body.into())?;
        Ok(self.send(ctx, request).await?.into_body())
    }

    /// Sends a request. The authority of its URI becomes the service.
    ///
    /// The route is the path, or the [`UrlTemplate`] in the request's extensions.
    ///
    /// # Errors
    /// - [`NoSuchService`], at once: no service has this name.
    /// - `UNAVAILABLE`, at once: no instance is ready. It is retryable.
    /// - `DEADLINE_EXCEEDED`, `CANCELLED`: the timeout has passed, or `ctx` is done.
    /// - For a response with a status of 400 or more: the error that it describes, with the service
    ///   where it began.
    ///
    /// # Cancellation safety
    /// Dropping the future cancels the call.
    ///
    /// [`NoSuchService`]: throughline_transport::NoSuchService
    pub async fn send(&self, ctx: &Context, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        let inner = &*self.inner;
        let (mut head, body) = inner.endpoint.address(request)?.into_parts();
        let applied = inner.settings.as_ref().map(|settings| settings.applied.current());
        let settings = applied.as_deref().map(|applied| &applied.settings);
        let template = head.extensions.get::<UrlTemplate>();
        let route = template.map_or(head.uri.path(), UrlTemplate::as_str);
        let layer = match template {
            Some(_) => inner.layer.clone(),
            None => inner.layer.template(route.to_owned()),
        };
        let declared = inner.routes.get(route).copied().unwrap_or_default();
        let of_route = settings.map(|settings| settings.route(route)).unwrap_or_default();
        let of_all = settings.and_then(|settings| settings.timeout);
        if of_route.idempotent || declared.is_idempotent {
            head.extensions.insert(Idempotent(true));
        }
        let timeout = of_route.timeout.or(declared.timeout).or(of_all).or(inner.timeout);
        head.extensions.insert(timeout.map_or_else(|| ctx.clone(), |timeout| ctx.with_timeout(timeout)));
        head.extensions.insert(LastInstance::default());
        let retries = applied.as_deref().map_or(&inner.retries, |applied| {
            inner.breakers.follow(&applied.breakers);
            &applied.retries
        });
        let mut client = layer.retry(retries.clone()).layer(inner.balance.clone());
        let response = client.call(Request::from_parts(head, Full::new(body))).await?;
        let (head, body) = error_for_status(response).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }

    fn request(&self, method: Method, route: &str, body: Bytes) -> Result<Request<Bytes>, Error> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::try_from(path(route)).map_err(|e| Error::wrap(Code::InvalidArgument, e))?;
        Ok(request)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        ctx: &Context,
        route: &str,
        mut request: Request<Bytes>,
    ) -> Result<T, Error> {
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let response = self.send(ctx, request).await?;
        // A response without a body is `()`.
        let body = if response.body().is_empty() { b"null" } else { &**response.body() };
        serde_json::from_slice(body).map_err(|e| {
            // The error itself may quote the body.
            let (service, line, column) = (self.service(), e.line(), e.column());
            let message =
                format!("the response of {service} to {route} is not the expected JSON: line {line}, column {column}");
            Error::new(Code::Internal, message)
        })
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }
}

/// The path of a route: `/reserve` of `reserve`.
fn path(route: &str) -> String {
    if route.starts_with('/') { route.to_owned() } else { format!("/{route}") }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("service", &self.service()).finish_non_exhaustive()
    }
}
