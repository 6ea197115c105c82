//! Messages and their subjects.

use bytes::Bytes;
use http::HeaderMap;
use throughline::{Code, Error};

/// A message: a subject, headers and a payload.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Message {
    /// The subject, such as `transaction.created`.
    ///
    /// A subject has tokens with dots between them. A token is not empty and has no white space and
    /// no control characters. The tokens `*` and `>` are not allowed: they have a meaning for NATS.
    pub subject: String,
    /// The headers: the publisher's trace, other wire values, and headers of the application.
    pub headers: HeaderMap,
    /// The payload.
    pub payload: Bytes,
}

impl Message {
    /// Creates a message without headers.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Message { subject: subject.into(), headers: HeaderMap::new(), payload: payload.into() }
    }

    /// Returns the size in bytes: the payload, and the names and values of the headers.
    pub(super) fn size(&self) -> usize {
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len();
        self.payload.len() + self.headers.iter().map(header).sum::<usize>()
    }
}

/// Checks a subject.
///
/// # Errors
/// `INVALID_ARGUMENT`, not retryable.
pub(super) fn check_subject(subject: &str) -> Result<(), Error> {
    let is_token = |token: &str| {
        let is_bad = |c: char| c.is_whitespace() || c.is_control();
        !matches!(token, "" | "*" | ">") && !token.contains(is_bad)
    };
    if subject.len() <= MAX_SUBJECT && subject.split('.').all(is_token) {
        return Ok(());
    }
    let shown: String = subject.chars().take(64).collect();
    let text = format!("{shown:?} is not a subject: tokens with dots between them, at most {MAX_SUBJECT} bytes");
    Err(Error::new(Code::InvalidArgument, text).with_retryable(false))
}

/// The maximum length of a subject, in bytes.
const MAX_SUBJECT: usize = 255;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_tokens_with_dots_between_them() {
        for good in ["s", "card.ordered", "dead-letter.card.ordered", "Zürich.>=7", &"s".repeat(255)] {
            assert!(check_subject(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "a\n", &"s".repeat(256)] {
            let error = check_subject(bad).unwrap_err();
            assert_eq!((error.code(), error.retryable()), (Code::InvalidArgument, Some(false)), "{bad}");
        }
    }
}
