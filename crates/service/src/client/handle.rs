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
use throughline_transport::Transport;
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
    service: Arc<str>,
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
    retries: Watched<RetryPolicy>,
    breakers: Watched<BreakerSettings>,
}

impl Client {
    /// A client for `service`. It looks up the instances with the first call.
    pub fn new(service: impl Into<Arc<str>>, transport: &Transport) -> Self {
        let service = service.into();
        let breakers = SharedSettings::new(BreakerSettings::default());
        let discovery = Discovery::new(Arc::clone(&service), transport.clone(), breakers.clone());
        let inner = Inner {
            layer: ClientLayer::internal().peer(service.to_string()),
            service,
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
                settings.retries = retries(&settings.all, inner.retries.clone());
            }
        })
    }

    /// Sets the layer that sends the context. Default: [`ClientLayer::internal`].
    ///
    /// Its [`peer`](ClientLayer::peer) becomes the service.
    pub fn client_layer(self, layer: ClientLayer) -> Self {
        self.change(|inner| inner.layer = layer.peer(inner.service.to_string()))
    }

    /// Changes when the breakers of the instances open. It holds from the next result on.
    ///
    /// For this client and all its clones, also while calls run.
    pub fn set_breaker(&self, settings: BreakerSettings) {
        self.inner.breakers.set(settings);
    }

    /// Follows settings that change while calls run.
    ///
    /// They hold for the next call: timeouts, retries and the breakers of the instances. What is
    /// absent there stays as it is here, at the time of this method. From then on,
    /// [`set_breaker`](Self::set_breaker) has no effect.
    ///
    /// # Examples
    /// ```
    /// use throughline_service::Client;
    /// use throughline_service::config::{ClientSettings, Watched};
    /// use throughline_transport::Transport;
    ///
    /// let settings: Watched<ClientSettings> = Watched::fixed(ClientSettings::default());
    /// let balance = Client::new("balance", &Transport::in_process()).settings(settings);
    /// # let _ = balance;
    /// ```
    pub fn settings(self, settings: Watched<ClientSettings>) -> Self {
        self.change(|inner| {
            let retries = retries(&settings, inner.retries.clone());
            let base = BreakerSettings::clone(&inner.breakers.load());
            let breakers = settings.map(move |settings| settings.breaker.apply(base.clone()));
            inner.settings = Some(Settings { all: settings, retries, breakers });
        })
    }

    /// Returns the name of the service.
    pub fn service(&self) -> &str {
        &self.inner.service
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
        let (mut head, body) = request.into_parts();
        head.uri = address(&inner.service, &head.uri)?;
        let template = head.extensions.get::<UrlTemplate>().cloned();
        let route = template.as_ref().map_or(head.uri.path(), UrlTemplate::as_str);
        let declared = inner.routes.get(route).copied().unwrap_or_default();
        let settings = inner.settings.as_ref().map(|settings| settings.all.current());
        let settings = settings.as_deref();
        let of_settings = settings.and_then(|settings| settings.timeout(route));
        let timeout = of_settings.or(declared.timeout).or(inner.timeout);
        if declared.is_idempotent || settings.is_some_and(|settings| settings.is_idempotent(route)) {
            head.extensions.insert(Idempotent(true));
        }
        let layer = inner.layer.template(route.to_owned());
        head.extensions.insert(match timeout {
            Some(timeout) => ctx.with_timeout(timeout),
            None => ctx.clone(),
        });
        head.extensions.insert(LastInstance::default());
        let retries = match &inner.settings {
            Some(settings) => {
                inner.breakers.follow(&settings.breakers.current());
                (*settings.retries.current()).clone()
            }
            None => inner.retries.clone(),
        };
        let mut client = layer.retry(retries).layer(inner.balance.clone());
        let response = client.call(Request::from_parts(head, Full::new(body))).await?;
        let (head, body) = error_for_status(response).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }

    fn request(&self, method: Method, route: &str, body: Bytes) -> Result<Request<Bytes>, Error> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path(route).parse::<Uri>().map_err(|e| Error::wrap(Code::InvalidArgument, e))?;
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

fn retries(settings: &Watched<ClientSettings>, policy: RetryPolicy) -> Watched<RetryPolicy> {
    settings.map(move |settings| settings.retry_policy(policy.clone()))
}

/// The path of a route: `/reserve` of `reserve`.
fn path(route: &str) -> String {
    if route.starts_with('/') { route.to_owned() } else { format!("/{route}") }
}

fn address(service: &str, uri: &Uri) -> Result<Uri, Error> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let built = Uri::builder().scheme("http").authority(service).path_and_query(path).build();
    built.map_err(|e| Error::wrap(Code::InvalidArgument, e))
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("service", &self.inner.service).finish_non_exhaustive()
    }
}
