use std::borrow::Cow;
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use throughline_core::Context;
use throughline_core::trace::Value;
use tower_layer::Layer;
use tower_service::Service;

use super::policy::RetryPolicy;
use super::replay::Replay;
use super::run::{Exchange, run};
use super::session::Session;
use crate::error::Error;
use crate::middleware::client::call::{Call, Outgoing};
use crate::middleware::client::request::end_with_call;
use crate::middleware::client::service::{begin, hand_down};
use crate::middleware::client::timeout::inject_timeout;
use crate::middleware::client::{CallBody, CallFuture, ClientLayer};
use crate::middleware::grpc;
use crate::middleware::semconv;
use crate::middleware::server::Served;

type BoxError = Box<dyn StdError + Send + Sync>;

impl ClientLayer {
    /// A layer that sends a failed call again, as `policy` allows.
    ///
    /// Set the other options of the client layer first. See [the module](super) for when each
    /// thing happens.
    ///
    /// # Examples
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// use bytes::Bytes;
    /// use http::{Request, Response, StatusCode};
    /// use http_body_util::Full;
    /// use throughline::{ClientLayer, RetryPolicy};
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
    /// static CALLS: AtomicU32 = AtomicU32::new(0);
    /// let restarting = service_fn(async |_: Request<()>| {
    ///     let mut response = Response::new(Full::new(Bytes::from("done")));
    ///     if CALLS.fetch_add(1, Ordering::Relaxed) == 0 {
    ///         *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    ///     }
    ///     Ok::<_, std::convert::Infallible>(response)
    /// });
    /// let retries = RetryPolicy::new();
    /// let mut client = ClientLayer::internal().retry(retries.clone()).layer(restarting);
    /// let response = client.call(Request::new(())).await?;
    /// assert_eq!((response.status(), retries.retry_count()), (StatusCode::OK, 1));
    /// # Ok::<(), throughline::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry(self, policy: RetryPolicy) -> RetryLayer {
        RetryLayer { client: self, policy }
    }
}

/// A [`ClientLayer`] that sends failed calls again. [`ClientLayer::retry`] makes it.
///
/// The inner service is cloned for each call and each further attempt. `tower::buffer` makes any
/// service cloneable. The request's body implements [`Replay`].
///
/// # Panics
/// A call panics when it has to wait in a tokio runtime without a timer (`enable_time`).
///
/// Cloning a layer costs two reference counts.
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryLayer {
    client: ClientLayer,
    policy: RetryPolicy,
}

impl RetryLayer {
    /// A layer for one operation, as [`ClientLayer::template`] makes it.
    ///
    /// ```
    /// use throughline::ClientLayer;
    /// use throughline::middleware::client::retry::RetryPolicy;
    ///
    /// let layer = ClientLayer::internal().retry(RetryPolicy::new());
    /// let card = layer.template("/cards/{id}");
    /// # let _ = card;
    /// ```
    pub fn template(&self, template: impl Into<Cow<'static, str>>) -> Self {
        RetryLayer { client: self.client.template(template), policy: self.policy.clone() }
    }

    #[cfg(feature = "reqwest")]
    pub(in crate::middleware::client) fn client(&self) -> &ClientLayer {
        &self.client
    }

    #[cfg(feature = "reqwest")]
    pub(in crate::middleware::client) fn policy(&self) -> &RetryPolicy {
        &self.policy
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = RetryService<S>;

    fn layer(&self, inner: S) -> RetryService<S> {
        RetryService { inner, layer: self.clone() }
    }
}

/// A client that sends the context with each call, and failed calls again. [`RetryLayer`] makes it.
#[derive(Clone, Debug)]
pub struct RetryService<S> {
    pub(in crate::middleware::client) inner: S,
    pub(in crate::middleware::client) layer: RetryLayer,
}

/// Takes the service that is ready, and leaves a clone that is not.
fn take_ready<S: Clone>(service: &mut S) -> S {
    let other = service.clone();
    std::mem::replace(service, other)
}

impl<S, B, R> Service<Request<B>> for RetryService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: Replay + Send + 'static,
    R: Body + Send + 'static,
{
    type Response = Response<CallBody<R>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<CallBody<R>>, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(|e| Error::from_failure(e.into(), false))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let ctx = head.extensions.get::<Context>().cloned().unwrap_or_else(Context::current);
        let settings = self.layer.policy.settings();
        let is_idempotent = settings.is_idempotent(&head.method, &head.uri, &head.headers, &head.extensions);
        let reserve = self.layer.client.config().reserve;
        let session = |ctx: &Context| Session::new(settings.clone(), ctx.clone(), reserve, is_idempotent);
        let (client, layer) = (Client::new(take_ready(&mut self.inner)), self.layer.client.clone());
        if head.method == http::Method::POST && grpc::is_grpc(&head.headers) {
            // Semantic conventions 1.45, "RPC spans": the client span covers all retries.
            let (method, uri) = (&head.method, &head.uri);
            let (full_url, headers) = (uri, &mut head.headers);
            let out = Outgoing { method, uri, full_url, headers, template: None, resend: 0, is_cross_origin: false };
            let mut call = match Call::begin(layer.config(), &ctx, out) {
                Ok(call) => call,
                Err(error) => return Box::pin(std::future::ready(Err(error))),
            };
            head.extensions.remove::<Served>();
            hand_down(&call, &mut head.extensions);
            let (ctx, request_end) = (call.context().clone(), call.request_end());
            let session = session(&ctx);
            let exchange = Grpc { client, layer, is_external: call.is_external(), ctx, request_end };
            let attempts = Box::pin(run(exchange, session, Request::from_parts(head, body)));
            return Box::pin(CallFuture::sent(call, async move { attempts.await.unwrap_or_else(|e| Err(e.into())) }));
        }
        let session = session(&ctx);
        let exchange = Http { client, layer, ctx: ctx.clone() };
        let attempts = run(exchange, session, Request::from_parts(head, body));
        Box::pin(async move { attempts.await.unwrap_or_else(|_| Err(Error::from_context(&ctx))) })
    }
}

/// The inner service: ready for the first attempt.
pub(in crate::middleware::client) struct Client<S> {
    ready: Option<S>,
    service: S,
}

impl<S: Clone> Client<S> {
    pub(in crate::middleware::client) fn new(ready: S) -> Self {
        Client { service: ready.clone(), ready: Some(ready) }
    }

    /// A service for one attempt. It becomes ready by [`wait_until_ready`].
    pub(in crate::middleware::client) fn for_attempt(&mut self) -> (S, bool) {
        match self.ready.take() {
            Some(service) => (service, true),
            None => (self.service.clone(), false),
        }
    }
}

/// Waits for a service, unless it is ready already.
pub(in crate::middleware::client) async fn wait_until_ready<S, Q>(
    service: &mut S,
    is_ready: bool,
) -> Result<(), S::Error>
where
    S: Service<Q>,
{
    if is_ready { Ok(()) } else { poll_fn(|cx| service.poll_ready(cx)).await }
}

/// A copy of a request whose body is replayed.
fn copy<B: Replay>(request: &mut Request<B>) -> Option<Request<B>> {
    let mut copy = Request::new(request.body_mut().replay()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Plain HTTP: each attempt is a call with its own span.
struct Http<S> {
    client: Client<S>,
    layer: ClientLayer,
    ctx: Context,
}

impl<S, B, R> Exchange<Request<B>> for Http<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: Replay + Send + 'static,
    R: Body + Send + 'static,
{
    type Outcome = Result<Response<CallBody<R>>, Error>;

    fn copy(&self, request: &mut Request<B>) -> Option<Request<B>> {
        copy(request)
    }

    fn send(&mut self, request: Request<B>, resend: u32) -> impl Future<Output = Self::Outcome> + Send + use<S, B, R> {
        let (mut service, is_ready) = self.client.for_attempt();
        let (layer, ctx) = (self.layer.clone(), self.ctx.clone());
        async move {
            ctx.run(wait_until_ready(&mut service, is_ready))
                .await
                .map_err(|_| Error::from_context(&ctx))?
                .map_err(|e| Error::from_failure(e.into(), false))?;
            begin(&layer, &mut service, &ctx, request, resend).await
        }
    }

    fn transient_error(&self, session: &Session, outcome: &Self::Outcome) -> Option<Error> {
        transient_error(session, outcome)
    }

    fn discard(&self, outcome: Self::Outcome) {
        discard(outcome)
    }
}

/// The error of an attempt that is a call of its own, if another one may succeed.
pub(in crate::middleware::client) fn transient_error<R>(
    session: &Session,
    outcome: &Result<Response<R>, Error>,
) -> Option<Error> {
    match outcome {
        Ok(response) => session.transient_error_of_head(response.status(), response.headers()),
        Err(error) => session.transient_error(error.clone(), false),
    }
}

/// Ends the call of an attempt: nobody reads the body.
pub(in crate::middleware::client) fn discard<R: Body>(outcome: Result<Response<CallBody<R>>, Error>) {
    if let Ok(response) = outcome {
        pin!(response.into_body()).body_and_call().1.finish();
    }
}

/// GRPC: all attempts belong to one call, with one span.
struct Grpc<S> {
    client: Client<S>,
    layer: ClientLayer,
    is_external: bool,
    /// The context of the span.
    ctx: Context,
    /// Done when the call ends.
    request_end: Context,
}

impl<S, B, R> Exchange<Request<B>> for Grpc<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: Replay + Send + 'static,
    R: Send + 'static,
{
    type Outcome = Result<Response<R>, BoxError>;

    fn copy(&self, request: &mut Request<B>) -> Option<Request<B>> {
        copy(request)
    }

    fn send(&mut self, request: Request<B>, resend: u32) -> impl Future<Output = Self::Outcome> + Send + use<S, B, R> {
        let (mut service, is_ready) = self.client.for_attempt();
        let (layer, ctx, request_end) = (self.layer.clone(), self.ctx.clone(), self.request_end.clone());
        let is_external = self.is_external;
        async move {
            wait_until_ready(&mut service, is_ready).await.map_err(Into::into)?;
            let (mut head, body) = request.into_parts();
            if resend > 0 {
                inject_timeout(layer.config(), ctx.remaining(), is_external, &mut head.headers)?;
            }
            let body = end_with_call(body, &mut head.extensions, || request_end);
            service.call(Request::from_parts(head, body)).await.map_err(Into::into)
        }
    }

    fn transient_error(&self, session: &Session, outcome: &Self::Outcome) -> Option<Error> {
        match outcome {
            Ok(response) => {
                session.transient_error_of_grpc_head(response.status(), response.headers(), self.is_external)
            }
            Err(failure) => session.transient_error(Error::meaning_of(&**failure), true),
        }
    }

    fn discard(&self, outcome: Self::Outcome) {
        drop(outcome);
    }

    fn record_retry(&self, error: &Error, wait: Duration) {
        let (code, wait) = (Value::from(error.code().as_str()), Value::from(semconv::millis(wait)));
        let attributes = [(semconv::ERROR_TYPE, code), ("throughline.retry.wait_ms", wait)];
        self.ctx.current_span().add_event("throughline.retry", attributes);
    }
}
