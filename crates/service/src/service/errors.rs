//! Responses of the library itself: errors of layers, unknown routes, wrong methods.

use std::sync::Arc;

use axum::extract::OriginalUri;
use axum::response::IntoResponse;
use http::{Method, StatusCode};
use throughline::{Code, Error};
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;

use super::BoxError;

/// The longest part of a path in a message, in bytes.
const MAX_PATH: usize = 128;

/// Turns the error of a tower layer into an [`Error`], which axum responds with.
///
/// | The error, or one of its sources | Becomes |
/// |---|---|
/// | an [`Error`] | itself |
/// | of tower's `timeout` | `DEADLINE_EXCEEDED` |
/// | of tower's `load_shed` | `RESOURCE_EXHAUSTED` |
/// | any other | `INTERNAL`, with the error as its source |
///
/// [`Service::layer`](super::Service::layer) does it by itself. For a layer with errors around one
/// route, put axum's `HandleErrorLayer` around the layer.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline_service::axum::error_handling::HandleErrorLayer;
/// use throughline_service::axum::handler::Handler;
/// use throughline_service::{Service, layer_error};
/// use tower::timeout::TimeoutLayer;
///
/// async fn block() -> &'static str {
///     "blocked"
/// }
///
/// let timeout = TimeoutLayer::new(Duration::from_millis(250));
/// let service: Service =
///     Service::new("cards").route("block", block.layer((HandleErrorLayer::new(layer_error), timeout)));
/// # let _ = service;
/// ```
pub async fn layer_error<E: Into<BoxError>>(error: E) -> Error {
    let error = error.into();
    let mut next = Some(&*error as &(dyn std::error::Error + 'static));
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<Error>() {
            return error.clone();
        }
        if error.is::<Elapsed>() {
            return Error::new(Code::DeadlineExceeded, "the layer's timeout has passed");
        }
        if error.is::<Overloaded>() {
            return Error::new(Code::ResourceExhausted, "the service is overloaded");
        }
        next = error.source();
    }
    Error::wrap(Code::Internal, error)
}

/// The response to a request for a route that the service does not have.
pub(super) async fn unknown_route(service: Arc<str>, method: Method, uri: OriginalUri) -> Error {
    let path = cut(uri.path());
    Error::new(Code::NotFound, format!("{service} has no route {method} {path}"))
}

/// The response to a request with a method that the route does not have.
pub(super) async fn wrong_method(service: Arc<str>, method: Method, uri: OriginalUri) -> impl IntoResponse {
    let path = cut(uri.path());
    let error = Error::new(Code::Unimplemented, format!("the route {path} of {service} does not take {method}"));
    (StatusCode::METHOD_NOT_ALLOWED, error)
}

/// The start of a path, which is ASCII.
fn cut(path: &str) -> &str {
    path.get(..MAX_PATH).unwrap_or(path)
}
