use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use throughline_core::{Context, DoneOwned};

use super::exchange::Exchange;
use super::stall::Stall;
use super::unwind::OnUnwind;

pin_project! {
    /// The body of a response. The request [ends](super#a-request-ends) with it.
    ///
    /// The context is ambient while the body is polled.
    ///
    /// If the request's deadline passes, or its context is cancelled, before the last frame:
    /// - A gRPC stream ends with the status in trailers.
    /// - Any other body ends with an error.
    pub struct ResponseBody<R> {
        #[pin]
        kind: Kind<R>,
        #[pin]
        done: DoneOwned,
        ctx: Context,
        // `None`: frames have no limit.
        stall: Option<Stall>,
        // The last value of the inner body: `drop` cannot call it.
        is_end_stream: bool,
        // The bytes of data that are still to come, if known.
        remaining: Option<u64>,
        // No frame has been taken yet.
        is_first_frame: bool,
        // `false`: no part of the body goes on the wire.
        has_body: bool,
        // `None` in a body that an outer layer has made for a response of its own.
        exchange: Option<Exchange>,
    }

    impl<R> PinnedDrop for ResponseBody<R> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            let Some(exchange) = this.exchange else { return };
            // A body with nothing (more) to send is dropped unpolled. Over HTTP/1 so is a body that
            // has given all of its length.
            if *this.is_end_stream || !*this.has_body || *this.remaining == Some(0) {
                exchange.finish();
            } else {
                // Before the body is dropped, so that code that ends with it sees the cause.
                exchange.interrupt();
            }
        }
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<R> {
        Handler { #[pin] body: R },
        Full { bytes: Option<Bytes> },
    }
}

impl<R: Body<Data = Bytes>> ResponseBody<R> {
    /// `length` is the `Content-Length` of the response.
    pub(super) fn new(body: R, exchange: Exchange, has_body: bool, length: Option<u64>) -> Self {
        Self::of(Kind::Handler { body }, exchange, has_body, length)
    }

    pub(super) fn full(bytes: Bytes, exchange: Exchange, has_body: bool) -> Self {
        Self::of(Kind::Full { bytes: Some(bytes) }, exchange, has_body, None)
    }

    fn of(kind: Kind<R>, exchange: Exchange, has_body: bool, length: Option<u64>) -> Self {
        let ctx = exchange.context().clone();
        let remaining = length.or_else(|| kind.size_hint().exact());
        let is_end_stream = kind.is_end_stream();
        let stall = exchange.stall().map(Stall::new);
        let (done, exchange) = (ctx.done_owned(), Some(exchange));
        ResponseBody { kind, done, ctx, stall, is_end_stream, remaining, is_first_frame: true, has_body, exchange }
    }
}

/// The empty body of a response that an outer layer makes itself.
///
/// It belongs to no request. `tower-http`'s timeout layer makes such responses.
impl<R> Default for ResponseBody<R> {
    fn default() -> Self {
        let ctx = Context::background();
        ResponseBody {
            kind: Kind::Full { bytes: None },
            done: ctx.done_owned(),
            ctx,
            stall: None,
            is_end_stream: true,
            remaining: Some(0),
            is_first_frame: true,
            has_body: false,
            exchange: None,
        }
    }
}

impl<R: Body<Data = Bytes>> Kind<R> {
    fn is_end_stream(&self) -> bool {
        match self {
            Kind::Handler { body } => body.is_end_stream(),
            Kind::Full { bytes } => bytes.as_ref().is_none_or(Bytes::is_empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Kind::Handler { body } => body.size_hint(),
            Kind::Full { bytes } => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}

impl<R> Body for ResponseBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut this = self.project();
        if this.exchange.is_none() {
            return Poll::Ready(None);
        }
        let mut on_unwind = OnUnwind::new(this.exchange);
        let polled = match this.kind.as_mut().project() {
            KindProjection::Handler { body } => {
                on_unwind.catch(|| this.ctx.enter(|| body.poll_frame(cx)).map_err(Into::into))
            }
            KindProjection::Full { bytes } => {
                Ok(Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|b| Ok(Frame::data(b)))))
            }
        };
        let exchange = on_unwind.get();
        let mut polled = match polled {
            Ok(polled) => polled,
            Err(panicked) => {
                let trailers = exchange.trailers_of(panicked);
                this.kind.set(Kind::Full { bytes: None });
                *this.is_end_stream = true;
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
        };
        *this.is_end_stream = this.kind.as_ref().get_ref().is_end_stream();
        let remaining_before = *this.remaining;
        if let Poll::Ready(Some(Ok(frame))) = &mut polled {
            if let Some(trailers) = frame.trailers_mut() {
                exchange.record_grpc_trailers(trailers);
                exchange.redact_grpc(trailers);
            }
            let taken = frame.data_ref().map_or(0, |data| data.len() as u64);
            *this.remaining = remaining_before.map(|remaining| remaining.saturating_sub(taken));
            if let Some(stall) = this.stall {
                stall.frame();
            }
        }
        // The last byte alone does not end the body: trailers may follow.
        let is_last_data = *this.remaining == Some(0) && remaining_before != Some(0);
        let is_over = match &polled {
            Poll::Pending if !exchange.is_live() => false,
            Poll::Pending => has_stalled(this.stall, exchange, cx) | this.done.poll(cx).is_ready(),
            Poll::Ready(None) => {
                exchange.finish();
                false
            }
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() || *this.is_end_stream => {
                exchange.finish();
                false
            }
            // A body that is always ready never waits. Data that was ready at the deadline is
            // passed on.
            Poll::Ready(Some(Ok(_))) if std::mem::take(this.is_first_frame) || is_last_data => false,
            Poll::Ready(Some(Ok(_))) => exchange.is_live() && this.ctx.is_done(),
            // The body may have ended by itself because the context is done.
            Poll::Ready(Some(Err(_))) if exchange.is_grpc() && exchange.is_live() && this.ctx.is_done() => true,
            Poll::Ready(Some(Err(e))) => {
                exchange.body_failed(&**e);
                false
            }
        };
        if !is_over || (exchange.is_ended_by_outer() && !exchange.is_stalled()) {
            return polled;
        }
        if !exchange.is_grpc() {
            return Poll::Ready(Some(Err(exchange.error_of_done_context().into())));
        }
        // Without trailers the stream would be reset, and the client would not see the reason.
        let trailers = exchange.trailers_of_done_context();
        this.kind.set(Kind::Full { bytes: None });
        *this.is_end_stream = true;
        exchange.finish();
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.kind.size_hint()
    }
}

fn has_stalled(stall: &mut Option<Stall>, exchange: &mut Exchange, cx: &mut TaskContext<'_>) -> bool {
    let is_over = stall.as_mut().is_some_and(|stall| stall.poll(cx).is_ready());
    if is_over {
        exchange.stalled();
    }
    is_over
}

impl<R> fmt::Debug for ResponseBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}
