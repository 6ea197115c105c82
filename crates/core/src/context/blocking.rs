//! Waiting for a context on a thread that runs no tasks.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::sync::thread::{self, Thread};
use super::tree::Wait;
use super::{Context, ContextError};

/// # Blocking
impl Context {
    /// Blocks the thread until the context is done, and returns its error.
    ///
    /// It is Go's `<-ctx.Done()` for plain threads, and needs no runtime. The thread is parked, and
    /// the cancellation or the deadline unparks it. It does not poll.
    ///
    /// A context that can never be done, such as [`background`](Self::background), blocks the
    /// thread for ever.
    ///
    /// # In async code
    /// Await [`done`](Self::done) there instead. This method blocks the thread of the runtime, so
    /// other tasks of that thread do not run in the meantime:
    /// - A deadline still ends the wait, since a thread of this library fires it. A deadline of a
    ///   paused clock does not: nothing moves that clock.
    /// - If one of those tasks has to cancel the context, neither ever continues.
    ///
    /// `spawn_blocking` and `block_in_place` of tokio are safe, as for any blocking code.
    ///
    /// # Panics
    /// If the context has a deadline and no thread can be started to fire it.
    ///
    /// # Examples
    /// ```
    /// use std::thread;
    /// use throughline_core::{Cause, Context, ContextError};
    ///
    /// let server = Context::background().with_cancel();
    /// let ctx = server.context().clone();
    /// let janitor = thread::spawn(move || ctx.wait_blocking());
    /// server.cancel_with(Cause::Shutdown);
    /// assert_eq!(janitor.join().expect("it does not panic"), ContextError::Canceled);
    /// ```
    pub fn wait_blocking(&self) -> ContextError {
        let (mut wait, waker) = (pin!(Wait::new(self)), unparks_this_thread());
        loop {
            match poll(wait.as_mut(), &waker) {
                Poll::Ready(error) => return error,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// As [`wait_blocking`](Self::wait_blocking), for at most `timeout`.
    ///
    /// Returns `None` if the context is still live after `timeout`, which is real time, also under
    /// a paused clock. With a timeout of zero it does not block.
    ///
    /// # Panics
    /// As `wait_blocking`.
    ///
    /// # Examples
    /// A thread that works every minute until the server stops:
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::{Context, ContextError};
    ///
    /// fn clean_up_every_minute(ctx: &Context) {
    ///     while ctx.wait_blocking_timeout(Duration::from_secs(60)).is_none() {
    ///         // Delete old files.
    ///     }
    /// }
    ///
    /// let server = Context::background().with_cancel();
    /// assert_eq!(server.wait_blocking_timeout(Duration::ZERO), None);
    /// server.cancel();
    /// clean_up_every_minute(&server);
    /// assert_eq!(server.wait_blocking_timeout(Duration::ZERO), Some(ContextError::Canceled));
    /// ```
    pub fn wait_blocking_timeout(&self, timeout: Duration) -> Option<ContextError> {
        let Some(end) = Instant::now().checked_add(timeout) else { return Some(self.wait_blocking()) };
        let (mut wait, waker) = (pin!(Wait::new(self)), unparks_this_thread());
        loop {
            if let Poll::Ready(error) = poll(wait.as_mut(), &waker) {
                return Some(error);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            // Not the `thread` of the models: loom has no `park_timeout`.
            std::thread::park_timeout(left);
        }
    }
}

/// Registers the thread before it parks.
///
/// An unpark in between makes the next park return at once.
fn poll(wait: Pin<&mut Wait<&Context>>, waker: &Waker) -> Poll<ContextError> {
    wait.poll(&mut TaskContext::from_waker(waker))
}

fn unparks_this_thread() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
