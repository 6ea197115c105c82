//! The meaning of a failed call, with no response or half of one.

use std::error::Error as StdError;
use std::io;

use h2::Reason;

use super::{Code, Error};

type BoxError = Box<dyn StdError + Send + Sync>;

impl Error {
    /// The error of a call that ended with `failure`, which becomes its source.
    ///
    /// `is_late`: no more than the reply reserve is left of the callee's timeout.
    pub(crate) fn from_failure(failure: BoxError, is_late: bool) -> Error {
        if let Some(error) = Error::find_in(&*failure) {
            // An error that names a reset or a close is a failure of the connection. It is not one
            // of a service.
            let is_cut_off = is_late && find::<h2::Error>(error).is_some();
            return if is_cut_off { Error::wrap(Code::DeadlineExceeded, failure) } else { error.clone() };
        }
        let (code, is_unprocessed) = classify(&*failure, is_late);
        let error = Error::wrap(code, failure);
        if is_unprocessed { error.with_retryable(true) } else { error }
    }

    /// Returns what the failure of a call means, without the failure as its source.
    ///
    /// [`ClientLayer`](crate::ClientLayer) gives its calls the same meaning: see
    /// [the table](crate::middleware::client#errors). An `Error` inside comes back unchanged. For a
    /// layer of your own that decides by the code, and passes the failure on.
    ///
    /// ```
    /// use std::io;
    /// use throughline::{Code, Error};
    ///
    /// let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    /// assert_eq!(Error::meaning_of(&refused).code(), Code::Unavailable);
    /// let late = io::Error::from(io::ErrorKind::TimedOut);
    /// assert_eq!(Error::meaning_of(&late).code(), Code::DeadlineExceeded);
    /// ```
    pub fn meaning_of(failure: &(dyn StdError + 'static)) -> Error {
        if let Some(error) = Error::find_in(failure) {
            return error.clone();
        }
        let (code, is_unprocessed) = classify(failure, false);
        let error = Error::new(code, code.describe());
        if is_unprocessed { error.with_retryable(true) } else { error }
    }
}

/// The code of a failure, and whether the peer has not processed the request.
fn classify(failure: &(dyn StdError + 'static), is_late: bool) -> (Code, bool) {
    if is_late || is_timeout(failure) {
        return (Code::DeadlineExceeded, false);
    }
    match find::<h2::Error>(failure) {
        Some(error) => of_http2(error),
        None => (of_grpc(failure).unwrap_or(Code::Unavailable), false),
    }
}

/// The code of an HTTP/2 error, and whether the peer has not processed the request.
///
/// gRPC over HTTP/2, "Errors". That table is about streams; the end of a connection is UNAVAILABLE.
fn of_http2(error: &h2::Error) -> (Code, bool) {
    if error.is_io() || error.is_go_away() {
        // h2 gives the error of a received GOAWAY only to streams above its last stream (RFC 9113
        // §6.8).
        return (Code::Unavailable, error.is_go_away() && error.is_remote());
    }
    match error.reason() {
        // RFC 9113 §8.7: the stream was closed before anything was processed.
        Some(Reason::REFUSED_STREAM) => (Code::Unavailable, error.is_remote()),
        Some(Reason::CANCEL) => (Code::Cancelled, false),
        Some(Reason::ENHANCE_YOUR_CALM) => (Code::ResourceExhausted, false),
        Some(Reason::INADEQUATE_SECURITY) => (Code::PermissionDenied, false),
        _ => (Code::Internal, false),
    }
}

/// Whether a timer has fired: of the client, an inner layer, or the connection attempt.
pub(super) fn is_timeout(failure: &(dyn StdError + 'static)) -> bool {
    chain(failure).any(|error| {
        #[cfg(feature = "tonic")]
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        #[cfg(feature = "reqwest")]
        if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout) {
            return true;
        }
        error.is::<tower::timeout::error::Elapsed>()
            || error.is::<tokio::time::error::Elapsed>()
            || error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    })
}

/// The code of a status that an inner layer made itself.
///
/// A status with a source is tonic's interpretation of that source.
#[cfg(feature = "tonic")]
fn of_grpc(failure: &(dyn StdError + 'static)) -> Option<Code> {
    let status = find::<tonic::Status>(failure).filter(|status| status.source().is_none())?;
    Code::from_grpc_number(status.code() as i32)
}

#[cfg(not(feature = "tonic"))]
fn of_grpc(_: &(dyn StdError + 'static)) -> Option<Code> {
    None
}

fn find<'a, E: StdError + 'static>(failure: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(failure).find_map(|error| error.downcast_ref())
}

/// `failure` and its sources. The error inside an `io::Error` counts as its source.
fn chain<'a>(failure: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(failure), |&error| {
        let inside = || error.downcast_ref::<io::Error>()?.get_ref().map(|inside| inside as &(dyn StdError + 'static));
        inside().or_else(|| error.source())
    })
}
