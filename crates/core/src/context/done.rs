//! Waiting for a context to be done.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;

use super::Context;
use super::tree::Wait;

impl Context {
    /// A future that is ready once the context is done. [`err`](Self::err) and [`cause`](Self::cause) then say why.
    ///
    /// Making it allocates nothing and takes no lock. On a context that can never be done it is pending for ever, at no cost. It can be
    /// polled again after it was ready, and is ready again.
    ///
    /// # Cancellation safety
    /// It may be dropped at any time and made anew: nothing is lost, and no trace of it stays.
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

    /// [`done`](Self::done) for tasks and structs that outlive the borrow: it has a clone of the context.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().with_cancel();
    /// let waiting = tokio::spawn(request.done_owned());
    /// request.cancel();
    /// waiting.await.expect("it did not panic");
    /// # }
    /// ```
    #[inline]
    pub fn done_owned(&self) -> DoneOwned {
        DoneOwned { wait: Wait::new(self.clone()) }
    }
}

pin_project! {
    /// Ready once a context is done: made by [`Context::done`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Done<'a> {
        #[pin]
        wait: Wait<&'a Context>,
    }
}

pin_project! {
    /// Ready once a context is done: made by [`Context::done_owned`].
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
