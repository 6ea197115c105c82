use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use throughline::Error;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::handle::{Breaker, Permit};
use super::settings::{BreakerSettings, SharedSettings};

type BoxError = Box<dyn StdError + Send + Sync>;

/// Puts a [`Breaker`] around a tower HTTP client: see [the module](super).
///
/// Each [`layer`](Layer::layer) makes a breaker of its own: use it once per callee, or per instance
/// of one. Clones of the service share its breaker.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use throughline::{ClientLayer, Code, Error};
/// use throughline_service::{BreakerLayer, BreakerSettings, BreakerState};
/// use tower::{Layer, Service, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let peer = service_fn(async |_: Request<()>| {
///     let mut response = Response::new(Full::new(Bytes::new()));
///     *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
///     Ok::<_, Error>(response)
/// });
/// let breaker = BreakerLayer::new("cards", BreakerSettings { min_requests: 3, ..Default::default() });
/// let mut client = ClientLayer::internal().layer(breaker.layer(peer));
/// for _ in 0..3 {
///     let response = client.call(Request::new(())).await?;
///     assert_eq!(response.status(), 500);
/// }
/// let refused = client.call(Request::new(())).await.expect_err("the breaker is open");
/// assert_eq!((refused.code(), refused.retryable()), (Code::Unavailable, Some(true)));
/// assert_eq!(refused.message(), "cards is unavailable: its circuit breaker is open");
/// assert!(refused.retry_after().is_some());
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct BreakerLayer {
    name: Arc<str>,
    settings: SharedSettings,
}

impl BreakerLayer {
    /// A layer for calls to `name`: the callee, in errors, logs and events.
    pub fn new(name: impl Into<Arc<str>>, settings: BreakerSettings) -> Self {
        BreakerLayer { name: name.into(), settings: SharedSettings::new(settings) }
    }

    /// Changes the settings of all breakers that this layer and its clones have made.
    ///
    /// They count from the next result on. A breaker that is open stays open for its time. A change
    /// of [`window`](BreakerSettings::window) starts an empty window.
    pub fn set(&self, settings: BreakerSettings) {
        self.settings.set(settings);
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = BreakerService<S>;

    fn layer(&self, inner: S) -> BreakerService<S> {
        BreakerService { inner, breaker: Breaker::new(Arc::clone(&self.name), self.settings.clone()) }
    }
}

/// A client with a breaker. [`BreakerLayer`] makes it.
///
/// It is ready when the inner service is. While the breaker is open, a call fails at once.
#[derive(Clone, Debug)]
pub struct BreakerService<S> {
    inner: S,
    breaker: Breaker,
}

impl<S> BreakerService<S> {
    /// Returns the breaker, to read its state and counters.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }
}

impl<S, B, R> Service<Request<B>> for BreakerService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = BreakerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> BreakerFuture<S::Future> {
        match self.breaker.admit(&request, Instant::now()) {
            Ok(permit) => {
                BreakerFuture { state: State::Sent { response: self.inner.call(request), permit: Some(permit) } }
            }
            Err(after) => BreakerFuture { state: State::Refused { error: Some(self.breaker.refusal(after)) } },
        }
    }
}

pin_project! {
    /// The future of a [`BreakerService`]: resolves to the response. Dropping it drops the call.
    ///
    /// A call that is dropped counts as neutral, or by its deadline if that has passed.
    pub struct BreakerFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        // Field order: the call is dropped first, and then recorded.
        Sent { #[pin] response: F, permit: Option<Permit> },
        Refused { error: Option<Error> },
    }
}

impl<F, R, E> Future for BreakerFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Sent { response, permit } => {
                let result = ready!(response.poll(cx)).map_err(Into::into);
                permit.take().expect("a future is not polled after it is ready").end(&result);
                Poll::Ready(result)
            }
            StateProjection::Refused { error } => {
                Poll::Ready(Err(error.take().expect("a future is not polled after it is ready").into()))
            }
        }
    }
}

impl<F> fmt::Debug for BreakerFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerFuture").finish_non_exhaustive()
    }
}
