//! Errors of reqwest.

use std::error::Error as StdError;

use super::{Code, Error};

/// Converts by the kind of the error.
///
/// The [`Error`] of a call with a context comes back unchanged, also if it ended the response body:
/// `DEADLINE_EXCEEDED` or `CANCELLED` by that context.
///
/// Other errors get the first code that applies:
/// - `INVALID_ARGUMENT` for a request that cannot be built.
/// - `INTERNAL` for a body that is not the expected JSON.
/// - The meaning of the status. It is the callee's error, as that of
///   [`send_with`](crate::SendWith::send_with). If this service passes it on, a 404 becomes
///   `INTERNAL`, unless the code is [preserved](Error::preserve_code).
/// - `DEADLINE_EXCEEDED` for a timeout of reqwest itself.
/// - The meaning of an HTTP/2 reset.
/// - `UNAVAILABLE` for all others.
///
/// The source names no URL.
///
/// ```
/// use throughline::{Code, Error};
///
/// let error = Error::from(reqwest::Client::new().get("no address").build().unwrap_err());
/// assert_eq!(error.code(), Code::InvalidArgument);
/// ```
impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Error {
        if let Some(error) = Error::find_in(&error) {
            return error.clone();
        }
        let error = error.without_url();
        let code = if error.is_builder() {
            Some(Code::InvalidArgument)
        } else if error.source().is_some_and(|source| source.is::<serde_json::Error>()) {
            Some(Code::Internal)
        } else {
            error.status().and_then(Code::from_http_status)
        };
        let is_of_callee = error.status().is_some();
        match code {
            Some(code) => Error::wrap(code, error).change(|inner| inner.is_remote = is_of_callee),
            None => Error::from_failure(error.into(), false),
        }
    }
}
