//! What a context answers when asked whether it is done.

use std::error::Error;
use std::{fmt, io};

/// Why a context is done, as far as code that has to stop needs to know. *Who* ended it and what for is the
/// [`Cause`](super::Cause).
///
/// It never changes for a context once it has been seen.
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
    /// It was cancelled.
    Canceled,
    /// Its deadline passed first.
    DeadlineExceeded,
}

impl ContextError {
    /// Whether time ran out.
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

/// [`TimedOut`](io::ErrorKind::TimedOut) or [`Other`](io::ErrorKind::Other), with the `ContextError` as the inner error. Never
/// `Interrupted`, which `std::io` would retry for ever.
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
