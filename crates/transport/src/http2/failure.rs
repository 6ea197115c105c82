//! What the failure of a connection or a stream means.

use std::error::Error as StdError;

use h2::Reason;
use throughline::{Code, Error, error_message};

/// The error of a request that was sent to `service` at `address`, and has no response.
pub(super) fn of_request(service: &str, address: &str, failure: hyper::Error) -> Error {
    let (code, retryable) = classify(&failure);
    let what = match code {
        Code::Internal => "sent a response that is not valid HTTP/2",
        Code::Unavailable if retryable.is_some() => "did not take the request",
        Code::Unavailable => "closed the connection before it responded",
        _ => "ended the request",
    };
    let message = format!("{service} at {address} {what}: {}", error_message(&failure));
    let error = Error::wrap(code, failure).with_message(message);
    match retryable {
        Some(retryable) => error.with_retryable(retryable),
        None => error,
    }
}

/// Whether the peer of a connection does not speak HTTP/2.
pub(super) fn is_garbage(failure: &hyper::Error) -> bool {
    classify(failure).0 == Code::Internal
}

/// The error of a peer that does not speak HTTP/2.
pub(super) fn no_http2(service: &str, address: &str, failure: &hyper::Error) -> Error {
    let message = format!("{service} at {address} does not speak HTTP/2: {}", error_message(failure));
    Error::new(Code::Internal, message)
}

/// Whether the peer has refused the stream: it has not handled the request.
pub(super) fn is_refused(failure: &hyper::Error) -> bool {
    find_h2(failure).is_some_and(|error| error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM))
}

/// Whether the peer closes the connection, and has not handled the request.
pub(super) fn is_going_away(failure: &hyper::Error) -> bool {
    // h2 gives the error of a received GOAWAY only to streams above its last stream (RFC 9113
    // §6.8).
    find_h2(failure).is_some_and(|error| error.is_go_away() && error.is_remote())
}

/// `UNAVAILABLE` for a request that was not sent.
pub(super) fn not_sent(service: &str, address: &str, why: &str) -> Error {
    let message = format!("{service} at {address} cannot be reached: {why}");
    Error::new(Code::Unavailable, message).with_retryable(true)
}

/// The code of a failure, and whether it is known that the request may be sent again.
///
/// It follows gRPC over HTTP/2, "Errors", for streams.
fn classify(failure: &hyper::Error) -> (Code, Option<bool>) {
    let Some(error) = find_h2(failure) else { return (Code::Unavailable, None) };
    if error.is_io() {
        // The service may have handled the request.
        return (Code::Unavailable, None);
    }
    if is_going_away(failure) || is_refused(failure) {
        return (Code::Unavailable, Some(true));
    }
    match error.reason() {
        Some(Reason::CANCEL) if error.is_remote() => (Code::Cancelled, None),
        Some(Reason::ENHANCE_YOUR_CALM) if error.is_remote() => (Code::ResourceExhausted, None),
        Some(Reason::INADEQUATE_SECURITY) => (Code::PermissionDenied, None),
        Some(Reason::NO_ERROR | Reason::ENHANCE_YOUR_CALM | Reason::CANCEL) => (Code::Unavailable, None),
        _ => (Code::Internal, None),
    }
}

fn find_h2(failure: &hyper::Error) -> Option<&h2::Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(failure);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
