//! The errors of sends that have a type of their own.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use throughline::{Code, Error};

/// No service has this name: the source of a `NOT_FOUND` that [`Transport::send`] returns.
///
/// It differs from the `NOT_FOUND` of a service that exists.
///
/// # Examples
/// ```
/// use std::error::Error as _;
/// use bytes::Bytes;
/// use http::Request;
/// use throughline::{Code, Context};
/// use throughline_transport::{NoSuchService, Transport};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let sent = Transport::in_process().send(&Context::background(), "balance", Request::new(Bytes::new())).await;
/// let error = sent.expect_err("nobody listens");
/// assert_eq!((error.code(), error.message()), (Code::NotFound, "no service is called balance"));
/// assert_eq!(NoSuchService::find_in(&error).map(NoSuchService::service), Some("balance"));
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`Transport::send`]: crate::Transport::send
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchService {
    service: Arc<str>,
}

impl NoSuchService {
    /// Makes the error of a service that nothing listens to.
    pub fn new(service: impl Into<Arc<str>>) -> Self {
        NoSuchService { service: service.into() }
    }

    /// Returns the name that was asked for.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Finds it among an error and its sources.
    pub fn find_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a NoSuchService> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for NoSuchService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no service is called {}", self.service)
    }
}

impl std::error::Error for NoSuchService {}

/// `NOT_FOUND`, not retryable, with the `NoSuchService` as its source.
impl From<NoSuchService> for Error {
    fn from(error: NoSuchService) -> Error {
        let message = error.to_string();
        Error::wrap(Code::NotFound, error).with_message(message).with_retryable(false)
    }
}

/// `RESOURCE_EXHAUSTED` for a body that is larger than the limit.
pub(crate) fn too_large(what: &str, service: &str, limit: usize) -> Error {
    let message = format!("the {what} of {service} is larger than {limit} bytes");
    Error::new(Code::ResourceExhausted, message).with_retryable(false)
}

/// The response that carries `error` to the caller of `service`.
pub(crate) fn response_of(error: Error, service: &str) -> Response<Bytes> {
    error.through_service(Some(service)).to_response()
}

/// Whether a response says that its service failed.
pub(crate) fn is_failure(status: StatusCode) -> bool {
    status.is_server_error()
}
