//! The right to cancel a context.

use std::fmt;
use std::ops::Deref;

use super::{Cause, Context};

/// A context that can be cancelled, and is when this handle is dropped: made by [`Context::with_cancel`].
///
/// Dropped without a call of `cancel`, the handle cancels with [`Cause::HandleDropped`].
///
/// It derefs to the [`Context`], so `&handle` goes where `&Context` is asked for.
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
    /// The background once it is disarmed.
    ctx: Context,
}

impl CancelHandle {
    #[inline]
    pub(super) fn new(ctx: Context) -> Self {
        CancelHandle { ctx }
    }

    /// The context that it cancels.
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

    /// [`cancel_with`](Self::cancel_with) [`Cause::Canceled`].
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

    /// Cancels the context and all that are derived from it. A context that is done already keeps its error and cause.
    ///
    /// When it returns, each of them reports done, also if another thread had begun to cancel, and so does what is derived meanwhile; in
    /// between, some do and some do not. It wakes those who wait, and does not wait for their work to stop. It may be called from any thread, and from a task that it
    /// has woken. A waker that panics stops nothing and reaches nobody.
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

    /// Gives up the right to cancel: the context goes on until its parent is done.
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
        // Where nobody else has the context there is nobody to tell.
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
