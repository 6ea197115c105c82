//! Work that ends with its context.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;

use super::tree::Wait;
use super::{Context, ContextError};

impl Context {
    /// Runs `work` until it is ready or the context is done: `Ok` with its output, or the error.
    ///
    /// The work is polled first, so a result that is ready at the very deadline wins. A context that is known to be done (cancelled, or
    /// asked after its deadline) never polls the work. No clock is read before the first poll, so a deadline that passed unseen may let
    /// the work be polled once.
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
        let was_waiting = this.wait.is_waiting(cx);
        let is_known_done = if was_waiting { this.wait.is_known_over() } else { this.wait.context().is_flagged() };
        if is_known_done && let Some(error) = this.wait.context().err() {
            return Poll::Ready(Err(error));
        }
        match this.work.poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if was_waiting && !this.wait.is_alarmed() => Poll::Pending,
            Poll::Pending => this.wait.register(cx).map(Err),
        }
    }
}

impl<F> fmt::Debug for Run<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Run").field(self.wait.context()).finish()
    }
}
