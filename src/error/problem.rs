//! Problem documents: RFC 9457, with the members `code`, `retryable`, `origin`, `path` and
//! `details`.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::public::Problem;
use super::{Code, Error, MAX_NAME, MAX_PATH, cut};

/// The media type of a problem document.
const PROBLEM_JSON: &str = "application/problem+json";
/// The `type` of a problem that has no meaning beyond its status (RFC 9457 §4.2.1).
const BLANK: &str = "about:blank";

/// The most bytes of a document. A larger one is not read.
pub(crate) const MAX_DOCUMENT: usize = 64 * 1024;
/// The longest wait that a peer can ask for.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// The most bytes of a message. The rest is cut off.
pub(super) const MAX_TEXT: usize = 4096;
/// The most bytes of a `type`, a `title` or an `instance`.
pub(super) const MAX_MEMBER: usize = 512;

impl Error {
    /// The response that reports this error, as a problem document.
    ///
    /// - The error itself is among the response's extensions.
    /// - `Retry-After` is in whole seconds, rounded up. `WWW-Authenticate` has the
    ///   [challenges](Self::with_www_authenticate).
    /// - The message is cut off at 4 KiB.
    /// - Details that make the document larger than 64 KiB are left out: no peer would read it.
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

    /// The response with another status than the code's.
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
        for challenge in self.challenges() {
            headers.append(header::WWW_AUTHENTICATE, challenge.clone());
        }
        response.extensions_mut().insert(self.clone());
        response
    }

    fn document(&self, status: StatusCode) -> Value {
        let kind = self.problem_type().filter(|kind| kind.len() <= MAX_MEMBER);
        let title = self.title().map(|title| cut(title, MAX_MEMBER)).or(match kind {
            Some(_) => None,
            // RFC 9457 §4.2.1: the reason phrase.
            None => Some(reason(status)),
        });
        let mut document = json!({
            "type": kind.unwrap_or(BLANK), "status": status.as_u16(), "detail": cut(self.message(), MAX_TEXT),
            "code": self.code().as_str(),
        });
        let mut add = |name: &str, value: Option<Value>| {
            if let (Some(object), Some(value)) = (document.as_object_mut(), value) {
                object.insert(name.to_owned(), value);
            }
        };
        add("title", title.map(Value::from));
        add("instance", self.instance().filter(|instance| instance.len() <= MAX_MEMBER).map(Value::from));
        add("retryable", self.retryable().map(Value::from));
        add("origin", self.origin().map(Value::from));
        add("path", Some(self.path().collect::<Vec<_>>()).filter(|path| !path.is_empty()).map(Value::from));
        add("details", Some(self.sent_details()).filter(|details| !details.is_empty()).map(|details| json!(details)));
        document
    }

    /// The error that a response from a trusted service reports. `None`: it reports none.
    ///
    /// - A malformed document, or one larger than 64 KiB, is ignored: the status alone counts.
    /// - At most 16 services of a path are kept. `Retry-After` is at most an hour.
    /// - Other JSON, text, and members of other libraries are [`received`](Self::received).
    /// - `WWW-Authenticate` is not read: it is for this process, not for its callers.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let sent = Error::new(Code::NotFound, "no such card").to_response();
    /// let read = Error::from_response(sent.status(), sent.headers(), sent.body());
    /// let read = read.expect("a 404 is an error");
    /// assert_eq!((read.code(), read.message()), (Code::NotFound, "no such card"));
    /// ```
    pub fn from_response(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Error> {
        Some(Error::from_status(status, headers)?.with_problem_body(headers, body))
    }

    /// The error that the head of an untrusted response reports. `None`: it reports none.
    ///
    /// Only the status and `Retry-After` count.
    pub fn from_status(status: StatusCode, headers: &HeaderMap) -> Option<Error> {
        Some(Error::from_head(Code::from_http_status(status)?, headers))
    }

    /// The error of a response whose status means `code`, with its `Retry-After`.
    pub(crate) fn from_head(code: Code, headers: &HeaderMap) -> Error {
        let retry_after = headers.get(header::RETRY_AFTER).and_then(parse_retry_after);
        Error::new(code, code.describe()).change(|inner| {
            inner.is_remote = true;
            inner.retry_after = retry_after;
        })
    }

    /// Adds what the body says: reads a problem document, keeps other JSON and text.
    pub(crate) fn with_problem_body(self, headers: &HeaderMap, body: &[u8]) -> Error {
        let Some(media_type) = headers.get(header::CONTENT_TYPE).filter(|_| body.len() <= MAX_DOCUMENT) else {
            return self;
        };
        if is_problem_json(media_type) {
            return match serde_json::from_slice::<Map<String, Value>>(body) {
                Ok(mut document) => {
                    let error = self.with_members(&mut document);
                    remove_standard(&mut document);
                    error.with_received((!document.is_empty()).then_some(Value::Object(document)))
                }
                Err(_) => self,
            };
        }
        let media_type = essence(media_type).to_ascii_lowercase();
        if media_type == b"application/json" || media_type.ends_with(b"+json") {
            self.with_received(serde_json::from_slice(body).ok())
        } else if media_type.starts_with(b"text/") {
            let text = String::from_utf8_lossy(body);
            self.with_received((!text.is_empty()).then(|| cut(&text, MAX_TEXT).into()))
        } else {
            self
        }
    }

    pub(super) fn with_received(self, received: Option<Value>) -> Error {
        self.change(|inner| inner.received = received)
    }

    /// Adds what the members of a trusted service's document say, and removes them from it.
    pub(super) fn with_members(self, document: &mut Map<String, Value>) -> Error {
        let text = |value: &Value, limit| value.as_str().map(|text| cut(text, limit).to_owned());
        let name = |value: &Value| text(value, MAX_NAME);
        let problem = read_problem(document);
        self.change(|inner| {
            inner.problem = problem.map(Box::new);
            if let Some(code) = take(document, "code", |code| code.as_str()?.parse().ok()) {
                inner.code = code;
                inner.message = inner.code.describe().into();
            }
            let detail = take(document, "detail", |detail| text(detail, MAX_TEXT).filter(|detail| !detail.is_empty()));
            if let Some(detail) = detail {
                inner.message = detail.into();
                inner.is_message_private = true;
            }
            inner.retryable = take(document, "retryable", Value::as_bool);
            let path = take(document, "path", |path| {
                let path: Vec<_> = path.as_array()?.iter().filter_map(name).take(MAX_PATH).collect();
                (!path.is_empty()).then_some(path)
            });
            let origin = take(document, "origin", name);
            inner.path = path.unwrap_or_else(|| origin.into_iter().collect());
            if let Some(Value::Array(details)) = document.get_mut("details") {
                let is_typed = |detail: &Value| detail.get("@type").is_some_and(Value::is_string);
                let (typed, others): (Vec<_>, Vec<_>) = std::mem::take(details).into_iter().partition(is_typed);
                *details = others;
                let objects = typed.into_iter().filter_map(|detail| match detail {
                    Value::Object(object) => Some(object),
                    _ => None,
                });
                inner.details = objects.collect();
            }
        })
    }
}

/// The `type`, `title` and `instance` of a document. `None`: it has none that says anything.
fn read_problem(document: &mut Map<String, Value>) -> Option<Problem> {
    let text =
        |value: &Value| value.as_str().filter(|text| text.len() <= MAX_MEMBER).map(|text| text.to_owned().into());
    let status = document.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let reason = status.and_then(|status| StatusCode::from_u16(status).ok()).map(reason);
    let kind = take(document, "type", text).filter(|kind: &Cow<'_, str>| kind != BLANK);
    let title = take(document, "title", text).filter(|title| kind.is_some() || reason != Some(&**title));
    let instance = take(document, "instance", text);
    let is_any = kind.is_some() || title.is_some() || instance.is_some();
    is_any.then_some(Problem { kind, title, instance, is_private: true, challenges: Vec::new() })
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Client Closed Request")
}

/// Removes a member from `document` if `read` understands it.
fn take<T>(document: &mut Map<String, Value>, name: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
    let value = read(document.get(name)?)?;
    document.remove(name);
    Some(value)
}

/// Removes the members that only repeat the status or say nothing.
fn remove_standard(document: &mut Map<String, Value>) {
    document.remove("status");
    if document.get("details").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        document.remove("details");
    }
}

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl axum::response::IntoResponse for Error {
    /// Same as [`to_response`](Error::to_response).
    ///
    /// A [`ContextLayer`](crate::ContextLayer) then adds the service to the path.
    fn into_response(self) -> axum::response::Response {
        self.to_response().map(axum::body::Body::from)
    }
}

pub(crate) fn is_problem_json(value: &HeaderValue) -> bool {
    essence(value).eq_ignore_ascii_case(PROBLEM_JSON.as_bytes())
}

/// A media type without its parameters.
fn essence(value: &HeaderValue) -> &[u8] {
    value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Parses seconds, or a date (RFC 9110 §10.2.3).
fn parse_retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let after = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(after.min(MAX_RETRY_AFTER))
}
