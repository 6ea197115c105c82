//! One taxonomy of errors, in the process and on the wire.
//!
//! An [`Error`] has:
//! - A [`Code`] and a message, for the caller.
//! - A source, for debugging. It never leaves the process.
//! - A path: the services that the error passed through. The first is the *origin*, where it
//!   started.
//!
//! Terms:
//! - *Remote:* the error was received from another service.
//! - *Preserved:* the error keeps its code when this service passes it on.
//! - *Private message:* a message that untrusted clients must not see.

mod code;
mod convert;
mod crossing;
mod failure;
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub(crate) mod grpc;
mod problem;
mod public;
mod redact;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
mod reqwest;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use serde_json::{Map, Value};
use throughline_core::{Cause, Context, ContextError, error_message};

pub use code::{Code, ParseCodeError};
pub(crate) use problem::{MAX_DOCUMENT, is_problem_json};
use public::{Problem, remove_mark};

/// The header with the origin of a gRPC status that does not name it.
pub(crate) const ORIGIN: &str = "throughline-origin";
/// The most services in a path.
const MAX_PATH: usize = 16;
/// The most bytes of a service's name. The rest is cut off.
const MAX_NAME: usize = 256;

/// An error of a service, for its caller.
///
/// It is one pointer, and cheap to clone. Returned by an axum handler, it becomes a problem
/// document (RFC 9457) with the status of its code.
///
/// # Examples
/// ```
/// use throughline::{Code, Error};
///
/// fn parse(amount: &str) -> Result<u64, Error> {
///     amount.parse().map_err(|e| {
///         Error::wrap(Code::InvalidArgument, e).with_message("amount is not a number")
///     })
/// }
///
/// let error = parse("ten").unwrap_err();
/// assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "amount is not a number"));
/// assert_eq!(error.to_string(), "INVALID_ARGUMENT: amount is not a number");
/// assert_eq!(
///     format!("{error:#}"),
///     "INVALID_ARGUMENT: amount is not a number: invalid digit found in string",
/// );
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    message: Cow<'static, str>,
    /// Services the error passed through, origin first.
    path: Vec<String>,
    /// Received from another service.
    is_remote: bool,
    is_preserved: bool,
    /// The message is another service's, or an internal detail of this one.
    ///
    /// Untrusted clients must not see it.
    is_message_private: bool,
    retryable: Option<bool>,
    retry_after: Option<Duration>,
    details: Vec<Map<String, Value>>,
    problem: Option<Box<Problem>>,
    /// For an untrusted client.
    is_redacted: bool,
    received: Option<Value>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error with a message that the caller may see.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Error {
        Error(Arc::new(Inner {
            code,
            message: message.into(),
            path: Vec::new(),
            is_remote: false,
            is_preserved: false,
            is_message_private: false,
            retryable: None,
            retry_after: None,
            details: Vec::new(),
            problem: None,
            is_redacted: false,
            received: None,
            source: None,
        }))
    }

    /// Makes an error with a source, which stays in the process.
    ///
    /// The caller sees the code, and the message of [`with_message`](Self::with_message).
    pub fn wrap(code: Code, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::new(code, code.describe()).with_source(Arc::from(source.into()))
    }

    /// The error of a context that is done: `DEADLINE_EXCEEDED` or `CANCELLED`.
    ///
    /// - The message is that of the context's cause.
    /// - If the cause is an error of any type, it is the source.
    /// - If the cause is an [`Error`], as after the first failure in a [`Group`](crate::Group), the
    ///   result also has its message, origin and path.
    ///
    /// If the context is not done, the code is `UNKNOWN`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline::{Code, Context, Error};
    ///
    /// let ctx = Context::background().with_timeout(Duration::ZERO);
    /// assert_eq!(Error::from_context(&ctx).code(), Code::DeadlineExceeded);
    /// ```
    pub fn from_context(ctx: &Context) -> Error {
        let Some(error) = ctx.err() else { return Error::new(Code::Unknown, "the context is not done") };
        match ctx.cause() {
            Some(Cause::Error(source)) => {
                let error = match source.downcast_ref::<Error>() {
                    Some(cause) => Error::without_cause(error).described_by(cause),
                    None => Error::without_cause(error),
                };
                error.with_source(source)
            }
            Some(Cause::Canceled | Cause::DeadlineExceeded) | None => Error::without_cause(error),
            Some(cause) => Error::without_cause(error).with_message(cause.to_string()),
        }
    }

    fn without_cause(error: ContextError) -> Error {
        let code = if error.is_timeout() { Code::DeadlineExceeded } else { Code::Cancelled };
        Error::new(code, code.describe())
    }

    /// Returns the kind of error.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Returns the message for the caller.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the service where the error started.
    ///
    /// `None`: this service, and the error has not left it yet.
    pub fn origin(&self) -> Option<&str> {
        self.path().next()
    }

    /// Returns the services that the error passed through, origin first; at most 16.
    pub fn path(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.path.iter().map(String::as_str)
    }

    /// Returns whether a retry may help. `None`: unknown, which does not mean no.
    ///
    /// Only what the service itself has said. Where it has said nothing, the code decides:
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let may_retry = |e: &Error| e.retryable().unwrap_or(e.code().is_retryable());
    /// let error = Error::new(Code::Unavailable, "restarting");
    /// assert_eq!((error.retryable(), may_retry(&error)), (None, true));
    /// assert!(!may_retry(&error.with_retryable(false)));
    /// ```
    pub fn retryable(&self) -> Option<bool> {
        self.0.retryable
    }

    /// Returns how long to wait before a retry.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns the details: objects for programs to read, each with an `@type`.
    pub fn details(&self) -> &[Map<String, Value>] {
        &self.0.details
    }

    /// Returns the rest of another service's response, as JSON: what no other method returns.
    ///
    /// It never leaves the process.
    ///
    /// - A problem document (RFC 9457): the other members, which are extensions of other libraries.
    /// - Another JSON body: its value. A text body: a string, cut off at 4 KiB.
    /// - A gRPC status of an external service: an object with its `message` and `details`. Of an
    ///   internal service: the `DebugInfo`.
    ///
    /// `None`: an error made in this process, a response of a service that uses this library, or a
    /// body that is larger than 64 KiB or was not read.
    ///
    /// ```
    /// use http::{HeaderMap, StatusCode, header};
    /// use throughline::{Code, Error};
    ///
    /// let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse()?)]);
    /// let body = br#"{"decline_code":"expired_card"}"#;
    /// let error = Error::from_response(StatusCode::PAYMENT_REQUIRED, &headers, body);
    /// let error = error.expect("a 402 is an error");
    /// assert_eq!(error.code(), Code::FailedPrecondition);
    /// assert_eq!(error.received().expect("the body is JSON")["decline_code"], "expired_card");
    /// # Ok::<(), header::InvalidHeaderValue>(())
    /// ```
    pub fn received(&self) -> Option<&Value> {
        self.0.received.as_ref()
    }

    /// Sets the message for the caller.
    #[must_use]
    pub fn with_message(self, message: impl Into<Cow<'static, str>>) -> Error {
        self.change(|inner| {
            inner.message = message.into();
            inner.is_message_private = false;
        })
    }

    /// Sets whether a retry may help.
    #[must_use]
    pub fn with_retryable(self, retryable: bool) -> Error {
        self.change(|inner| inner.retryable = Some(retryable))
    }

    /// Sets how long to wait before a retry: `Retry-After`, in whole seconds, rounded up.
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Error {
        self.change(|inner| inner.retry_after = Some(after))
    }

    /// Adds an object for programs to read. `type_url` becomes its `@type`.
    ///
    /// Internal services see it; an edge removes it. [`with_public_detail`] adds one for all
    /// clients. A float in it may arrive one unit in the last place away.
    ///
    /// [`with_public_detail`]: Self::with_public_detail
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let missing = [("field".to_owned(), "amount".into())].into_iter().collect();
    /// let error = Error::new(Code::InvalidArgument, "incomplete");
    /// let error = error.with_detail("example.com/Missing", missing);
    /// assert_eq!(error.details()[0]["@type"], "example.com/Missing");
    /// ```
    #[must_use]
    pub fn with_detail(self, type_url: &str, mut object: Map<String, Value>) -> Error {
        remove_mark(&mut object);
        object.insert("@type".into(), type_url.into());
        self.change(|inner| inner.details.push(object))
    }

    /// Finds the first `Error` among `error` and its sources.
    pub(crate) fn find_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
        std::iter::successors(Some(error), |&error| error.source()).find_map(|error| {
            // An `io::Error` does not return the error inside as its source.
            let inside = || error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref();
            error.downcast_ref().or_else(inside)
        })
    }

    /// Whether the error says no more than that `ctx` is done.
    pub(crate) fn only_reports_end_of(&self, ctx: &Context) -> bool {
        if !matches!(self.code(), Code::Cancelled | Code::DeadlineExceeded) || !ctx.is_done() {
            return false;
        }
        let end = Error::from_context(ctx);
        let has_its_message = self.message() == end.message();
        match (&self.0.source, &end.0.source) {
            (None, _) => has_its_message || self.message() == self.code().describe(),
            (Some(source), Some(cause)) => has_its_message && Arc::ptr_eq(source, cause),
            (Some(_), None) => false,
        }
    }

    /// Sets the source, which is shared.
    pub(crate) fn with_source(self, source: Arc<dyn StdError + Send + Sync>) -> Error {
        self.change(|inner| inner.source = Some(source))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Error {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Takes over the message, origin and path of `cause`.
    fn described_by(self, cause: &Error) -> Error {
        self.change(|inner| {
            inner.message = cause.0.message.clone();
            inner.is_message_private = cause.0.is_message_private || cause.code().is_internal_detail();
            inner.is_remote = cause.0.is_remote;
            inner.path = cause.0.path.clone();
        })
    }
}

/// The start of `text`, at most `limit` bytes.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The code, the message, and the origin if the error comes from another service.
///
/// - `{}` leaves out the source, which [`source`](StdError::source) returns. Code that prints a
///   chain of errors so prints it once.
/// - `{:#}` prints the whole chain in one line, as
///   [`error_message`](crate::error_message) does.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f.write_str(&error_message(self));
        }
        write!(f, "{}: {}", self.0.code, self.0.message)?;
        match self.origin().filter(|_| self.0.is_remote) {
            Some(origin) => write!(f, " (from {origin})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("Error");
        all.field("code", &self.0.code).field("message", &self.0.message);
        if !self.0.path.is_empty() {
            all.field("path", &self.0.path);
        }
        if let Some(source) = &self.0.source {
            all.field("source", source);
        }
        all.finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
