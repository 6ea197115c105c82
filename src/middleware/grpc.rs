//! What gRPC's requests and answers have of their own (gRPC over HTTP/2).

use bytes::Bytes;
#[cfg(feature = "tonic")]
use http::header::HeaderName;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Extensions, Response, StatusCode};

use crate::error::{Code, Error};

pub(super) const DETAILS: &str = "grpc-status-details-bin";

/// `Content-Type: application/grpc`, also with what follows it (`+proto`), but not gRPC-Web's.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest, [] | [b'+' | b';' | b' ', ..]))
}

/// The answer that tells of `error`: a 200 with the status among its headers, and no body ("Trailers-Only").
pub(super) fn answer(error: Error) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    write_status(error, response.headers_mut());
    response
}

/// The error that the status of a handler of tonic's tells of: one that it was made from, or one of a service below.
pub(super) fn error_in(extensions: &Extensions) -> Option<Error> {
    #[cfg(feature = "tonic")]
    return extensions.get::<tonic::Status>().and_then(crate::error::grpc::told);
    #[cfg(not(feature = "tonic"))]
    {
        let _ = extensions;
        None
    }
}

/// Removes what [`answer`] writes: no part of another status is left beside it.
pub(super) fn remove_status(headers: &mut HeaderMap) {
    for name in ["grpc-status", "grpc-message", DETAILS, "grpc-retry-pushback-ms"] {
        headers.remove(name);
    }
}

/// Takes out of an error's status what is not for strangers, as [`Error::public`] does: its details, and a message that comes from the
/// depths of this service, or from another one.
pub(super) fn make_public(headers: &mut HeaderMap) {
    let Some(Some(code)) = status(headers) else { return };
    let details = headers.remove(DETAILS);
    if code.is_of_the_depths() || details.is_some_and(|details| may_tell_origin(&details)) {
        headers.insert("grpc-message", HeaderValue::from_static(code.describe()));
    }
}

/// Whether an error has come from another service; details that can't be read may say so.
fn may_tell_origin(details: &HeaderValue) -> bool {
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

/// The details of a status; `None`: they are no base64.
#[cfg(feature = "tonic")]
pub(super) fn decode(details: &HeaderValue) -> Option<Bytes> {
    let alone = HeaderMap::from_iter([(HeaderName::from_static(DETAILS), details.clone())]);
    tonic::metadata::MetadataMap::from_headers(alone).get_bin(DETAILS)?.to_bytes().ok()
}

/// The code that headers or trailers tell of: `Some(None)` is success; a number that is none of gRPC's is `UNKNOWN`.
pub(super) fn status(headers: &HeaderMap) -> Option<Option<Code>> {
    let number = headers.get("grpc-status")?.to_str().ok().and_then(|number| number.parse().ok());
    Some(match number {
        Some(0) => None,
        number => Some(number.and_then(Code::from_grpc_number).unwrap_or(Code::Unknown)),
    })
}

/// The code that the head of an answer tells of: as [`status`], or what an answer that is no success means without one.
pub(super) fn status_of_head(status: StatusCode, headers: &HeaderMap) -> Option<Option<Code>> {
    let meant = || (!status.is_success()).then(|| Some(Code::from_http_status_of_grpc(status)));
    self::status(headers).or_else(meant)
}

/// Whether a channel has given up by its own timer, which runs for as long as the callee was given, and so less than the caller has.
pub(super) fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    #[cfg(feature = "tonic")]
    return std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<tonic::TimeoutExpired>());
    #[cfg(not(feature = "tonic"))]
    {
        let _ = error;
        false
    }
}

/// Whether a status is an error of the server's span, too (OpenTelemetry semantic conventions 1.45, "gRPC").
pub(super) fn is_servers_fault(code: Code) -> bool {
    use Code::*;
    matches!(code, Unknown | DeadlineExceeded | Unimplemented | Internal | Unavailable | DataLoss)
}

#[cfg(feature = "tonic")]
fn write_status(error: Error, headers: &mut HeaderMap) {
    let code = error.code();
    if tonic::Status::from(error).add_header(headers).is_err() {
        headers.insert("grpc-status", HeaderValue::from(code.grpc_number()));
    }
}

#[cfg(not(feature = "tonic"))]
fn write_status(error: Error, headers: &mut HeaderMap) {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    /// Everything but `%x20-24 / %x26-7E` ("Percent-Encoded").
    const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
    headers.insert("grpc-status", HeaderValue::from(error.code().grpc_number()));
    let message: String = utf8_percent_encode(error.message(), ENCODED).collect();
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert("grpc-message", message);
    }
}
