//! Running a future until its context is done.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;

use super::tree::{Holder, Wait};
use super::{Context, ContextError};

impl Context {
    /// Runs `work` until it is ready or the context is done.
    ///
    /// Returns `Ok` with the output, or the error of the context.
    ///
    /// When each thing happens:
    /// - The work is polled first, so a result that is ready exactly at the deadline wins.
    /// - Under a context that is known to be done, the work is never polled. A context is known to
    ///   be done if it was cancelled, was done from the start, or was observed after its deadline.
    /// - The clock is not read before the first poll. So if the deadline has passed but was not
    ///   observed, the work may be polled once. [`spawn`](Self::spawn) and [`Group`](super::Group)
    ///   do read the clock first.
    /// - The work is dropped with this future and not before. After an error it is not polled
    ///   again.
    ///
    /// A loop that calls `run` with work that is always ready, such as rows from a buffer, ends
    /// within a few milliseconds after the deadline. After a few such calls the context sets an
    /// alarm of its own. Such a loop does not yield to other tasks; `tokio::task::yield_now` does.
    ///
    /// This context does not become the ambient one: [`scope`](Self::scope) does that.
    ///
    /// # Cancellation safety
    /// That of `work`.
    ///
    /// # Panics
    /// When polled after it was ready, if `work` panics then.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::{Context, ContextError};
    ///
    /// let request = Context::background().with_cancel();
    /// assert_eq!(request.run(async { 7 }).await, Ok(7));
    /// request.cancel();
    /// assert_eq!(request.run(async { 7 }).await, Err(ContextError::Canceled));
    /// # }
    /// ```
    #[inline]
    pub fn run<F: Future>(&self, work: F) -> Run<'_, F> {
        Run { work, wait: Wait::new(self) }
    }
}

pin_project! {
    /// A future that ends with its context; made by [`Context::run`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Run<'a, F> {
        #[pin]
        work: F,
        #[pin]
        wait: Wait<&'a Context>,
    }
}

impl<F: Future> Future for Run<'_, F> {
    type Output = Result<F::Output, ContextError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.project();
        poll_until_done(this.work, this.wait, cx, false)
    }
}

/// Polls `work` until it is ready or the context of `wait` is done.
///
/// With `reads_clock`, the clock is read before the first poll.
#[inline]
pub(super) fn poll_until_done<F: Future, C: Holder>(
    work: Pin<&mut F>,
    wait: Pin<&mut Wait<C>>,
    cx: &mut TaskContext<'_>,
    reads_clock: bool,
) -> Poll<Result<F::Output, ContextError>> {
    let was_waiting = wait.is_waiting(cx);
    let is_known_done = if was_waiting { wait.is_known_done() } else { reads_clock || wait.may_be_done() };
    if is_known_done && let Some(error) = wait.context().err() {
        return Poll::Ready(Err(error));
    }
    match work.poll(cx) {
        Poll::Ready(output) => {
            if !was_waiting {
                wait.ready_at_once();
            }
            Poll::Ready(Ok(output))
        }
        Poll::Pending if was_waiting && !wait.is_alarmed() => Poll::Pending,
        Poll::Pending => wait.register(cx).map(Err),
    }
}

impl<F> fmt::Debug for Run<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Run").field(self.wait.context()).finish()
    }
}
