//! Why a context is done.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::ContextError;

/// Why a context is done.
///
/// The first cancellation or deadline sets the cause, and it never changes.
///
/// It is not an [`Error`](std::error::Error). Code that stops returns a
/// [`ContextError`](super::ContextError). Code that needs the reason calls
/// [`Context::cause`](super::Context::cause). A span records the variant's [`name`](Cause::name) as
/// an attribute.
///
/// # Examples
/// Any error converts into a cause, which holds that same error:
/// ```
/// use throughline_core::{Cause, Context};
///
/// let request = Context::background().with_cancel();
/// request.cancel_with("9".parse::<bool>().unwrap_err());
/// let Some(Cause::Error(error)) = request.cause() else { panic!("it is an error") };
/// assert!(error.is::<std::str::ParseBoolError>());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The context was cancelled without a reason.
    Canceled,
    /// The deadline passed.
    DeadlineExceeded,
    /// The client disconnected before it had the whole response.
    ClientDisconnected,
    /// A layer between the service and the connection dropped the request, for an unknown reason.
    Abandoned,
    /// The response was sent. Work of the request that was not detached ends too.
    RequestFinished,
    /// The process is shutting down.
    Shutdown,
    /// A task or handler that the context depended on panicked.
    Panicked,
    /// The [`CancelHandle`](super::CancelHandle) was dropped without a call of `cancel`.
    HandleDropped,
    /// The context was cancelled with this error.
    Error(Arc<dyn Error + Send + Sync>),
}

impl Cause {
    /// Returns the variant's name in snake case, as in the attribute `throughline.cancel.cause`.
    ///
    /// ```
    /// use throughline_core::Cause;
    ///
    /// assert_eq!(Cause::ClientDisconnected.name(), "client_disconnected");
    /// ```
    pub const fn name(&self) -> &'static str {
        match self {
            Cause::Canceled => "canceled",
            Cause::DeadlineExceeded => "deadline_exceeded",
            Cause::ClientDisconnected => "client_disconnected",
            Cause::Abandoned => "abandoned",
            Cause::RequestFinished => "request_finished",
            Cause::Shutdown => "shutdown",
            Cause::Panicked => "panicked",
            Cause::HandleDropped => "handle_dropped",
            Cause::Error(_) => "error",
        }
    }

    /// Returns the error that the context was cancelled with, if it is a `T`.
    ///
    /// It looks at the error itself, not at its sources.
    ///
    /// ```
    /// use std::io;
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().with_cancel();
    /// request.cancel_with(io::Error::other("disk full"));
    /// let cause = request.cause().expect("it was cancelled");
    /// let error = cause.downcast_ref::<io::Error>().expect("it is that error");
    /// assert_eq!(error.to_string(), "disk full");
    /// assert!(cause.downcast_ref::<std::fmt::Error>().is_none());
    /// ```
    pub fn downcast_ref<T: Error + 'static>(&self) -> Option<&T> {
        if let Cause::Error(error) = self { error.downcast_ref() } else { None }
    }

    /// Whether the context was cancelled without a reason.
    pub const fn is_canceled(&self) -> bool {
        matches!(self, Cause::Canceled)
    }

    /// Whether a deadline without a cause of its own passed.
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::{Cause, Context};
    ///
    /// let ctx = Context::background().with_timeout(Duration::ZERO);
    /// assert!(ctx.cause().is_some_and(|cause| cause.is_timeout()));
    /// let ctx = Context::background().with_timeout_cause(Duration::ZERO, Cause::Shutdown);
    /// assert!(ctx.cause().is_some_and(|cause| cause.is_shutdown() && !cause.is_timeout()));
    /// ```
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Cause::DeadlineExceeded)
    }

    /// Whether the client disconnected before it had the whole response.
    pub const fn is_client_disconnected(&self) -> bool {
        matches!(self, Cause::ClientDisconnected)
    }

    /// Whether the request was dropped for an unknown reason.
    pub const fn is_abandoned(&self) -> bool {
        matches!(self, Cause::Abandoned)
    }

    /// Whether the response was sent.
    pub const fn is_request_finished(&self) -> bool {
        matches!(self, Cause::RequestFinished)
    }

    /// Whether the process is shutting down.
    pub const fn is_shutdown(&self) -> bool {
        matches!(self, Cause::Shutdown)
    }

    /// Whether a task or handler that the context depended on panicked.
    pub const fn is_panicked(&self) -> bool {
        matches!(self, Cause::Panicked)
    }

    /// Whether the handle was dropped without a call of `cancel`.
    pub const fn is_handle_dropped(&self) -> bool {
        matches!(self, Cause::HandleDropped)
    }
}

/// A short phrase, or the error's own message.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Canceled => "canceled",
            Cause::DeadlineExceeded => "deadline exceeded",
            Cause::ClientDisconnected => "client disconnected",
            Cause::Abandoned => "abandoned",
            Cause::RequestFinished => "request finished",
            Cause::Shutdown => "shutting down",
            Cause::Panicked => "panicked",
            Cause::HandleDropped => "cancel handle dropped",
            Cause::Error(error) => return error.fmt(f),
        })
    }
}

/// Wraps the error in [`Cause::Error`], except for a [`ContextError`].
///
/// A [`ContextError`] becomes the variant of the same name. So a deadline that ended one context is
/// still a deadline when its error cancels another context.
///
/// ```
/// use throughline_core::{Cause, ContextError};
///
/// assert!(matches!(ContextError::DeadlineExceeded.into(), Cause::DeadlineExceeded));
/// ```
impl<E: Error + Send + Sync + 'static> From<E> for Cause {
    fn from(error: E) -> Self {
        let any: &dyn Any = &error;
        match any.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
            Some(shared) => Cause::Error(Arc::clone(shared)).normalized(),
            None => from_context_error(&error).unwrap_or_else(|| Cause::Error(Arc::new(error))),
        }
    }
}

impl From<Box<Cause>> for Cause {
    fn from(cause: Box<Cause>) -> Self {
        cause.normalized()
    }
}

impl Cause {
    /// Replaces an `Error` that holds a [`ContextError`] by the variant of that name.
    pub(super) fn normalized(self) -> Cause {
        match &self {
            Cause::Error(error) => from_context_error(&**error).unwrap_or(self),
            _ => self,
        }
    }
}

/// The variant for a [`ContextError`], also one in a `Box` or `Arc`.
fn from_context_error(error: &(dyn Error + 'static)) -> Option<Cause> {
    let found = error
        .downcast_ref::<ContextError>()
        .or_else(|| error.downcast_ref::<Box<ContextError>>().map(|boxed| &**boxed))
        .or_else(|| error.downcast_ref::<Arc<ContextError>>().map(|shared| &**shared))?;
    Some(match found {
        ContextError::Canceled => Cause::Canceled,
        ContextError::DeadlineExceeded => Cause::DeadlineExceeded,
    })
}
