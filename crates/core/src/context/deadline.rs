//! Deriving a context with a deadline.

use std::time::{Duration, Instant};

use super::tree::Ref;
use super::{Cause, Context, clock};

impl Context {
    /// Derives a child that is done at `at`, or earlier with this context.
    ///
    /// A deadline in the past gives a child that is done from the start, without a timer.
    /// [`run`](Self::run), [`spawn`](Self::spawn) and a [`Group`](super::Group) never poll work
    /// under it. If this context is already done, the child has its error and cause.
    ///
    /// There is nothing to release. No timer is set until a caller waits.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use throughline_core::{Context, ContextError};
    ///
    /// let now = Instant::now();
    /// let ctx = Context::background().with_deadline(now + Duration::from_secs(60));
    /// assert_eq!(ctx.with_deadline(now + Duration::from_secs(90)).deadline(), ctx.deadline());
    /// assert_eq!(ctx.with_deadline(now).err(), Some(ContextError::DeadlineExceeded));
    /// ```
    #[inline]
    pub fn with_deadline(&self, at: Instant) -> Context {
        self.deadline_child(None, Some(at))
    }

    /// Derives a child that is done after `timeout`, or earlier with this context.
    ///
    /// It is [`with_deadline`](Self::with_deadline) relative to now. A timeout longer than an
    /// `Instant` can express sets no deadline.
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::Context;
    ///
    /// let ctx = Context::background().with_timeout(Duration::from_secs(1));
    /// assert!(ctx.remaining() <= Some(Duration::from_secs(1)));
    /// assert_eq!(Context::background().with_timeout(Duration::MAX).deadline(), None);
    /// ```
    #[inline]
    pub fn with_timeout(&self, timeout: Duration) -> Context {
        if timeout.is_zero() {
            return self.expired_child(None);
        }
        let now = clock::now();
        self.deadline_child(Some(now), now.checked_add(timeout))
    }

    /// As [`with_deadline`](Self::with_deadline), with the cause to report when it passes.
    ///
    /// The cause is not used when an earlier deadline of a parent or a cancellation ends the
    /// context.
    ///
    /// ```
    /// use std::time::Instant;
    /// use throughline_core::{Cause, Context, ContextError};
    ///
    /// let closing = Context::background().with_deadline_cause(Instant::now(), Cause::Shutdown);
    /// assert_eq!(closing.err(), Some(ContextError::DeadlineExceeded));
    /// assert!(matches!(closing.cause(), Some(Cause::Shutdown)));
    /// ```
    pub fn with_deadline_cause(&self, at: Instant, cause: impl Into<Cause>) -> Context {
        self.deadline_child_with_cause(None, Some(at), cause.into())
    }

    /// As [`with_timeout`](Self::with_timeout), with the cause to report when it passes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::{Cause, Context};
    ///
    /// let slow = std::io::Error::other("slow disk");
    /// let ctx = Context::background().with_timeout_cause(Duration::ZERO, slow);
    /// assert_eq!(ctx.cause().map(|cause| cause.to_string()).as_deref(), Some("slow disk"));
    /// ```
    pub fn with_timeout_cause(&self, timeout: Duration, cause: impl Into<Cause>) -> Context {
        if timeout.is_zero() {
            return self.expired_child(Some(cause.into()));
        }
        let now = clock::now();
        self.deadline_child_with_cause(Some(now), now.checked_add(timeout), cause.into())
    }

    /// Derives a child with the deadline `at`. `None` means that the timeout overflowed: no
    /// deadline.
    ///
    /// `now` is the time, if the caller has already read the clock.
    #[inline]
    fn deadline_child(&self, now: Option<Instant>, at: Option<Instant>) -> Context {
        match self.child_if_earlier(now, at) {
            Some(node) => Context(Some(node)),
            None => self.clone_as_child(),
        }
    }

    fn deadline_child_with_cause(&self, now: Option<Instant>, at: Option<Instant>, cause: Cause) -> Context {
        let Some(node) = self.child_if_earlier(now, at) else { return self.clone_as_child() };
        node.set_deadline_cause(cause);
        Context(Some(node))
    }

    /// A node with the deadline `at`, or `None` if no node is needed.
    ///
    /// No node is needed if `at` is `None`, or if the deadline of this context is not later.
    /// In the second case this context ends the child in time, with its own cause.
    #[inline]
    fn child_if_earlier(&self, now: Option<Instant>, at: Option<Instant>) -> Option<Ref> {
        let at = at.filter(|at| self.deadline().is_none_or(|current| *at < current))?;
        Some(Ref::with_deadline(self.0.as_ref(), at, now))
    }

    /// A child whose deadline is now, latched as done.
    #[cold]
    fn expired_child(&self, cause: Option<Cause>) -> Context {
        let now = clock::now();
        let ctx = match cause {
            Some(cause) => self.deadline_child_with_cause(Some(now), Some(now), cause),
            None => self.deadline_child(Some(now), Some(now)),
        };
        ctx.latch_at(now);
        ctx
    }

    /// A clone in place of a child with a later deadline.
    ///
    /// If the deadline of this context has passed, the child is done from the start.
    #[cold]
    fn clone_as_child(&self) -> Context {
        if self.deadline().is_some() {
            self.latch_at(clock::now());
        }
        self.clone()
    }

    /// Latches the error of this context as of `now`, if it is done.
    fn latch_at(&self, now: Instant) {
        if let Some(node) = &self.0 {
            node.error_at(now);
        }
    }
}
