//! Why a context is done.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::ContextError;

/// Why a context was cancelled, or what its deadline stood for: the first cancellation's, and it never changes.
///
/// It is not an [`Error`](std::error::Error): code that stops returns a [`ContextError`](super::ContextError), and whoever wants to
/// know the reason asks [`Context::cause`](super::Context::cause). As an attribute of a span it is the variant's
/// [`name`](Cause::name).
///
/// # Examples
/// Any error is a cause, and comes back out as the same one:
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
    /// It was cancelled without a reason.
    Canceled,
    /// Its deadline passed.
    DeadlineExceeded,
    /// The client of the request hung up before it had the whole answer.
    ClientDisconnected,
    /// The request was dropped by a layer between us and the connection, and we can't tell why.
    Abandoned,
    /// The request's answer has been sent: what it started and did not detach ends with it.
    RequestFinished,
    /// The process is shutting down.
    Shutdown,
    /// A task or handler it depended on panicked.
    Panicked,
    /// Its [`CancelHandle`](super::CancelHandle) was dropped without a call of `cancel`.
    HandleDropped,
    /// This error.
    Error(Arc<dyn Error + Send + Sync>),
}

impl Cause {
    /// The variant's name in snake case, as in the attribute `throughline.cancel.cause`.
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
}

/// In words, or the error's own.
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

/// The error as [`Cause::Error`]. A [`ContextError`] is the variant that it stands for: a deadline that ended one context and is passed
/// on as the error of another one is still a deadline.
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
    /// The variant that it stands for, where it was made by hand of a [`ContextError`].
    pub(super) fn normalized(self) -> Cause {
        match &self {
            Cause::Error(error) => from_context_error(&**error).unwrap_or(self),
            _ => self,
        }
    }
}

/// What a [`ContextError`] stands for as a cause, boxed or not.
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
