//! Reading a context: value, deadline, error and cause.

use std::time::{Duration, Instant};

use super::tree::{Ref, WireValue};
use super::{Cause, Context, ContextError, Key, clock};

impl Context {
    /// Returns the nearest value under `key`, or `None`.
    ///
    /// The cost does not depend on how far up the value was set.
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

    /// Returns the deadline, or `None` if there is none.
    ///
    /// It returns the same after the context is done.
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

    /// Returns the time until the [`deadline`](Self::deadline), or `None` if there is none.
    ///
    /// It is zero once the deadline has passed or the context is done.
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

    /// Returns the error of a done context, or `None` while it is live.
    ///
    /// The error never changes. This method reads the clock, so it never returns `None` after the
    /// deadline, even if no timer has fired. It wakes no waiter and never waits. After it has
    /// returned an error, every [`done`](Self::done) is ready on its next poll.
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

    /// Whether the context is done: [`err`](Self::err) returns an error.
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

    /// Returns [`err`](Self::err) as a `Result`, so that `?` leaves a loop.
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

    /// Returns why the context is done, or `None` while it is live.
    ///
    /// It is the cause given by the first cancellation, or the cause attached to the deadline that
    /// passed. Without either, it is the variant for the error.
    ///
    /// The earliest event counts, even if the context was not observed in between. If a deadline
    /// and a cancellation come at the same instant, the deadline counts. A child that was cancelled
    /// first keeps its own cause.
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

    /// Whether it has a deadline or can be cancelled, itself or through an ancestor.
    pub(super) fn can_be_done(&self) -> bool {
        self.0.as_ref().is_some_and(Ref::can_be_done)
    }

    /// The values in scope whose keys are sent to other services.
    pub(crate) fn wire_values(&self) -> impl Iterator<Item = WireValue<'_>> {
        self.0.iter().flat_map(Ref::wire_values)
    }

    /// The context on which the value under `key` was set: this one or an ancestor.
    pub(crate) fn origin<T: Send + Sync + 'static>(&self, key: &'static Key<T>) -> Option<Context> {
        self.0.as_ref()?.value_node(key).map(|node| Context(Some(node)))
    }
}
