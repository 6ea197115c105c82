//! Waiting for a context to be done.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;

use super::Context;
use super::tree::Wait;

impl Context {
    /// Returns a future that is ready once the context is done.
    ///
    /// [`err`](Self::err) and [`cause`](Self::cause) then return why.
    ///
    /// Making it allocates nothing and takes no lock. If the context can never be done, the future
    /// is always pending and registers nothing. It may be polled again after it was ready, and is
    /// ready again.
    ///
    /// # Cancellation safety
    /// It may be dropped at any time and made again. Nothing is lost and nothing stays registered.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use std::time::Duration;
    /// use throughline_core::{Context, ContextError};
    ///
    /// let ctx = Context::background().with_timeout(Duration::from_secs(3));
    /// ctx.done().await;
    /// assert_eq!(ctx.err(), Some(ContextError::DeadlineExceeded));
    /// # }
    /// ```
    #[inline]
    pub fn done(&self) -> Done<'_> {
        Done { wait: Wait::new(self) }
    }

    /// As [`done`](Self::done), for tasks and structs that outlive the borrow.
    ///
    /// The future holds a clone of the context.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().with_cancel();
    /// let waiting = tokio::spawn(request.done_owned());
    /// request.cancel();
    /// waiting.await.expect("the task did not panic");
    /// # }
    /// ```
    #[inline]
    pub fn done_owned(&self) -> DoneOwned {
        DoneOwned { wait: Wait::new(self.clone()) }
    }
}

pin_project! {
    /// A future that is ready once a context is done; made by [`Context::done`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Done<'a> {
        #[pin]
        wait: Wait<&'a Context>,
    }
}

pin_project! {
    /// A future that is ready once a context is done; made by [`Context::done_owned`].
    #[must_use = "futures do nothing unless polled"]
    pub struct DoneOwned {
        #[pin]
        wait: Wait<Context>,
    }
}

impl Future for Done<'_> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.project().wait.poll(cx).map(drop)
    }
}

impl Future for DoneOwned {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.project().wait.poll(cx).map(drop)
    }
}

impl fmt::Debug for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Done").field(self.wait.context()).finish()
    }
}

impl fmt::Debug for DoneOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DoneOwned").field(self.wait.context()).finish()
    }
}
