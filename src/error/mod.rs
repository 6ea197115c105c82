//! One taxonomy of errors, in the process and on the wire.
//!
//! An [`Error`] has a [`Code`] and a message for whoever is answered, a source for whoever debugs, which never leaves the process, and
//! the way it has come: the service where it began, and those it has crossed.

mod code;
mod failure;
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub(crate) mod grpc;
mod problem;
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
use throughline_core::{Cause, Context, ContextError};

pub use code::{Code, ParseCodeError};
pub(crate) use problem::{MAX_DOCUMENT, is_problem_json};

/// The header that names the service in which the error of a status of gRPC began, where the status itself does not.
pub(crate) const ORIGIN: &str = "throughline-origin";
/// Sources that are printed: a bound for chains that never end.
const MAX_SOURCES: usize = 16;
/// The most services that an error remembers having crossed.
const MAX_PATH: usize = 16;
/// The name of a service is cut off there.
const MAX_NAME: usize = 256;

/// What went wrong, for the caller of a service.
///
/// It is one pointer, and cheap to clone. As the answer of an axum handler it becomes a problem document (RFC 9457) with the status of
/// its code.
///
/// # Examples
/// ```
/// use throughline::{Code, Error};
///
/// fn parse(amount: &str) -> Result<u64, Error> {
///     amount.parse().map_err(|e| Error::wrap(Code::InvalidArgument, e).with_message("amount is not a number"))
/// }
///
/// let error = parse("ten").unwrap_err();
/// assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "amount is not a number"));
/// assert_eq!(error.to_string(), "INVALID_ARGUMENT: amount is not a number");
/// assert_eq!(format!("{error:#}"), "INVALID_ARGUMENT: amount is not a number: invalid digit found in string");
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    message: Cow<'static, str>,
    /// The services it has come from, the one where it began first.
    path: Vec<String>,
    /// It has come in from another service.
    is_remote: bool,
    is_preserved: bool,
    /// The message is another service's, or from the depths of this one: not for strangers.
    is_message_private: bool,
    retryable: Option<bool>,
    retry_after: Option<Duration>,
    details: Vec<Map<String, Value>>,
    received: Option<Value>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with a message that may be shown to the caller.
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
            received: None,
            source: None,
        }))
    }

    /// An error with a source, which stays in the process: the caller is told the code, and what
    /// [`with_message`](Self::with_message) says.
    pub fn wrap(code: Code, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::new(code, code.describe()).with_source(Arc::from(source.into()))
    }

    /// Why `ctx` is done: `DEADLINE_EXCEEDED` or `CANCELLED`, in the words of its cause. A cause that is any error is the source; one of
    /// these, as after the first failure in a [`Group`](crate::Group), gives its message, origin and path as well.
    ///
    /// Of a context that is live it is `UNKNOWN`: there is nothing to tell.
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
                    Some(cause) => Error::from(error).described_by(cause),
                    None => Error::from(error),
                };
                error.with_source(source)
            }
            Some(cause @ (Cause::Shutdown | Cause::ClientDisconnected | Cause::RequestFinished | Cause::Panicked)) => {
                Error::from(error).with_message(cause.to_string())
            }
            _ => Error::from(error),
        }
    }

    /// What kind of error it is.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What the caller is told.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The service where it began; `None`: here, and it has not left yet.
    pub fn origin(&self) -> Option<&str> {
        self.path().next()
    }

    /// The services that it has come through, the one where it began first; 16 at most.
    pub fn path(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.path.iter().map(String::as_str)
    }

    /// Whether trying again may help; `None`: not said, which is not a no.
    pub fn retryable(&self) -> Option<bool> {
        self.0.retryable
    }

    /// How long to wait before trying again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Objects for programs to read, each with an `@type`.
    pub fn details(&self) -> &[Map<String, Value>] {
        &self.0.details
    }

    /// What the response of another service said that no other method returns, as JSON. It never leaves the process.
    ///
    /// - Of a problem document (RFC 9457) the other members: `title`, `type`, `instance`, and extensions that are not ours.
    /// - Of another JSON body its value, and of a text body a string, cut off at 4 KiB.
    /// - Of a gRPC status of an external service an object with its `message` and `details`; of an internal one the `DebugInfo`.
    ///
    /// `None`: an error made here, a response of a service that uses this library, or a body that is larger than 64 KiB or not read.
    ///
    /// ```
    /// use http::{HeaderMap, StatusCode, header};
    /// use throughline::{Code, Error};
    ///
    /// let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse()?)]);
    /// let body = br#"{"decline_code":"expired_card"}"#;
    /// let error = Error::from_response(StatusCode::PAYMENT_REQUIRED, &headers, body).expect("it is an error");
    /// assert_eq!(error.code(), Code::FailedPrecondition);
    /// assert_eq!(error.received().expect("it is JSON")["decline_code"], "expired_card");
    /// # Ok::<(), header::InvalidHeaderValue>(())
    /// ```
    pub fn received(&self) -> Option<&Value> {
        self.0.received.as_ref()
    }

    /// Says something else to the caller.
    #[must_use]
    pub fn with_message(self, message: impl Into<Cow<'static, str>>) -> Error {
        self.change(|inner| {
            inner.message = message.into();
            inner.is_message_private = false;
        })
    }

    /// Says whether trying again may help.
    #[must_use]
    pub fn with_retryable(self, retryable: bool) -> Error {
        self.change(|inner| inner.retryable = Some(retryable))
    }

    /// Says how long to wait before trying again: `Retry-After`, in whole seconds, rounded up.
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Error {
        self.change(|inner| inner.retry_after = Some(after))
    }

    /// Adds an object for programs to read. `type_url` becomes its `@type`. A float in it may arrive one unit in the last place away.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let missing = [("field".to_owned(), "amount".into())].into_iter().collect();
    /// let error = Error::new(Code::InvalidArgument, "incomplete").with_detail("example.com/Missing", missing);
    /// assert_eq!(error.details()[0]["@type"], "example.com/Missing");
    /// ```
    #[must_use]
    pub fn with_detail(self, type_url: &str, mut object: Map<String, Value>) -> Error {
        object.insert("@type".into(), type_url.into());
        self.change(|inner| inner.details.push(object))
    }

    /// Keeps the code when the error is passed on, though it comes from another service.
    ///
    /// Otherwise what we pass on is `INTERNAL`, unless it is `DEADLINE_EXCEEDED`, `CANCELLED`, `UNAVAILABLE` or `RESOURCE_EXHAUSTED`: that
    /// a service we ask has not found something does not mean that what we were asked for is not there.
    #[must_use]
    pub fn preserve_code(self) -> Error {
        self.change(|inner| inner.is_preserved = true)
    }

    /// The first that is one of these: `error`, or a source of it.
    pub(crate) fn find_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
        std::iter::successors(Some(error), |&error| error.source()).find_map(|error| {
            // An `io::Error` does not name what is in it as its source.
            let inside = || error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref();
            error.downcast_ref().or_else(inside)
        })
    }

    /// The same error, with a source that is shared.
    pub(crate) fn with_source(self, source: Arc<dyn StdError + Send + Sync>) -> Error {
        self.change(|inner| inner.source = Some(source))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Error {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The error of a response from `host`, which did not say where it began: there.
    pub(crate) fn with_default_origin(self, host: Option<&str>) -> Error {
        match host {
            Some(host) if self.0.path.is_empty() => {
                self.change(|inner| inner.path = vec![cut(host, MAX_NAME).to_owned()])
            }
            _ => self,
        }
    }

    /// The message of `cause`, and the way it has come.
    fn described_by(self, cause: &Error) -> Error {
        self.change(|inner| {
            inner.message = cause.0.message.clone();
            inner.is_message_private = cause.0.is_message_private || cause.code().is_internal_detail();
            inner.is_remote = cause.0.is_remote;
            inner.path = cause.0.path.clone();
        })
    }

    /// The error as it leaves `service`, whose name is added to the path: the first is the origin, and stays; behind 15 others it
    /// takes the place of the last. An error that came in from another service becomes `INTERNAL` here, unless its code means the same to every
    /// caller, or it is [preserved](Self::preserve_code).
    ///
    /// [`ContextLayer`](crate::ContextLayer) does this to the answers of HTTP handlers; it is for those who answer by other ways.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let sent = Error::new(Code::NotFound, "no such card").through_service(Some("cards")).to_response();
    /// let received = Error::from_response(sent.status(), sent.headers(), sent.body()).expect("it is an error");
    /// assert_eq!(received.code(), Code::NotFound);
    /// let passed_on = received.through_service(Some("api"));
    /// assert_eq!((passed_on.code(), passed_on.origin()), (Code::Internal, Some("cards")));
    /// ```
    #[must_use]
    pub fn through_service(self, service: Option<&str>) -> Error {
        self.change(|inner| {
            if inner.is_remote && !inner.is_preserved && !inner.code.crosses_services() {
                inner.code = Code::Internal;
            }
            if let Some(service) = service {
                inner.path.truncate(MAX_PATH - 1);
                inner.path.push(cut(service, MAX_NAME).to_owned());
            }
        })
    }

    /// The error for a stranger: without origin, path and details, and in place of a message from another service, or of an `INTERNAL`,
    /// `UNKNOWN` or `DATA_LOSS`, only what the code means. A message of ours, also one given [later](Self::with_message), is told.
    ///
    /// [`ContextLayer::edge`](crate::ContextLayer::edge) does this to the answers of HTTP handlers.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let error = Error::new(Code::Internal, "row 7 has no owner").through_service(Some("cards")).redacted();
    /// assert_eq!((error.message(), error.origin()), ("internal error", None));
    /// ```
    #[must_use]
    pub fn redacted(self) -> Error {
        self.change(|inner| {
            inner.path.clear();
            inner.details.clear();
            if inner.is_message_private || inner.code.is_internal_detail() {
                inner.message = inner.code.describe().into();
            }
        })
    }
}

/// As much of `text` as `limit` bytes hold.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The code, the message, and the origin if the error comes from another service.
///
/// `{}` leaves out the source, which [`source`](StdError::source) returns: what prints a chain prints it once. `{:#}` prints the whole
/// chain in one line, at most 16 sources.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)?;
        if let Some(origin) = self.origin().filter(|_| self.0.is_remote) {
            write!(f, " (from {origin})")?;
        }
        if f.alternate() { Chain(self).fmt_sources(f, self.message().to_owned()) } else { Ok(()) }
    }
}

/// An error and its sources in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn StdError + 'static));

impl Chain<'_> {
    /// Writes what each source adds: many errors repeat their source's words in their own.
    fn fmt_sources(&self, f: &mut fmt::Formatter<'_>, mut last: String) -> fmt::Result {
        for source in std::iter::successors(self.0.source(), |&error| error.source()).take(MAX_SOURCES) {
            let words = source.to_string();
            if !last.ends_with(&words) {
                write!(f, ": {words}")?;
                last = words;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.to_string();
        f.write_str(&words)?;
        self.fmt_sources(f, words)
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

impl From<ContextError> for Error {
    fn from(error: ContextError) -> Error {
        let code = if error.is_timeout() { Code::DeadlineExceeded } else { Code::Cancelled };
        Error::new(code, code.describe())
    }
}

/// By its kind, or by the [`ContextError`] inside; an `Error` that has become an `io::Error` comes back as it was.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        let error = match error.downcast::<Error>() {
            Ok(error) => return error,
            Err(error) => error,
        };
        match error.get_ref().and_then(|inner| inner.downcast_ref::<ContextError>()) {
            Some(&stopped) => Error::from(stopped).with_source(Arc::new(error)),
            None => Error::wrap(Code::from_io_kind(error.kind()), error),
        }
    }
}

/// By its code, with the error inside.
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::new(error.code().io_kind(), error)
    }
}
