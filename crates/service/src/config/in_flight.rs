use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use pin_project_lite::pin_project;
use throughline::{Code, Error};
use tower_layer::Layer;
use tower_service::Service;

use super::watched::Watched;

/// Refuses requests while too many are in flight. The limit can change.
///
/// A request is in flight from its call until the head of its response, or until it is dropped.
/// Beyond the limit, the response is `RESOURCE_EXHAUSTED` at once; nothing queues. A lower limit
/// does not end requests in flight. All clones of a layer, and the services that they make, count
/// together.
///
/// Put it inside a [`ContextLayer`](throughline::ContextLayer), so that the refusal has a span. The
/// limit of the transport holds besides.
///
/// # Examples
/// ```
/// use std::convert::Infallible;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use throughline_service::config::{MaxInFlight, ServiceSettings, Watched};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let settings = Watched::fixed(ServiceSettings { max_in_flight: Some(1), ..ServiceSettings::default() });
/// let layer = MaxInFlight::new(settings.map(|settings| settings.max_in_flight));
/// let handler = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
/// let service = layer.layer(handler);
///
/// let first = service.clone().oneshot(Request::new(()));
/// assert_eq!(first.await?.status(), 200);
/// # Ok::<(), Infallible>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct MaxInFlight {
    limit: Watched<Option<usize>>,
    count: Arc<AtomicUsize>,
}

/// The service of [`MaxInFlight`].
#[derive(Clone, Debug)]
pub struct MaxInFlightService<S> {
    inner: S,
    layer: MaxInFlight,
}

impl MaxInFlight {
    /// A limit that is read for each request. `None`: no limit.
    pub fn new(limit: impl Into<Watched<Option<usize>>>) -> Self {
        MaxInFlight { limit: limit.into(), count: Arc::default() }
    }

    /// Returns how many requests are in flight.
    pub fn in_flight(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts a request. `Err`: as many as this are in flight.
    fn start(&self) -> Result<Flight, usize> {
        let limit = self.limit.current().unwrap_or(usize::MAX);
        let add = |count: usize| (count < limit).then(|| count + 1);
        match self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(Flight(Arc::clone(&self.count))),
            Err(_) => Err(limit),
        }
    }
}

impl<S> Layer<S> for MaxInFlight {
    type Service = MaxInFlightService<S>;

    fn layer(&self, inner: S) -> MaxInFlightService<S> {
        MaxInFlightService { inner, layer: self.clone() }
    }
}

impl<S, R, B> Service<R> for MaxInFlightService<S>
where
    S: Service<R, Response = Response<B>>,
    B: From<Bytes>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = InFlight<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        match self.layer.start() {
            Ok(flight) => InFlight { state: State::Handled { future: self.inner.call(request), _flight: flight } },
            Err(limit) => InFlight { state: State::Refused { limit } },
        }
    }
}

pin_project! {
    /// The response of a [`MaxInFlightService`].
    #[derive(Debug)]
    pub struct InFlight<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F> {
        Handled { #[pin] future: F, _flight: Flight },
        Refused { limit: usize },
    }
}

impl<F, B, E> Future for InFlight<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: From<Bytes>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            StateProjection::Handled { future, .. } => future.poll(cx),
            StateProjection::Refused { limit } => {
                let error = Error::new(Code::ResourceExhausted, format!("{limit} requests are in flight"));
                Poll::Ready(Ok(error.to_response().map(B::from)))
            }
        }
    }
}

/// A request in flight, until it is dropped.
#[derive(Debug)]
struct Flight(Arc<AtomicUsize>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
