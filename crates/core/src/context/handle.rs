//! The handle that cancels a context.

use std::fmt;
use std::ops::Deref;

use super::{Cause, Context};

/// Cancels its context, also when it is dropped; made by [`Context::with_cancel`].
///
/// If it is dropped without a call of `cancel`, the cause is [`Cause::HandleDropped`].
///
/// It derefs to the [`Context`], so `&handle` can be passed as a `&Context`.
///
/// # Examples
/// ```
/// use throughline_core::{Cause, Context};
///
/// let request = Context::background().with_cancel();
/// let query = request.context().clone();
/// drop(request);
/// assert!(matches!(query.cause(), Some(Cause::HandleDropped)));
/// ```
#[must_use = "the context is cancelled when its handle is dropped"]
pub struct CancelHandle {
    /// The background once the handle is disarmed.
    ctx: Context,
}

impl CancelHandle {
    #[inline]
    pub(super) fn new(ctx: Context) -> Self {
        CancelHandle { ctx }
    }

    /// Returns the context that this handle cancels.
    ///
    /// ```
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().with_cancel();
    /// assert!(!request.context().is_done());
    /// ```
    #[inline]
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Cancels the context with [`Cause::Canceled`].
    ///
    /// ```
    /// use throughline_core::{Context, ContextError};
    ///
    /// let request = Context::background().with_cancel();
    /// request.cancel();
    /// assert_eq!(request.check(), Err(ContextError::Canceled));
    /// ```
    pub fn cancel(&self) {
        self.cancel_with(Cause::Canceled);
    }

    /// Cancels the context and all contexts derived from it, with a cause.
    ///
    /// A context that is already done keeps its error and cause.
    ///
    /// When it returns, all of these contexts are done. That holds even if another thread cancels
    /// at the same time, and for contexts that are derived meanwhile. While it runs, some of them
    /// may be done and others not yet.
    ///
    /// It wakes the waiters. It does not wait for their work to stop. It may be called from any
    /// thread, and from a task that it has woken. If a waker panics, the panic does not reach the
    /// caller, and the other waiters are still woken.
    ///
    /// ```
    /// use throughline_core::{Cause, Context};
    ///
    /// let request = Context::background().with_cancel();
    /// request.cancel_with(std::io::Error::other("no space left"));
    /// assert!(matches!(request.cause(), Some(Cause::Error(_))));
    /// ```
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        if let Some(node) = &self.ctx.0 {
            node.cancel(cause.into());
        }
    }

    /// Gives up the handle without cancelling: the context lives until its parent is done.
    ///
    /// ```
    /// use throughline_core::Context;
    ///
    /// let ctx = Context::background().with_cancel().disarm();
    /// assert!(!ctx.is_done());
    /// ```
    pub fn disarm(mut self) -> Context {
        std::mem::take(&mut self.ctx)
    }
}

impl Deref for CancelHandle {
    type Target = Context;

    #[inline]
    fn deref(&self) -> &Context {
        &self.ctx
    }
}

impl Drop for CancelHandle {
    #[inline]
    fn drop(&mut self) {
        // If this is the only reference to the context, there is no waiter to wake.
        if self.ctx.0.as_ref().is_some_and(|node| !node.is_sole() && !node.is_latched()) {
            self.cancel_with(Cause::HandleDropped);
        }
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ctx.fmt(f)
    }
}
