//! What an untrusted client sees of an error.
//!
//! - *Public detail:* a detail that its service has marked as one that any client may see.
//! - *Problem:* the members `type`, `title` and `instance` of a problem document (RFC 9457).
//! - *Challenge:* a value of `WWW-Authenticate` (RFC 9110 §11.6.1).

use std::borrow::Cow;

use http::HeaderValue;
use serde_json::{Map, Value, json};

use super::{Error, Inner};

/// The member that marks a public detail. Internal services send it, edges do not.
const PUBLIC: &str = "@public";
/// The message of `google.rpc` that lists the fields of a request that are wrong.
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// The part of an error that only problem documents and their headers show.
#[derive(Clone, Default)]
pub(super) struct Problem {
    pub(super) kind: Option<Cow<'static, str>>,
    pub(super) title: Option<Cow<'static, str>>,
    pub(super) instance: Option<Cow<'static, str>>,
    /// `kind`, `title` and `instance` are another service's. Untrusted clients must not see them.
    pub(super) is_private: bool,
    /// Never received: a challenge is for the client of the service that sends it.
    pub(super) challenges: Vec<HeaderValue>,
}

impl Error {
    /// Adds a detail that any client may see. `type_url` becomes its `@type`.
    ///
    /// An edge [redacts](Self::redacted) all other details. It keeps this one, also if the error
    /// comes from an internal service. In this process, and between internal services, the detail
    /// has the member `@public`.
    ///
    /// A gRPC status has the standard messages of `google.rpc` as protobuf messages: a detail whose
    /// `@type` and members are those of protobuf's JSON. Other details are JSON in its `ErrorInfo`.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let missing = [("missing_cents".to_owned(), 120.into())].into_iter().collect();
    /// let error = Error::new(Code::FailedPrecondition, "the balance is too low")
    ///     .with_public_detail("bank.example/LowBalance", missing);
    /// assert_eq!(error.redacted().details()[0]["missing_cents"], 120);
    /// ```
    #[must_use]
    pub fn with_public_detail(self, type_url: &str, object: Map<String, Value>) -> Error {
        let error = self.with_detail(type_url, object);
        error.change(|inner| mark(inner.details.last_mut().expect("it was just added")))
    }

    /// Adds a public detail: a field of the request is wrong.
    ///
    /// All fields of an error are in one `google.rpc.BadRequest`, the standard message for them.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let error = Error::new(Code::InvalidArgument, "2 fields are wrong")
    ///     .with_field_violation("amount", "must be positive")
    ///     .with_field_violation("currency", "unknown");
    /// let [detail] = error.details() else { panic!("one detail has all fields") };
    /// assert_eq!(detail["@type"], "type.googleapis.com/google.rpc.BadRequest");
    /// assert_eq!(detail["fieldViolations"][1]["field"], "currency");
    /// ```
    #[must_use]
    pub fn with_field_violation(self, field: &str, description: &str) -> Error {
        let violation = json!({"field": field, "description": description});
        let is_list = |detail: &&mut Map<String, Value>| is_public(detail) && detail["@type"] == BAD_REQUEST;
        self.change(|inner| {
            let list = inner.details.iter_mut().find(is_list).and_then(|detail| detail.get_mut("fieldViolations"));
            match list.and_then(Value::as_array_mut) {
                Some(list) => list.push(violation),
                None => {
                    let mut detail = Map::from_iter([("fieldViolations".to_owned(), json!([violation]))]);
                    detail.insert("@type".to_owned(), BAD_REQUEST.into());
                    mark(&mut detail);
                    inner.details.push(detail);
                }
            }
        })
    }

    /// Sets the `type` of the problem document: a URI that identifies the kind of problem.
    ///
    /// RFC 9457 §3.1.1. Default: `about:blank`. A URI of more than 512 bytes is not sent.
    ///
    /// `type`, [`title`](Self::with_title) and [`instance`](Self::with_instance) belong together:
    /// - Clients of the service that sets them see them, untrusted ones too.
    /// - Setting one of them replaces all three of an error from another service.
    /// - They are removed when the error's code becomes `INTERNAL` on its way through a
    ///   [service](Self::through_service). An edge removes those of another service.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let error = Error::new(Code::FailedPrecondition, "120 cents are missing")
    ///     .with_problem_type("https://bank.example/problems/low-balance")
    ///     .with_title("The balance is too low");
    /// let sent = error.to_response();
    /// let document: serde_json::Value = serde_json::from_slice(sent.body())?;
    /// assert_eq!(document["type"], "https://bank.example/problems/low-balance");
    /// assert_eq!(document["title"], "The balance is too low");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn with_problem_type(self, uri: impl Into<Cow<'static, str>>) -> Error {
        self.change(|inner| own(inner).kind = Some(uri.into()))
    }

    /// Sets the `title` of the problem document: the kind of problem in a few words.
    ///
    /// RFC 9457 §3.1.3. It is the same for all problems of one
    /// [type](Self::with_problem_type). It is cut off at 512 bytes. Default: the reason phrase of
    /// the status. If a type is set: no title.
    #[must_use]
    pub fn with_title(self, title: impl Into<Cow<'static, str>>) -> Error {
        self.change(|inner| own(inner).title = Some(title.into()))
    }

    /// Sets the `instance` of the problem document: a URI that identifies this occurrence.
    ///
    /// RFC 9457 §3.1.5. Default: none. A URI of more than 512 bytes is not sent.
    #[must_use]
    pub fn with_instance(self, uri: impl Into<Cow<'static, str>>) -> Error {
        self.change(|inner| own(inner).instance = Some(uri.into()))
    }

    /// Adds a challenge: a value of the response header `WWW-Authenticate`.
    ///
    /// It is sent over HTTP, whatever the status. It is not read from responses. A gRPC status does
    /// not have it.
    ///
    /// ```
    /// use http::HeaderValue;
    /// use throughline::{Code, Error};
    ///
    /// let error = Error::new(Code::Unauthenticated, "the token has expired")
    ///     .with_www_authenticate(HeaderValue::from_static(r#"Bearer error="invalid_token""#));
    /// let response = error.to_response();
    /// assert_eq!(response.status(), 401);
    /// assert_eq!(response.headers()["www-authenticate"], r#"Bearer error="invalid_token""#);
    /// ```
    #[must_use]
    pub fn with_www_authenticate(self, challenge: HeaderValue) -> Error {
        self.change(|inner| problem(inner).challenges.push(challenge))
    }

    /// Returns the `type` of the problem document. `None`: `about:blank`.
    pub fn problem_type(&self) -> Option<&str> {
        self.0.problem.as_ref()?.kind.as_deref()
    }

    /// Returns the `title` of the problem document, unless it only repeats the status.
    pub fn title(&self) -> Option<&str> {
        self.0.problem.as_ref()?.title.as_deref()
    }

    /// Returns the `instance` of the problem document.
    pub fn instance(&self) -> Option<&str> {
        self.0.problem.as_ref()?.instance.as_deref()
    }

    pub(super) fn challenges(&self) -> &[HeaderValue] {
        self.0.problem.as_ref().map_or(&[], |problem| &problem.challenges)
    }

    /// The error for an untrusted client.
    ///
    /// | Part | What the client sees |
    /// |---|---|
    /// | code, `retryable`, the time to wait | unchanged |
    /// | message | this service's own, also one set [later](Self::with_message) |
    /// | message of another service, or of an `INTERNAL`, `UNKNOWN` or `DATA_LOSS` | the meaning of the code |
    /// | `type`, `title`, `instance` | this service's own |
    /// | [public details](Self::with_public_detail) | unchanged, also those of another service |
    /// | other details, origin, path | nothing |
    ///
    /// [`ContextLayer::edge`](crate::ContextLayer::edge) calls this for the responses of HTTP
    /// handlers.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let error = Error::new(Code::Internal, "row 7 has no owner").through_service(Some("cards"));
    /// let error = error.redacted();
    /// assert_eq!((error.message(), error.origin()), ("internal error", None));
    /// ```
    #[must_use]
    pub fn redacted(self) -> Error {
        self.change(|inner| {
            inner.path.clear();
            inner.details.retain(is_public);
            inner.is_redacted = true;
            if let Some(problem) = inner.problem.as_deref_mut().filter(|problem| problem.is_private) {
                problem.remove_description();
            }
            if inner.is_message_private || inner.code.is_internal_detail() {
                inner.message = inner.code.describe().into();
            }
        })
    }

    /// The details as they are sent: untrusted clients do not see which are public.
    pub(super) fn sent_details(&self) -> Cow<'_, [Map<String, Value>]> {
        if !self.0.is_redacted {
            return Cow::Borrowed(self.details());
        }
        Cow::Owned(self.details().iter().map(without_mark).collect())
    }
}

impl Problem {
    pub(super) fn remove_description(&mut self) {
        (self.kind, self.title, self.instance) = (None, None, None);
    }
}

pub(super) fn is_public(detail: &Map<String, Value>) -> bool {
    detail.get(PUBLIC).is_some_and(|mark| mark == true)
}

pub(super) fn without_mark(detail: &Map<String, Value>) -> Map<String, Value> {
    let mut detail = detail.clone();
    remove_mark(&mut detail);
    detail
}

pub(super) fn remove_mark(detail: &mut Map<String, Value>) {
    detail.remove(PUBLIC);
}

fn mark(detail: &mut Map<String, Value>) {
    detail.insert(PUBLIC.to_owned(), true.into());
}

fn problem(inner: &mut Inner) -> &mut Problem {
    inner.problem.get_or_insert_default()
}

/// The problem of this service, without what another service has said.
fn own(inner: &mut Inner) -> &mut Problem {
    let problem = problem(inner);
    if std::mem::take(&mut problem.is_private) {
        problem.remove_description();
    }
    problem
}
