//! What a context answers.

use std::time::{Duration, Instant};

use super::tree::Ref;
use super::{Cause, Context, ContextError, Key, clock};

impl Context {
    /// The value under `key`: the nearest one above, or `None`. The cost does not depend on how far above it is.
    ///
    /// ```
    /// use throughline_core::{Context, Key};
    ///
    /// static USER: Key<u64> = Key::new("user");
    /// assert_eq!(Context::background().value(&USER), None);
    /// ```
    #[inline]
    pub fn value<T: Send + Sync + 'static>(&self, key: &'static Key<T>) -> Option<&T> {
        self.0.as_ref()?.value(key)
    }

    /// When it will be done at the latest; `None`: no limit. It is answered as well after it is done.
    ///
    /// ```
    /// use std::time::Instant;
    /// use throughline_core::Context;
    ///
    /// let at = Instant::now();
    /// assert_eq!(Context::background().with_deadline(at).deadline(), Some(at));
    /// ```
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.as_ref().and_then(Ref::deadline)
    }

    /// The time until [`deadline`](Self::deadline): zero once that has passed or the context is done.
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::Context;
    ///
    /// let ctx = Context::background().with_timeout(Duration::from_secs(60));
    /// assert!(ctx.remaining().is_some_and(|left| left > Duration::from_secs(59)));
    /// assert_eq!(Context::background().remaining(), None);
    /// ```
    pub fn remaining(&self) -> Option<Duration> {
        let ctx = self.0.as_ref()?;
        let deadline = ctx.deadline()?;
        let now = clock::now();
        if ctx.error_at(now).is_some() {
            return Some(Duration::ZERO);
        }
        Some(deadline.saturating_duration_since(now))
    }

    /// `None` while the context is live; from when it is done always the same error.
    ///
    /// It consults the clock, so it is never `None` after the deadline, whether or not a timer has run. It wakes nobody and never waits.
    /// When it has answered with an error, every [`done`](Self::done) is ready on its next poll.
    ///
    /// ```
    /// use throughline_core::{Context, ContextError};
    ///
    /// let request = Context::background().with_cancel();
    /// assert_eq!(request.err(), None);
    /// request.cancel();
    /// assert_eq!(request.err(), Some(ContextError::Canceled));
    /// ```
    #[inline]
    pub fn err(&self) -> Option<ContextError> {
        self.0.as_ref()?.error()
    }

    /// Whether [`err`](Self::err) is an error.
    ///
    /// ```
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().with_cancel();
    /// request.cancel();
    /// assert!(request.is_done());
    /// ```
    #[inline]
    pub fn is_done(&self) -> bool {
        self.err().is_some()
    }

    /// [`err`](Self::err) as a `Result`, to leave loops with `?`.
    ///
    /// ```
    /// use throughline_core::{Context, ContextError};
    ///
    /// fn sum(ctx: &Context, rows: &[u64]) -> Result<u64, ContextError> {
    ///     let mut sum = 0;
    ///     for row in rows {
    ///         ctx.check()?;
    ///         sum += row;
    ///     }
    ///     Ok(sum)
    /// }
    /// assert_eq!(sum(&Context::background(), &[1, 2]), Ok(3));
    /// ```
    #[inline]
    pub fn check(&self) -> Result<(), ContextError> {
        self.err().map_or(Ok(()), Err)
    }

    /// Why the context is done, and `None` while it is live: the cause that the first cancellation gave, or that was attached to the
    /// deadline that fired. Without one it is the error itself.
    ///
    /// The earliest event counts, also if nobody looked in between; of a deadline and a cancellation at one instant it is the deadline. A
    /// child that was cancelled first keeps its own cause.
    ///
    /// ```
    /// use throughline_core::{Cause, Context};
    ///
    /// let request = Context::background().with_cancel();
    /// request.cancel_with(Cause::Shutdown);
    /// request.cancel_with(Cause::ClientDisconnected);
    /// assert!(matches!(request.cause(), Some(Cause::Shutdown)));
    /// ```
    pub fn cause(&self) -> Option<Cause> {
        self.0.as_ref()?.cause()
    }

    /// Whether anything above can end it.
    pub(super) fn can_be_done(&self) -> bool {
        self.0.as_ref().is_some_and(Ref::can_be_done)
    }
}
