//! Reads and writes gRPC statuses in headers and trailers (gRPC over HTTP/2).

use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "tonic")]
use http::header::HeaderName;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Extensions, Response, StatusCode};

use crate::error::{Code, Error};

pub(super) const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
const PUSHBACK: &str = "grpc-retry-pushback-ms";
pub(super) const DETAILS: &str = "grpc-status-details-bin";
pub(super) use crate::error::ORIGIN;

/// Whether the `Content-Type` is gRPC's: `application/grpc`, also with a suffix such as `+proto`.
///
/// gRPC-Web's content type is not.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest, [] | [b'+' | b';' | b' ', ..]))
}

/// A response that reports `error` in its headers.
///
/// It is a 200 without a body. gRPC calls this form "Trailers-Only".
pub(super) fn response(error: Error) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    // Tonic does this, too. A layer outside this one can read it.
    #[cfg(feature = "tonic")]
    response.extensions_mut().insert(tonic::Status::from(error.clone()));
    write_status(error, response.headers_mut());
    response
}

/// The trailers that end a stream with `error`.
pub(super) fn trailers(error: Error) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    write_status(error, &mut trailers);
    trailers
}

/// The [`Error`] that a tonic response was made from, of this service or a callee.
///
/// `None` if there is none, or if the status in the headers is not the one that tonic wrote.
pub(super) fn error_in<B>(response: &Response<B>) -> Option<Error> {
    #[cfg(feature = "tonic")]
    {
        let status = response.extensions().get::<tonic::Status>()?;
        let (mut written, headers) = (HeaderMap::new(), response.headers());
        status.add_header(&mut written).ok()?;
        let is_unchanged = [STATUS, MESSAGE, DETAILS].iter().all(|name| written.get(*name) == headers.get(*name));
        crate::error::grpc::error_in_status(status).filter(|_| is_unchanged)
    }
    #[cfg(not(feature = "tonic"))]
    {
        let _ = response;
        None
    }
}

/// The error of a tonic status, if that status has a source.
pub(super) fn error_behind(extensions: &Extensions) -> Option<Error> {
    #[cfg(feature = "tonic")]
    {
        use std::error::Error as _;
        let status = extensions.get::<tonic::Status>().filter(|status| status.source().is_some())?;
        Some(Error::from_grpc_status(status.clone()))
    }
    #[cfg(not(feature = "tonic"))]
    {
        let _ = extensions;
        None
    }
}

/// Removes every header of a status.
///
/// So no part of an old one stays beside a new one.
pub(super) fn remove_status(headers: &mut HeaderMap) {
    for name in [STATUS, MESSAGE, DETAILS, PUSHBACK, ORIGIN] {
        headers.remove(name);
    }
}

/// Redacts a status for an untrusted client.
///
/// - Of the details, the public ones and the time to wait are kept.
/// - The message is replaced by the meaning of the code, if the error comes from another service,
///   or if its code stands for an internal failure.
pub(super) fn redact(headers: &mut HeaderMap) {
    let is_passed_on = headers.remove(ORIGIN).is_some();
    let Some(Some(code)) = status(headers) else { return };
    let details = headers.remove(DETAILS);
    if is_passed_on || code.is_internal_detail() || details.as_ref().is_some_and(may_name_origin) {
        headers.insert(MESSAGE, HeaderValue::from_static(code.describe()));
    }
    #[cfg(feature = "tonic")]
    if let Some(details) = details.and_then(|details| redacted_details(code, &details)) {
        headers.insert(DETAILS, details);
    }
}

/// The part of the details that an untrusted client may see.
#[cfg(feature = "tonic")]
fn redacted_details(code: Code, details: &HeaderValue) -> Option<HeaderValue> {
    let status = tonic::Status::with_details(code.into(), code.describe(), decode(details)?);
    let mut redacted = HeaderMap::new();
    write_status(Error::from_grpc_status(status).redacted(), &mut redacted);
    redacted.remove(DETAILS)
}

/// Whether the details name another service as the origin. Details that cannot be read may.
fn may_name_origin(details: &HeaderValue) -> bool {
    #[cfg(feature = "tonic")]
    return decode(details).is_none_or(|details| {
        let status = tonic::Status::with_details(tonic::Code::Unknown, "", details);
        Error::from_grpc_status(status).origin().is_some()
    });
    #[cfg(not(feature = "tonic"))]
    {
        let _ = details;
        true
    }
}

/// Decodes the details of a status. `None` if they are not base64.
#[cfg(feature = "tonic")]
pub(super) fn decode(details: &HeaderValue) -> Option<Bytes> {
    let alone = HeaderMap::from_iter([(HeaderName::from_static(DETAILS), details.clone())]);
    tonic::metadata::MetadataMap::from_headers(alone).get_bin(DETAILS)?.to_bytes().ok()
}

/// The status in headers or trailers.
///
/// - `None`: there is no status.
/// - `Some(None)`: success.
/// - `Some(Some(code))`: an error. A number that gRPC does not define is `UNKNOWN`.
pub(super) fn status(headers: &HeaderMap) -> Option<Option<Code>> {
    let number = headers.get(STATUS)?.to_str().ok().and_then(|number| number.parse().ok());
    Some(match number {
        Some(0) => None,
        number => Some(number.and_then(Code::from_grpc_number).unwrap_or(Code::Unknown)),
    })
}

/// The status in the head of a response.
///
/// Like [`status`]. Without a `grpc-status`, an HTTP status that is not a success becomes a code.
pub(super) fn status_of_head(status: StatusCode, headers: &HeaderMap) -> Option<Option<Code>> {
    let from_http = || (!status.is_success()).then(|| Some(Code::from_http_status_of_grpc(status)));
    self::status(headers).or_else(from_http)
}

/// The error that a status describes. From an external host, only its code is trusted.
pub(super) fn error_of(code: Code, headers: &HeaderMap, is_external: bool) -> Error {
    #[cfg(feature = "tonic")]
    if let Some(status) = tonic::Status::from_header_map(headers) {
        let read = if is_external { Error::from_external_grpc_status } else { Error::from_grpc_status };
        return read(status);
    }
    let error = Error::new(code, code.describe());
    let error = match headers.get(PUSHBACK).map(|value| value.to_str().ok()?.parse::<u32>().ok()) {
        Some(Some(millis)) => error.with_retry_after(Duration::from_millis(millis.into())),
        // gRFC A6: if negative or malformed, do not retry.
        Some(None) => error.with_retryable(false),
        None => error,
    };
    let message = headers.get(MESSAGE).filter(|_| !is_external);
    match message.map(|message| percent_encoding::percent_decode(message.as_bytes()).decode_utf8_lossy()) {
        Some(message) if !message.is_empty() => error.with_message(message.into_owned()),
        _ => error,
    }
}

/// Writes the origin of an error into a status that does not name one.
///
/// A name from an internal service stays. A name from an external host is replaced.
pub(super) fn write_origin(host: Option<&str>, is_external: bool, headers: &mut HeaderMap) {
    if headers.contains_key(ORIGIN) && !is_external {
        return;
    }
    headers.remove(ORIGIN);
    if let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok()) {
        headers.insert(ORIGIN, host);
    }
}

/// Whether a status is an error on the server's span.
///
/// Source: OpenTelemetry semantic conventions 1.45, "gRPC".
pub(super) fn is_server_fault(code: Code) -> bool {
    use Code::*;
    matches!(code, Unknown | DeadlineExceeded | Unimplemented | Internal | Unavailable | DataLoss)
}

#[cfg(feature = "tonic")]
pub(super) fn write_status(error: Error, headers: &mut HeaderMap) {
    let code = error.code();
    if tonic::Status::from(error).add_header(headers).is_err() {
        headers.insert(STATUS, HeaderValue::from(code.grpc_number()));
    }
}

#[cfg(not(feature = "tonic"))]
pub(super) fn write_status(error: Error, headers: &mut HeaderMap) {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    /// Everything except `%x20-24 / %x26-7E` (gRPC over HTTP/2, "Percent-Encoded").
    const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
    headers.insert(STATUS, HeaderValue::from(error.code().grpc_number()));
    let message: String = utf8_percent_encode(error.message(), ENCODED).collect();
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(MESSAGE, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushback_is_read_with_and_without_tonic() {
        for (value, retryable, after) in
            [("250", None, Some(Duration::from_millis(250))), ("-1", Some(false), None), ("soon", Some(false), None)]
        {
            let headers = [(STATUS, "14"), (PUSHBACK, value)];
            let headers = headers.map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
            let error = error_of(Code::Unavailable, &HeaderMap::from_iter(headers), false);
            assert_eq!((error.retryable(), error.retry_after()), (retryable, after), "{value}");
        }
    }
}
