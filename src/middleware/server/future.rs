use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use http::Response;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED,
    TRAILER, TRANSFER_ENCODING,
};
use http_body::Body;
use pin_project_lite::pin_project;
use throughline_core::{DoneOwned, WithContext};
use tokio::task::JoinHandle;

use super::ResponseBody;
use super::exchange::Exchange;
use crate::error::Error;
use crate::middleware::grpc;

pin_project! {
    /// The answer to a request: made by [`ContextService`](super::ContextService). Dropped before it is ready, it cancels the request's context.
    pub struct ResponseFuture<F, R, E> {
        #[pin]
        state: State<F, R, E>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, R, E> {
        Here {
            #[pin]
            running: Running<F>,
        },
        // In a task of its own, which goes on when we are dropped.
        Detached {
            task: JoinHandle<Result<Response<ResponseBody<R>>, E>>,
        },
    }
}

pin_project! {
    struct Running<F> {
        #[pin]
        work: Work<F>,
        #[pin]
        done: DoneOwned,
        // `None` once the answer has it.
        exchange: Option<Exchange>,
    }

    impl<F> PinnedDrop for Running<F> {
        fn drop(this: Pin<&mut Self>) {
            // Before the handler is dropped, so that what ends with it knows why; its span ends after.
            if let Some(exchange) = this.project().exchange {
                exchange.interrupt();
            }
        }
    }
}

pin_project! {
    #[project = WorkProjection]
    pub(super) enum Work<F> {
        Inline {
            #[pin]
            handler: WithContext<F>,
        },
        // There is no handler to call, or none any more.
        None,
    }
}

impl<F, R, E> ResponseFuture<F, R, E> {
    pub(super) fn new(exchange: Exchange, work: Work<F>) -> Self {
        let running = Running { work, done: exchange.context().done_owned(), exchange: Some(exchange) };
        ResponseFuture { state: State::Here { running } }
    }

    pub(super) fn detached(task: JoinHandle<Result<Response<ResponseBody<R>>, E>>) -> Self {
        ResponseFuture { state: State::Detached { task } }
    }
}

impl<F, R, E> Future for ResponseFuture<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Here { running } => running.poll(cx),
            StateProjection::Detached { task } => match ready!(Pin::new(task).poll(cx)) {
                Ok(answer) => Poll::Ready(answer),
                Err(e) => match e.try_into_panic() {
                    Ok(payload) => std::panic::resume_unwind(payload),
                    // Its runtime is shutting down, and so are we.
                    Err(_) => Poll::Pending,
                },
            },
        }
    }
}

impl<F> Running<F> {
    fn poll<R, E>(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<Response<ResponseBody<R>>, E>>
    where
        F: Future<Output = Result<Response<R>, E>>,
        R: Body<Data = Bytes>,
    {
        let mut this = self.project();
        if let WorkProjection::Inline { handler } = this.work.as_mut().project() {
            let mut on_unwind = OnUnwind { exchange: this.exchange, was_panicking: std::thread::panicking() };
            let polled = handler.poll(cx);
            on_unwind.was_panicking = true;
            drop(on_unwind);
            match polled {
                Poll::Ready(answer) => {
                    let exchange = this.exchange.take().expect("a future is not polled after it was ready");
                    return Poll::Ready(match answer {
                        Ok(response) => Ok(pass_on(exchange, response)),
                        Err(error) => {
                            exchange.failed();
                            Err(error)
                        }
                    });
                }
                // This reads the clock: also when another layer's timer has woken us, and is about to drop us.
                Poll::Pending => ready!(this.done.poll(cx)),
            }
        }
        this.work.set(Work::None);
        let mut exchange = this.exchange.take().expect("a future is not polled after it was ready");
        let error = exchange.error_in_place();
        Poll::Ready(Ok(answer_with(exchange, error, HeaderMap::new())))
    }
}

/// Notes a panic as it passes: who catches it outside drops us later, and then nothing tells of it.
struct OnUnwind<'a> {
    exchange: &'a mut Option<Exchange>,
    was_panicking: bool,
}

impl Drop for OnUnwind<'_> {
    fn drop(&mut self) {
        if !self.was_panicking
            && std::thread::panicking()
            && let Some(exchange) = self.exchange
        {
            exchange.panicked();
        }
    }
}

/// What headers say of a body that another one takes the place of; layers inside may have said more than the handler (a compressed answer).
const OF_THE_BODY: [HeaderName; 8] =
    [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, TRANSFER_ENCODING, TRAILER, ETAG, LAST_MODIFIED, ACCEPT_RANGES];

fn pass_on<R: Body<Data = Bytes>>(mut exchange: Exchange, mut response: Response<R>) -> Response<ResponseBody<R>> {
    let extensions = response.extensions_mut();
    let error = extensions.remove::<Error>();
    if let Some(error) = error.or_else(|| grpc::error_in(extensions).filter(|_| exchange.is_grpc())) {
        let mut headers = std::mem::take(response.headers_mut());
        for name in OF_THE_BODY {
            headers.remove(name);
        }
        grpc::remove_status(&mut headers);
        return answer_with(exchange, error, headers);
    }
    exchange.note_grpc_head(&response);
    exchange.hide_depths(response.headers_mut());
    let has_body = exchange.answered(&response);
    let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    response.map(|body| ResponseBody::new(body, exchange, has_body, length))
}

/// The answer that tells of `error`, with what else is in `headers`.
fn answer_with<R: Body<Data = Bytes>>(
    mut exchange: Exchange,
    error: Error,
    headers: HeaderMap,
) -> Response<ResponseBody<R>> {
    let error = exchange.outbound(error);
    let mut response = if exchange.is_grpc() { grpc::answer(error) } else { error.to_response() };
    let own = std::mem::replace(response.headers_mut(), headers);
    for (name, value) in &own {
        response.headers_mut().insert(name, value.clone());
    }
    let has_body = exchange.answered(&response);
    response.map(|bytes| ResponseBody::full(bytes, exchange, has_body))
}

impl<F, R, E> fmt::Debug for ResponseFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
