//! The error of a context that is done.

use std::error::Error;
use std::{fmt, io};

/// Whether a context was cancelled or its deadline passed.
///
/// It is what code that stops returns. *Who* ended the context, and why, is the
/// [`Cause`](super::Cause).
///
/// Once a context has returned an error, it always returns the same one.
///
/// It is `Copy` and holds no cause. So `?` loses the cause, unless the `From<ContextError>` of your
/// error type reads it from the ambient context, [`Context::current`](super::Context::current). A
/// function with a context as its argument can read the cause there:
///
/// ```
/// use throughline_core::{Cause, Context};
///
/// fn step(ctx: &Context) -> Result<(), String> {
///     ctx.check().map_err(|error| match ctx.cause() {
///         Some(cause) => format!("{error}: {cause}"),
///         None => error.to_string(),
///     })
/// }
///
/// let request = Context::background().with_cancel();
/// request.cancel_with(Cause::ClientDisconnected);
/// assert_eq!(step(&request), Err("context canceled: client disconnected".into()));
/// ```
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline_core::{Context, ContextError};
///
/// let ctx = Context::background().with_timeout(Duration::ZERO);
/// assert_eq!(ctx.err(), Some(ContextError::DeadlineExceeded));
/// assert!(ContextError::DeadlineExceeded.is_timeout() && !ContextError::Canceled.is_timeout());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextError {
    /// The context was cancelled.
    Canceled,
    /// The deadline passed first.
    DeadlineExceeded,
}

impl ContextError {
    /// Whether the deadline passed.
    pub const fn is_timeout(self) -> bool {
        matches!(self, ContextError::DeadlineExceeded)
    }
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ContextError::Canceled => "context canceled",
            ContextError::DeadlineExceeded => "context deadline exceeded",
        })
    }
}

impl Error for ContextError {}

/// Converts to [`TimedOut`](io::ErrorKind::TimedOut) or [`Other`](io::ErrorKind::Other).
///
/// The `ContextError` is the inner error. The kind is never `Interrupted`, which `std::io` would
/// retry for ever.
///
/// ```
/// use std::io;
/// use throughline_core::ContextError;
///
/// assert_eq!(io::Error::from(ContextError::DeadlineExceeded).kind(), io::ErrorKind::TimedOut);
/// assert_eq!(io::Error::from(ContextError::Canceled).kind(), io::ErrorKind::Other);
/// ```
impl From<ContextError> for io::Error {
    fn from(error: ContextError) -> Self {
        let kind = if error.is_timeout() { io::ErrorKind::TimedOut } else { io::ErrorKind::Other };
        io::Error::new(kind, error)
    }
}
