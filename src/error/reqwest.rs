//! What went wrong by reqwest's account.

use std::error::Error as StdError;

use super::{Code, Error};

/// What a call with a context went wrong by comes back as it was, also where the body of its answer has ended with it: `DEADLINE_EXCEEDED`
/// or `CANCELLED` by that context. Else it is `DEADLINE_EXCEEDED` for a timeout of reqwest's own, `INVALID_ARGUMENT` for a request that can't
/// be built, `INTERNAL` for JSON that makes no sense, what a status means, an HTTP/2 reset by its
/// code, and `UNAVAILABLE` for all other. The source names no URL.
///
/// ```
/// use throughline::{Code, Error};
///
/// let error = Error::from(reqwest::Client::new().get("no address").build().unwrap_err());
/// assert_eq!(error.code(), Code::InvalidArgument);
/// ```
impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Error {
        if let Some(own) = Error::find_in(&error) {
            return own.clone();
        }
        let error = error.without_url();
        let code = if error.is_builder() {
            Some(Code::InvalidArgument)
        } else if error.source().is_some_and(|source| source.is::<serde_json::Error>()) {
            Some(Code::Internal)
        } else {
            error.status().and_then(Code::from_http_status)
        };
        match code {
            Some(code) => Error::wrap(code, error),
            None => Error::from_failure(error.into(), false),
        }
    }
}
