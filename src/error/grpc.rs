//! gRPC: an `Error` as a status.
//!
//! Its details (`grpc-status-details-bin`) hold an `ErrorInfo` and a `RetryInfo` of `google.rpc`.

mod details;

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic_types::{ErrorDetail, ErrorDetails, ErrorInfo, RetryInfo, StatusExt};

use super::problem::{MAX_DOCUMENT, MAX_MEMBER, MAX_RETRY_AFTER, MAX_TEXT};
use super::public::{is_public, without_mark};
use super::{Code, Error, ORIGIN, cut};

/// The domain of the `ErrorInfo` that this library writes.
pub(super) const DOMAIN: &str = "throughline";
/// gRFC A6: milliseconds to wait before the next attempt. A negative number: do not retry.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The most bytes of a message that is sent.
///
/// A status is sent in headers. Peers accept 8 KiB of them, and percent-encoding triples a byte.
const MAX_SENT_MESSAGE: usize = 1024;
/// The same for the details. Base64 makes four bytes of three.
const MAX_SENT_DETAILS: usize = 3072;

impl From<Code> for tonic::Code {
    fn from(code: Code) -> tonic::Code {
        tonic::Code::from_i32(code.grpc_number())
    }
}

/// The status that reports the error to a caller.
///
/// The error is its source, which stays in the process.
///
/// - A `google.rpc.ErrorInfo` with the domain `throughline` has the origin, path, `retryable`, the
///   details, and `type`, `title` and `instance` as metadata. The path and the details are JSON.
/// - A [public detail](Error::with_public_detail) that is a standard message of `google.rpc` is
///   also such a message, for clients without this library.
/// - A `google.rpc.RetryInfo` has the time to wait. `grpc-retry-pushback-ms` has it in whole
///   milliseconds, rounded up, or -1 if the error is not retryable.
/// - The status fits into the 8 KiB of headers that any peer accepts. The message is cut off at 1
///   KiB. If the details are larger than 3 KiB, some are left out: first those that are not
///   public, then all, then the path except for the origin.
///
/// The status reports the error unchanged. Call [`through_service`](Error::through_service) and
/// [`redacted`](Error::redacted) first, to get the error that a service may pass on.
///
/// ```
/// use throughline::{Code, Error};
///
/// let status = tonic::Status::from(Error::new(Code::NotFound, "no such card"));
/// assert_eq!((status.code(), status.message()), (tonic::Code::NotFound, "no such card"));
/// ```
impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let path = &error.0.path[..];
        let origin = &path[..path.len().min(1)];
        let mut status = to_status(&error, path, &error.sent_details());
        let is_too_large = |status: &Status| status.details().len() > MAX_SENT_DETAILS;
        if is_too_large(&status) {
            status = to_status(&error, path, &public_details(&error));
        }
        for path in [path, origin] {
            if is_too_large(&status) {
                status = to_status(&error, path, &[]);
            }
        }
        status.set_source(Arc::new(error));
        status
    }
}

fn to_status(error: &Error, path: &[String], details: &[Map<String, Value>]) -> Status {
    let mut info = HashMap::new();
    let mut add = |name: &str, value: String| info.insert(name.to_owned(), value);
    if let [origin, ..] = path {
        add("origin", origin.clone());
        add("path", json!(path).to_string());
    }
    if let Some(retryable) = error.retryable() {
        add("retryable", retryable.to_string());
    }
    let uri = |uri: Option<&'_ str>| uri.filter(|uri| uri.len() <= MAX_MEMBER).map(str::to_owned);
    let title = error.title().map(|title| cut(title, MAX_MEMBER).to_owned());
    for (name, text) in [("type", uri(error.problem_type())), ("title", title), ("instance", uri(error.instance()))] {
        if let Some(text) = text {
            add(name, text);
        }
    }
    let (standard, json) = details::split(details, error.0.is_redacted);
    if !json.is_empty() {
        add("details", json!(json).to_string());
    }
    let (code, message) = (error.code().into(), cut(error.message(), MAX_SENT_MESSAGE));
    let info = (!info.is_empty()).then(|| ErrorInfo::new(error.code().as_str(), DOMAIN, info));
    let retry = error.retry_after().map(|after| RetryInfo::new(Some(after)));
    let messages: Vec<ErrorDetail> =
        info.map(Into::into).into_iter().chain(retry.map(Into::into)).chain(standard).collect();
    if messages.is_empty() {
        return Status::new(code, message);
    }
    Status::with_error_details_vec_and_metadata(code, message, messages, pushback(error))
}

/// The details that stay longest if not all of them fit.
fn public_details(error: &Error) -> Vec<Map<String, Value>> {
    if error.0.is_redacted {
        return Vec::new();
    }
    error.details().iter().filter(|detail| is_public(detail)).cloned().collect()
}

fn pushback(error: &Error) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let milliseconds = match (error.retryable(), error.retry_after()) {
        (Some(false), _) => Some(-1),
        (_, Some(after)) => Some(i32::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)),
        _ => None,
    };
    if let Some(milliseconds) = milliseconds {
        metadata.insert(PUSHBACK, MetadataValue::from(milliseconds));
    }
    metadata
}

impl Error {
    /// The error that a status from a trusted service reports.
    ///
    /// - A status made in this process from an `Error`, or from a failure that has one as a source,
    ///   is that `Error`.
    /// - A status with another source does not come from the service. Its code counts, and it
    ///   becomes the source.
    /// - `Ok`, which is not an error, and codes that gRPC does not define are `UNKNOWN`. The
    ///   meaning of the code replaces an empty message.
    ///
    /// Details:
    /// - The standard messages of `google.rpc`, such as `BadRequest` or the `ErrorInfo` of another
    ///   domain, are [`details`](Self::details), as protobuf's JSON.
    /// - A `DebugInfo`, which must not be passed on, is in [`received`](Self::received).
    /// - Other messages are left out.
    /// - Details that are malformed, or larger than 64 KiB, are ignored. At most 16 services of a
    ///   path are kept. The time to wait is at most an hour.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let error = Error::new(Code::NotFound, "no such card").through_service(Some("cards"));
    /// let sent = tonic::Status::from(error);
    /// let mut trailers = http::HeaderMap::new();
    /// sent.add_header(&mut trailers)?;
    ///
    /// let received = tonic::Status::from_header_map(&trailers).expect("there is a grpc-status");
    /// let error = Error::from_grpc_status(received);
    /// assert_eq!((error.code(), error.message()), (Code::NotFound, "no such card"));
    /// assert_eq!(error.origin(), Some("cards"));
    /// # Ok::<(), tonic::Status>(())
    /// ```
    pub fn from_grpc_status(status: Status) -> Error {
        if let Some(error) = local_source(&status) {
            return error;
        }
        if status.source().is_some() {
            return Error::wrap(code(&status), status);
        }
        let details = details(&status);
        let mut document = Map::new();
        if !status.message().is_empty() {
            document.insert("detail".to_owned(), status.message().into());
        }
        for (name, text) in error_info(&details).into_iter().flat_map(|info| &info.metadata) {
            let value = match name.as_str() {
                "origin" | "type" | "title" | "instance" => Value::from(text.as_str()),
                "retryable" | "path" | "details" => serde_json::from_str(text).unwrap_or_default(),
                _ => continue,
            };
            document.insert(name.clone(), value);
        }
        let error = Error::new(code(&status), code(&status).describe()).change(|inner| inner.is_remote = true);
        let error =
            error.with_members(&mut document).with_retry_info(&status, &details).with_default_origin(origin(&status));
        // Stack traces stay in this process.
        let (debug, details): (Vec<_>, Vec<_>) = details::standard(&status).partition(details::is_debug_info);
        let error = error.change(|inner| {
            for detail in details {
                // A public detail is there twice: as JSON with its mark, and for other libraries.
                if !inner.details.iter().any(|known| without_mark(known) == detail) {
                    inner.details.push(detail);
                }
            }
        });
        error.with_received((!debug.is_empty()).then(|| json!({"details": debug})))
    }

    /// The error that an external service's status reports: its code and retry delay.
    ///
    /// Its message is the source, for debugging. Its message and details are
    /// [`received`](Self::received).
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let error = Error::from_external_grpc_status(tonic::Status::not_found("row 7 of users"));
    /// assert_eq!((error.code(), error.message()), (Code::NotFound, "not found"));
    /// assert_eq!(format!("{error:#}"), "NOT_FOUND: not found: row 7 of users");
    /// ```
    pub fn from_external_grpc_status(status: Status) -> Error {
        if let Some(error) = local_source(&status) {
            return error;
        }
        if status.source().is_some() {
            return Error::wrap(code(&status), status);
        }
        let error = match cut(status.message(), MAX_TEXT) {
            "" => Error::new(code(&status), code(&status).describe()),
            message => Error::wrap(code(&status), message),
        };
        let error = error.change(|inner| inner.is_remote = true).with_retry_info(&status, &details(&status));
        let details: Vec<_> = details::standard(&status).collect();
        let message = cut(status.message(), MAX_TEXT);
        let received = (!details.is_empty()).then(|| json!({"message": message, "details": details}));
        error.with_default_origin(origin(&status)).with_received(received)
    }

    /// Adds a status to the error's sources, which tonic's clients look for.
    ///
    /// The status has the error's source.
    pub(crate) fn with_grpc_status(self) -> Error {
        let mut status = Status::new(self.code().into(), self.message());
        if let Some(source) = &self.0.source {
            status.set_source(Arc::clone(source) as _);
        }
        self.with_source(Arc::new(status))
    }

    /// Adds whether and when to retry, as the status says.
    fn with_retry_info(self, status: &Status, details: &ErrorDetails) -> Error {
        let pushback = status.metadata().get(PUSHBACK).map(|value| {
            // gRFC A6: if negative or malformed, do not retry.
            let milliseconds = value.to_str().ok().and_then(|text| text.parse::<u32>().ok());
            milliseconds.map(|milliseconds| Duration::from_millis(milliseconds.into()))
        });
        let exact = details.retry_info().and_then(|info| info.retry_delay);
        self.change(|inner| {
            inner.retry_after = exact.or(pushback.flatten()).map(|after| after.min(MAX_RETRY_AFTER));
            if pushback == Some(None) {
                inner.retryable.get_or_insert(false);
            }
        })
    }
}

/// The error that the status was made from, here or in another internal service.
pub(crate) fn error_in_status(status: &Status) -> Option<Error> {
    local_source(status).or_else(|| error_info(&details(status)).map(|_| Error::from_grpc_status(status.clone())))
}

/// The error that the status was made from in this process.
fn local_source(status: &Status) -> Option<Error> {
    status.source().and_then(Error::find_in).cloned()
}

/// The origin, as [`ClientLayer`](crate::ClientLayer) has written it.
fn origin(status: &Status) -> Option<&str> {
    status.metadata().get(ORIGIN)?.to_str().ok()
}

fn code(status: &Status) -> Code {
    Code::from_grpc_number(status.code() as i32).unwrap_or(Code::Unknown)
}

/// The `ErrorInfo` that this library has written.
fn error_info(details: &ErrorDetails) -> Option<&ErrorInfo> {
    details.error_info().filter(|info| info.domain == DOMAIN)
}

fn details(status: &Status) -> ErrorDetails {
    if status.details().len() <= MAX_DOCUMENT { status.get_error_details() } else { ErrorDetails::new() }
}
