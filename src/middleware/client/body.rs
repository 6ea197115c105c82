use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use throughline_core::{Context, DoneOwned};

use super::call::Call;
use crate::error::Error;

pin_project! {
    /// The body of a response. Its call ends with it: see [the module](super).
    ///
    /// The body ends with an [`Error`] if the context is done before the last frame.
    pub struct CallBody<R> {
        // `None`: the response was not gRPC, so its body was dropped.
        #[pin]
        body: Option<R>,
        #[pin]
        done: DoneOwned,
        call: Call,
        // What the inner body returned last. `drop` cannot ask it: that needs `R: Body`.
        is_end_stream: bool,
        // No frame has been taken yet.
        is_first_frame: bool,
    }

    impl<R> PinnedDrop for CallBody<R> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // A reader does not poll a body that has no more frames. The call still completes.
            if *this.is_end_stream {
                let _recorded = this.call.body_ended();
            }
        }
    }
}

impl<R> CallBody<R> {
    pub(super) fn new(body: Option<R>, call: Call) -> Self
    where
        R: Body,
    {
        let (is_end_stream, done) = (is_end_stream(&body), call.context().done_owned());
        CallBody { body, done, call, is_end_stream, is_first_frame: true }
    }

    pub(super) fn context(&self) -> &Context {
        self.call.context()
    }

    pub(super) fn is_external(&self) -> bool {
        self.call.is_external()
    }

    /// The inner body and the call, for code that ends the call itself.
    pub(super) fn body_and_call(self: Pin<&mut Self>) -> (Option<Pin<&mut R>>, &mut Call) {
        let this = self.project();
        (this.body.as_pin_mut(), this.call)
    }
}

fn is_end_stream<R: Body>(body: &Option<R>) -> bool {
    body.as_ref().is_none_or(R::is_end_stream)
}

impl<R: Body> Body for CallBody<R>
where
    R::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = R::Data;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<R::Data>, Error>>> {
        let mut this = self.project();
        let polled = match this.body.as_mut().as_pin_mut() {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        };
        *this.is_end_stream = is_end_stream(&this.body);
        match polled {
            Poll::Ready(None) => Poll::Ready(this.call.body_ended().err().map(Err)),
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    this.call.record_trailers(trailers);
                }
                let is_first = std::mem::take(this.is_first_frame);
                if frame.is_trailers() || (*this.is_end_stream && !this.call.is_missing_status()) {
                    let _recorded = this.call.body_ended();
                } else if !is_first && this.call.is_live() && this.call.context().is_done() {
                    // A body that is always ready never gets to the poll of `done` below. The
                    // first frame passes: it may have been ready at the deadline.
                    return Poll::Ready(Some(Err(this.call.interrupted())));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => Poll::Ready(Some(Err(this.call.failed(e)))),
            Poll::Pending if this.call.is_live() => this.done.poll(cx).map(|()| Some(Err(this.call.interrupted()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), R::size_hint)
    }
}

impl<R> fmt::Debug for CallBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallBody").finish_non_exhaustive()
    }
}
