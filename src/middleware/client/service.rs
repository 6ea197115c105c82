use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use http::{Extensions, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use throughline_core::{Context, DoneOwned};
use tower_service::Service;

use super::call::{Call, Outgoing};
use super::request::end_with_call;
use super::{CallBody, ClientLayer};
use crate::error::Error;
use crate::middleware::server::Served;

/// A client that sends the context with each call. [`ClientLayer`] makes it.
#[derive(Clone, Debug)]
pub struct ClientService<S> {
    pub(super) inner: S,
    pub(super) layer: ClientLayer,
}

impl<S> ClientService<S> {
    pub(super) fn new(inner: S, layer: ClientLayer) -> Self {
        ClientService { inner, layer }
    }
}

impl<S, B, R> Service<Request<B>> for ClientService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: 'static,
    R: Body,
{
    type Response = Response<CallBody<R>>;
    type Error = Error;
    type Future = CallFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(|e| Error::from_failure(e.into(), false))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let ctx = request.extensions().get::<Context>().cloned().unwrap_or_else(Context::current);
        begin(&self.layer, &mut self.inner, &ctx, request, 0)
    }
}

/// Sends `request` with `ctx` to `inner`, which is ready. `resend`: how many attempts there were.
pub(super) fn begin<S, B, R>(
    layer: &ClientLayer,
    inner: &mut S,
    ctx: &Context,
    request: Request<B>,
    resend: u32,
) -> CallFuture<S::Future>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: 'static,
{
    let (mut head, body) = request.into_parts();
    // If the callee is a server in this process, this is a new request to it.
    head.extensions.remove::<Served>();
    let (method, uri) = (&head.method, &head.uri);
    let (headers, template) = (&mut head.headers, layer.template_of(head.extensions.get()));
    let out = Outgoing { method, uri, full_url: uri, headers, template, resend, is_cross_origin: false };
    match Call::begin(layer.config(), ctx, out) {
        Ok(mut call) => {
            hand_down(&call, &mut head.extensions);
            let body = end_with_call(body, &mut head.extensions, || call.request_end());
            CallFuture::sent(call, inner.call(Request::from_parts(head, body)))
        }
        Err(error) => CallFuture { state: State::NotSent { error: Some(error) } },
    }
}

/// Replaces the caller's context in the extensions by the call's own.
///
/// It adds none, because that allocates.
pub(super) fn hand_down(call: &Call, extensions: &mut Extensions) {
    if let Some(ctx) = extensions.get_mut::<Context>() {
        ctx.clone_from(call.context());
    }
}

pin_project! {
    /// The future of a [`ClientService`]: resolves to the response. Dropping it drops the call.
    pub struct CallFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        // Field order: the inner future is dropped first, and then the call with its span.
        Sent { #[pin] response: F, #[pin] done: DoneOwned, call: Option<Call> },
        NotSent { error: Option<Error> },
    }
}

impl<F> CallFuture<F> {
    pub(super) fn sent(call: Call, response: F) -> Self {
        CallFuture { state: State::Sent { response, done: call.context().done_owned(), call: Some(call) } }
    }
}

impl<F, R, E> Future for CallFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Box<dyn StdError + Send + Sync>>,
    R: Body,
{
    type Output = Result<Response<CallBody<R>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let (response, call) = match state.as_mut().project() {
            StateProjection::NotSent { error } => {
                return Poll::Ready(Err(error.take().expect("a future is not polled after it is ready")));
            }
            StateProjection::Sent { response, done, call } => match response.poll(cx) {
                Poll::Ready(response) => (Some(response), call.take()),
                Poll::Pending => {
                    ready!(done.poll(cx));
                    (None, call.take())
                }
            },
        };
        let mut call = call.expect("a future is not polled after it is ready");
        Poll::Ready(match response {
            Some(Ok(mut response)) => {
                let keeps_body = call.record_head(response.status(), response.headers_mut());
                let response = call.pass_head(response);
                Ok(response.map(|body| CallBody::new(Some(body).filter(|_| keeps_body), call)))
            }
            Some(Err(e)) => Err(call.failed(e)),
            None => {
                let error = call.interrupted();
                // Dropping the inner future resets the stream or closes the connection.
                state.set(State::NotSent { error: None });
                Err(error)
            }
        })
    }
}

impl<F> fmt::Debug for CallFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}
