//! Work that ends with its context.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;

use super::tree::{Holder, Wait};
use super::{Context, ContextError};

impl Context {
    /// Runs `work` until it is ready or the context is done: `Ok` with its output, or the error.
    ///
    /// The work is polled first, so a result that is ready at the very deadline wins. A context that is known to be done (cancelled, done
    /// at birth, or asked after its deadline) never polls the work. No clock is read before the first poll, so a deadline that passed
    /// unseen may let the work be polled once. [`spawn`](Self::spawn) and [`Group`](super::Group) do read the clock first.
    ///
    /// A loop of calls whose work is always ready, as rows from a buffer are, ends within a few milliseconds of the deadline: after a few
    /// such calls the context has an alarm of its own. Such a loop gives way to no other task; `tokio::task::yield_now` does.
    ///
    /// The work is dropped with this future, and not before: on an error it has been polled for the last time. It does not become
    /// part of the context: [`scope`](Self::scope) makes this context its ambient one.
    ///
    /// # Cancellation safety
    /// That of `work`.
    ///
    /// # Panics
    /// When polled after it was ready, if `work` does.
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
    /// Work that ends with its context: made by [`Context::run`].
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

/// Polls `work` until it is ready or the context of `wait` is done. `reads_clock`: the clock is read before the first poll.
#[inline]
pub(super) fn poll_until_done<F: Future, C: Holder>(
    work: Pin<&mut F>,
    wait: Pin<&mut Wait<C>>,
    cx: &mut TaskContext<'_>,
    reads_clock: bool,
) -> Poll<Result<F::Output, ContextError>> {
    let was_waiting = wait.is_waiting(cx);
    let is_known_done = if was_waiting { wait.is_known_over() } else { reads_clock || wait.may_be_over() };
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
