//! JSON bodies, whose errors are an [`Error`].

mod message;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use throughline::{Code, Error};

/// A JSON body: as an argument of a handler the request's, as its result the response's.
///
/// It is axum's `Json` with other errors.
///
/// | The request | The handler is not called, and the response is |
/// |---|---|
/// | has a body that is not JSON, or not a `T` | `INVALID_ARGUMENT` |
/// | is nested deeper than 128 values | `INVALID_ARGUMENT` |
/// | does not say `Content-Type: application/json`, or `application/…+json` | `INVALID_ARGUMENT` |
/// | has a body over axum's limit, outside a [`Service`](crate::Service) | `RESOURCE_EXHAUSTED` |
///
/// The message has the path of the field, what is wrong with it, and the position. It has no value
/// of the body: a value that serde's message quotes is left out, and so is a message of the type's
/// own `Deserialize`. Names of fields are part of the message.
///
/// A response that cannot be serialized becomes `INTERNAL`.
///
/// # Examples
/// ```
/// use throughline::{Code, Error};
/// use throughline_service::Json;
///
/// #[derive(Debug, serde::Deserialize)]
/// struct Reservation { amount: u64 }
///
/// let error = Json::<Reservation>::from_bytes(br#"{"amount":"ten"}"#).unwrap_err();
/// assert_eq!(error.code(), Code::InvalidArgument);
/// assert_eq!(error.message(), "amount: invalid type: string, expected u64 at line 1 column 15");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> Json<T> {
    /// Reads a value from JSON.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: it is not JSON, or not a `T`.
    pub fn from_bytes(json: &[u8]) -> Result<Self, Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let value = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| message::describe(error.path(), error.inner()))
            .and_then(|value| deserializer.end().map(|()| value).map_err(|error| error.to_string()));
        value.map(Json).map_err(|message| Error::new(Code::InvalidArgument, message))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        if !is_json(request.headers()) {
            return Err(Error::new(Code::InvalidArgument, "the content type is not application/json"));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(unreadable)?;
        Self::from_bytes(&bytes)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some(kind) = essence.strip_prefix("application/") else { return false };
    kind == "json" || kind.ends_with("+json")
}

/// The error of a body that cannot be read.
fn unreadable(rejection: BytesRejection) -> Error {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Error::new(Code::ResourceExhausted, "the request body is too large").with_retryable(false)
        }
        _ => Error::wrap(Code::InvalidArgument, rejection).with_message("the request body cannot be read"),
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(json) => {
                let mut response = Response::new(Body::from(json));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => Error::wrap(Code::Internal, error).into_response(),
        }
    }
}

impl<T> From<T> for Json<T> {
    fn from(value: T) -> Self {
        Json(value)
    }
}
