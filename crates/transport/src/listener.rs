//! The requests that arrive for a service.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use throughline::{Cause, Code, Context, ContextLayer, DoneOwned, Error};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceExt as _};

use crate::control::{Control, ListenerCounters};
use crate::error::too_large;
use crate::responder::{Incoming, Responder};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The requests that arrive for one service.
///
/// [`Transport::listen`](crate::Transport::listen) makes it.
///
/// [`serve`](Self::serve) handles them with a tower service and a context. [`next`](Self::next)
/// takes one request after the other, without a context.
///
/// When a listener is dropped, requests that were not taken get `UNAVAILABLE`, and nothing listens
/// to the name any more. Requests that were taken may still be responded to.
pub struct Listener {
    receiver: mpsc::Receiver<Incoming>,
    control: Arc<Control>,
    closed: Pin<Box<DoneOwned>>,
}

impl Listener {
    pub(crate) fn new(receiver: mpsc::Receiver<Incoming>, control: Arc<Control>) -> Self {
        let closed = Box::pin(control.closed.done_owned());
        Listener { receiver, control, closed }
    }

    /// Returns the name of the service.
    pub fn service(&self) -> &str {
        &self.control.service
    }

    /// Returns what this listener has counted.
    pub fn counters(&self) -> ListenerCounters {
        self.control.counters()
    }

    /// Takes the next request.
    ///
    /// `None`: the listener was [stopped](crate::Transport::stop_listening), and each request has
    /// its response.
    ///
    /// # Cancellation safety
    /// If the future is dropped before it is ready, no request is taken.
    pub async fn next(&mut self) -> Option<Incoming> {
        poll_fn(|cx| self.poll_incoming(cx)).await
    }

    fn poll_incoming(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Incoming>> {
        match self.receiver.poll_recv(cx) {
            Poll::Pending => self.closed.as_mut().poll(cx).map(|()| None),
            incoming => incoming,
        }
    }

    /// Handles the requests with `service`, each on a task and in a context of its own.
    ///
    /// `layer` extracts the context. It is a child of `base`, which replaces the layer's own
    /// [`base`](ContextLayer::base): with the context of a [`Shutdown`](throughline::Shutdown), the
    /// shutdown waits for the requests. A request is cancelled when
    /// - its caller gives up: [`Cause::ClientDisconnected`];
    /// - its deadline passes;
    /// - `base` is cancelled;
    /// - the listener was stopped and the drain time has passed: [`Cause::Shutdown`].
    ///
    /// Responses are read into memory. One that is larger than the limit becomes
    /// `RESOURCE_EXHAUSTED`. An error of `service` becomes `INTERNAL`. A panic of it fails only its
    /// own request.
    ///
    /// It returns when the listener has ended. When `base` is done, it stops listening.
    ///
    /// # Cancellation safety
    /// If the future is dropped, so are the listener and the requests in flight.
    ///
    /// # Examples
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use throughline::{Context, ContextLayer};
    /// use throughline_transport::Transport;
    /// use tower::service_fn;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let transport = Transport::in_process();
    /// let listener = transport.listen("balance").await?;
    /// let balance = service_fn(async |request: Request<Full<Bytes>>| {
    ///     let ctx = request.extensions().get::<Context>().expect("the layer has inserted it");
    ///     assert!(ctx.remaining().is_some());
    ///     Ok::<_, throughline::Error>(Response::new(Full::new(Bytes::from("100"))))
    /// });
    /// let ctx = Context::background();
    /// tokio::spawn(async move { listener.serve(&Context::background(), ContextLayer::internal(), balance).await });
    ///
    /// let ctx = ctx.with_timeout(std::time::Duration::from_secs(1));
    /// let response = transport.send(&ctx, "balance", Request::new(Bytes::new())).await?;
    /// assert_eq!(response.body(), "100");
    /// assert!(transport.stop_listening("balance").await);
    /// # Ok::<(), throughline::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn serve<S, B>(self, base: &Context, layer: ContextLayer, service: S)
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.serve_with(base, |requests| layer.base(requests).layer(service)).await;
    }

    /// Handles the requests with a service that has its own [`ContextLayer`] inside.
    ///
    /// For routers, whose layer must see the matched route. `make` gets the context that must be
    /// the [`base`](ContextLayer::base) of the layer: a child of `base`. Otherwise it is as
    /// [`serve`](Self::serve).
    ///
    /// # Cancellation safety
    /// If the future is dropped, so are the listener and the requests in flight.
    pub async fn serve_with<S, B>(mut self, base: &Context, make: impl FnOnce(&Context) -> S)
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError> + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let requests = base.with_cancel();
        let service = make(&requests);
        let mut tasks = JoinSet::new();
        let control = Arc::clone(&self.control);
        let (mut overdue, mut stopped) = (pin!(control.overdue.done()), pin!(base.done()));
        let (mut is_stopped, mut is_overdue) = (false, false);
        loop {
            tokio::select! {
                biased;
                incoming = self.next() => match incoming {
                    Some(Incoming { request, responder }) => {
                        tasks.spawn(handle(service.clone(), request, responder));
                        // Not a branch of its own: each end of a task would wake this one.
                        while tasks.try_join_next().is_some() {}
                    }
                    None => break,
                },
                () = &mut overdue, if !is_overdue => {
                    is_overdue = true;
                    requests.cancel_with(Cause::Shutdown);
                }
                () = &mut stopped, if !is_stopped => {
                    is_stopped = true;
                    control.draining.cancel_with(Cause::Shutdown);
                    let control = Arc::clone(&control);
                    tasks.spawn(async move {
                        control.drained().await;
                        control.close();
                    });
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// Handles one request. Drops the work of the service when the caller gives up.
async fn handle<S, B>(service: S, request: Request<Bytes>, mut responder: Responder)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let limit = responder.max_body();
    let work = async {
        let response = service.oneshot(request.map(Full::new)).await.map_err(|e| Failure::Failed(e.into()))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|e| match e.is::<LengthLimitError>() {
            true => Failure::TooLarge,
            false => Failure::Failed(e),
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let result = {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            result = &mut work => Some(result),
            () = responder.abandoned() => None,
        }
    };
    match result {
        Some(Ok(response)) => responder.respond(response),
        Some(Err(Failure::TooLarge)) => {
            let error = too_large("response body", responder.service(), limit);
            responder.respond_error(error);
        }
        Some(Err(Failure::Failed(error))) => responder.respond_error(Error::wrap(Code::Internal, error)),
        None => responder.discard(),
    }
}

enum Failure {
    TooLarge,
    Failed(BoxError),
}

impl Stream for Listener {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Incoming>> {
        self.poll_incoming(cx)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.control.close();
        self.receiver.close();
        while let Ok(Incoming { responder, .. }) = self.receiver.try_recv() {
            let message = format!("{} is shutting down", self.control.service);
            responder.respond_error(Error::new(Code::Unavailable, message).with_retryable(true));
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("service", &self.control.service).finish_non_exhaustive()
    }
}
