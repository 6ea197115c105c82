//! Problem documents: RFC 9457, with the members `code`, `retryable`, `origin`, `path` and `details`.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{Code, Error, MAX_NAME, MAX_PATH, cut};

/// The media type of a problem document.
const PROBLEM_JSON: &str = "application/problem+json";

/// A larger document is not read.
pub(crate) const MAX_DOCUMENT: usize = 64 * 1024;
/// A peer can't make us wait longer.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// A longer message is cut off.
pub(super) const MAX_TEXT: usize = 4096;

impl Error {
    /// The answer that tells a caller of this error, with this error among its extensions.
    ///
    /// `Retry-After` is in whole seconds, rounded up. The message is cut off at 4 KiB; details that make the document larger than
    /// 64 KiB, which nobody would read, are left out.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let response = Error::new(Code::NotFound, "no such card").to_response();
    /// assert_eq!(response.status(), 404);
    /// assert_eq!(response.headers()["content-type"], "application/problem+json");
    /// ```
    pub fn to_response(&self) -> Response<Bytes> {
        self.to_response_with(self.code().http_status())
    }

    /// The response with another status than that of the code.
    pub(crate) fn to_response_with(&self, status: StatusCode) -> Response<Bytes> {
        let mut document = self.document(status);
        let mut body = document.to_string();
        if body.len() > MAX_DOCUMENT {
            document.as_object_mut().map(|members| members.remove("details"));
            body = document.to_string();
        }
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(after) = self.retry_after() {
            let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self.clone());
        response
    }

    fn document(&self, status: StatusCode) -> Value {
        let title = status.canonical_reason().unwrap_or("Client Closed Request");
        let mut document = json!({
            "type": "about:blank", "title": title, "status": status.as_u16(), "detail": cut(self.message(), MAX_TEXT), "code": self.code().as_str(),
        });
        let mut add = |name: &str, value: Option<Value>| {
            if let (Some(object), Some(value)) = (document.as_object_mut(), value) {
                object.insert(name.to_owned(), value);
            }
        };
        add("retryable", self.retryable().map(Value::from));
        add("origin", self.origin().map(Value::from));
        add("path", Some(self.path().collect::<Vec<_>>()).filter(|path| !path.is_empty()).map(Value::from));
        add("details", Some(self.details()).filter(|details| !details.is_empty()).map(|details| json!(details)));
        document
    }

    /// The error that an answer from a trusted service tells of; `None`: it tells of none.
    ///
    /// A document that is not one, or larger than 64 KiB, is the same as none: the status alone counts. Of a path 16 stations are kept,
    /// and `Retry-After` is an hour at most.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let sent = Error::new(Code::NotFound, "no such card").to_response();
    /// let read = Error::from_response(sent.status(), sent.headers(), sent.body()).expect("it is an error");
    /// assert_eq!((read.code(), read.message()), (Code::NotFound, "no such card"));
    /// ```
    pub fn from_response(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Error> {
        Some(Error::from_status(status, headers)?.told_in(headers, body))
    }

    /// The error that an answer from a stranger tells of: its status and `Retry-After` alone. `None`: it tells of none.
    pub fn from_status(status: StatusCode, headers: &HeaderMap) -> Option<Error> {
        Some(Error::meant_by(Code::from_http_status(status)?, headers))
    }

    /// The error that the head of an answer tells of, whose status means `code`.
    pub(crate) fn meant_by(code: Code, headers: &HeaderMap) -> Error {
        let retry_after = headers.get(header::RETRY_AFTER).and_then(parse_retry_after);
        Error::new(code, code.describe()).change(|inner| {
            inner.is_remote = true;
            inner.retry_after = retry_after;
        })
    }

    /// The error with what the body of its answer says, if that is a document.
    pub(crate) fn told_in(self, headers: &HeaderMap, body: &[u8]) -> Error {
        let is_problem = headers.get(header::CONTENT_TYPE).is_some_and(is_problem_json) && body.len() <= MAX_DOCUMENT;
        match is_problem.then(|| serde_json::from_slice::<Map<String, Value>>(body)) {
            Some(Ok(document)) => self.read(document),
            _ => self,
        }
    }

    /// The error with what the members of a document from a trusted service say.
    pub(super) fn read(self, mut document: Map<String, Value>) -> Error {
        let text = |value: &Value, limit| value.as_str().map(|text| cut(text, limit).to_owned());
        let name = |value: &Value| text(value, MAX_NAME);
        self.change(|inner| {
            if let Some(code) = document.get("code").and_then(Value::as_str).and_then(|code| code.parse().ok()) {
                inner.code = code;
                inner.message = inner.code.describe().into();
            }
            let detail = document.get("detail").and_then(|detail| text(detail, MAX_TEXT));
            if let Some(detail) = detail.filter(|detail| !detail.is_empty()) {
                inner.message = detail.into();
                inner.is_message_private = true;
            }
            inner.retryable = document.get("retryable").and_then(Value::as_bool);
            inner.path = match (document.get("path").and_then(Value::as_array), document.get("origin").and_then(name)) {
                (Some(path), _) if !path.is_empty() => path.iter().filter_map(name).take(MAX_PATH).collect(),
                (_, origin) => origin.into_iter().collect(),
            };
            if let Some(Value::Array(details)) = document.remove("details") {
                let objects = details.into_iter().filter_map(|detail| match detail {
                    Value::Object(object) if object.get("@type").is_some_and(Value::is_string) => Some(object),
                    _ => None,
                });
                inner.details = objects.collect();
            }
        })
    }
}

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl axum::response::IntoResponse for Error {
    /// As [`to_response`](Error::to_response). A [`ContextLayer`](crate::ContextLayer) then adds the service to the path.
    fn into_response(self) -> axum::response::Response {
        self.to_response().map(axum::body::Body::from)
    }
}

pub(crate) fn is_problem_json(value: &HeaderValue) -> bool {
    let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(PROBLEM_JSON.as_bytes())
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn parse_retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let after = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(after.min(MAX_RETRY_AFTER))
}
