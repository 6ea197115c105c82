use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, LAST_MODIFIED, TRAILER,
    TRANSFER_ENCODING,
};
use http::response::Parts;
use http::{Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use throughline_core::{DoneOwned, WithContext};

use super::ResponseBody;
use super::detached::Detached;
use super::document::{Document, Found, Plan};
use super::exchange::Exchange;
use super::unwind::OnUnwind;
use crate::error::Error;
use crate::middleware::grpc;

pin_project! {
    /// The future of a response. Made by [`ContextService`](super::ContextService).
    ///
    /// Dropping it before it is ready cancels the request's context.
    pub struct ResponseFuture<F, R, E> {
        #[pin]
        work: Work<F, R, E>,
        #[pin]
        done: DoneOwned,
        // `None` once the response has it.
        exchange: Option<Exchange>,
    }

    impl<F, R, E> PinnedDrop for ResponseFuture<F, R, E> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            match (this.work.project(), this.exchange.take()) {
                (WorkProjection::Detached { task }, Some(exchange)) => task.hand_over(exchange),
                // Before the handler is dropped, so that code that ends with it sees the cause. The
                // span ends after that.
                (_, Some(mut exchange)) => {
                    exchange.interrupt();
                    *this.exchange = Some(exchange);
                }
                (_, None) => {}
            }
        }
    }
}

pin_project! {
    #[project = WorkProjection]
    pub(super) enum Work<F, R, E> {
        Inline {
            #[pin]
            handler: WithContext<F>,
        },
        // The handler is in a task of its own, which continues when this future is dropped.
        Detached {
            task: Detached<R, E>,
        },
        // The handler has responded. Its body may be an error document, which is read before the
        // head is passed on.
        Reading {
            #[pin]
            document: Document<R>,
        },
        // There is no handler to call, or it was dropped.
        None,
    }
}

impl<F, R, E> ResponseFuture<F, R, E> {
    pub(super) fn new(exchange: Exchange, work: Work<F, R, E>) -> Self {
        ResponseFuture { work, done: exchange.context().done_owned(), exchange: Some(exchange) }
    }
}

impl<F, R, E> Future for ResponseFuture<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
    E: 'static,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut exchange = OnUnwind::new(this.exchange);
        loop {
            let response = match this.work.as_mut().project() {
                WorkProjection::Inline { handler } => exchange.catch(|| handler.poll(cx)),
                WorkProjection::Detached { task } => exchange.catch(|| task.poll(cx)),
                WorkProjection::Reading { document } => match document.poll(exchange.get().context(), cx) {
                    Poll::Ready(found) => return Poll::Ready(Ok(pass_on_found(exchange.take(), found))),
                    Poll::Pending => Ok(Poll::Pending),
                },
                WorkProjection::None => return Poll::Ready(Ok(respond_without_handler(exchange.take()))),
            };
            let response = match response {
                Ok(response) => response,
                Err(panicked) => {
                    this.work.set(Work::None);
                    let exchange = exchange.take();
                    let response = error_response(&exchange, panicked, None);
                    return Poll::Ready(Ok(respond(exchange, response)));
                }
            };
            match response {
                Poll::Ready(Ok(response)) if exchange.get().is_refused_by(&response) => this.work.set(Work::None),
                Poll::Ready(Ok(response)) => match Plan::of(exchange.get(), response) {
                    Plan::Pass(response) => return Poll::Ready(Ok(pass_on(exchange.take(), response))),
                    Plan::Found(found) => return Poll::Ready(Ok(pass_on_found(exchange.take(), found))),
                    Plan::Read(document) => this.work.set(Work::Reading { document }),
                },
                Poll::Ready(Err(error)) => {
                    exchange.take().failed(&error);
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    // This reads the clock. So it also sees a deadline when another layer's timer
                    // has woken the task, and that layer is about to drop this future.
                    ready!(this.done.as_mut().poll(cx));
                    if exchange.get().is_ended_by_outer() {
                        return Poll::Pending;
                    }
                    this.work.set(Work::None);
                }
            }
        }
    }
}

/// The headers that describe a body, which is replaced here.
///
/// Inner layers may have added some of them, for example for a compressed response.
const BODY_HEADERS: [HeaderName; 8] =
    [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, TRANSFER_ENCODING, TRAILER, ETAG, LAST_MODIFIED, ACCEPT_RANGES];

fn pass_on<R: Body<Data = Bytes>>(mut exchange: Exchange, mut response: Response<R>) -> Response<ResponseBody<R>> {
    exchange.record_response(&response);
    exchange.redact_grpc(response.headers_mut());
    let response = exchange.pass_head(response);
    let has_body = exchange.head_sent(&response);
    let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    response.map(|body| ResponseBody::new(body, exchange, has_body, length))
}

fn pass_on_found<R: Body<Data = Bytes>>(exchange: Exchange, found: Found) -> Response<ResponseBody<R>> {
    match found {
        Found::Error(parts, error) => {
            // A status that the handler has chosen stays.
            let chosen_status = Some(parts.status).filter(|status| *status != error.code().http_status());
            let response = error_response(&exchange, error, chosen_status);
            respond(exchange, with_head(parts, response))
        }
        Found::FromCallee(parts, error) => {
            exchange.record_error(&error, parts.status);
            let response = error.redacted().to_response_with(parts.status);
            respond(exchange, with_head(parts, response))
        }
        Found::Unchanged(response) => {
            exchange.record_response(&response);
            respond(exchange, response)
        }
    }
}

/// The layer's own response, without a call of the handler.
fn respond_without_handler<R: Body<Data = Bytes>>(mut exchange: Exchange) -> Response<ResponseBody<R>> {
    let error = exchange.error_without_handler();
    let response = error_response(&exchange, error, None);
    respond(exchange, response)
}

/// The response that reports `error` to the caller.
fn error_response(exchange: &Exchange, error: Error, chosen_status: Option<StatusCode>) -> Response<Bytes> {
    let error = exchange.through_service(exchange.unavailable_if_base_done(error));
    let chosen_status = chosen_status.filter(|_| !exchange.is_grpc());
    let status = chosen_status.unwrap_or_else(|| error.code().http_status());
    exchange.record_error(&error, status);
    let error = exchange.redact(error);
    if exchange.is_grpc() { grpc::response(error) } else { error.to_response_with(status) }
}

/// The response that reports the error, with the rest of the handler's head.
fn with_head(mut head: Parts, own: Response<Bytes>) -> Response<Bytes> {
    let (own, body) = own.into_parts();
    for name in BODY_HEADERS {
        head.headers.remove(name);
    }
    if head.headers.contains_key(grpc::STATUS) {
        grpc::remove_status(&mut head.headers);
        head.headers.extend(own.headers);
    }
    head.status = own.status;
    head.extensions.extend(own.extensions);
    Response::from_parts(head, body)
}

fn respond<R: Body<Data = Bytes>>(mut exchange: Exchange, response: Response<Bytes>) -> Response<ResponseBody<R>> {
    let response = exchange.pass_head(response);
    let has_body = exchange.head_sent(&response);
    response.map(|bytes| ResponseBody::full(bytes, exchange, has_body))
}

impl<F, R, E> fmt::Debug for ResponseFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
