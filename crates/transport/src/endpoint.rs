//! A tower service that sends requests over a medium.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body_util::Full;
use throughline::{Code, Error};
use tower::Service;

use crate::error::too_large;
use crate::medium::{Medium, Outgoing};

/// Sends requests to one service, or to one instance of it. Cloning costs reference counts.
///
/// [`Transport::endpoint`](crate::Transport::endpoint) makes it. It is always ready. It injects no
/// context and makes no span: put a [`ClientLayer`](throughline::ClientLayer) around it.
#[derive(Clone)]
pub struct Endpoint {
    medium: Arc<dyn Medium>,
    sending: Arc<AtomicUsize>,
    service: Arc<str>,
    /// The name as an authority, checked once. `None`: it is not valid as one.
    authority: Option<Authority>,
    instance: Option<Arc<str>>,
    max_body: usize,
}

impl Endpoint {
    pub(crate) fn new(
        medium: Arc<dyn Medium>,
        sending: Arc<AtomicUsize>,
        service: Arc<str>,
        instance: Option<Arc<str>>,
        max_body: usize,
    ) -> Self {
        let authority = Authority::from_maybe_shared(Bytes::copy_from_slice(service.as_bytes())).ok();
        Endpoint { medium, sending, service, authority, instance, max_body }
    }

    /// Returns the name of the service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Returns the name of the instance. `None`: any.
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// Makes the name of the service the authority of the request's URI.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the name is not valid as an authority.
    pub fn address<B>(&self, request: Request<B>) -> Result<Request<B>, Error> {
        let mut request = request;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        let Some(authority) = &self.authority else {
            let message = format!("{:?} is not valid as an authority", self.service);
            return Err(Error::new(Code::InvalidArgument, message));
        };
        parts.authority = Some(authority.clone());
        parts.scheme = Some(Scheme::HTTP);
        if parts.path_and_query.is_none() {
            parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        }
        *request.uri_mut() = Uri::from_parts(parts).map_err(|e| Error::wrap(Code::InvalidArgument, e))?;
        Ok(request)
    }
}

impl Service<Request<Full<Bytes>>> for Endpoint {
    type Response = Response<Full<Bytes>>;
    type Error = Error;
    type Future = Sending;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Sending {
        let request = request.map(|body| body.into_inner().unwrap_or_default());
        let (service, max_body) = (Arc::clone(&self.service), self.max_body);
        if request.body().len() > max_body {
            return Sending(State::Refused(Some(too_large("request body", &service, max_body))));
        }
        let guard = Guard::new(&self.sending);
        let outgoing = Outgoing { service: Arc::clone(&service), instance: self.instance.clone(), request, max_body };
        Sending(State::Sent { response: self.medium.send(outgoing), service, max_body, _guard: guard })
    }
}

/// Counts a request as being sent, until it is dropped.
struct Guard(Arc<AtomicUsize>);

impl Guard {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Guard(Arc::clone(count))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The future of an [`Endpoint`]: resolves to the response. Dropping it cancels the call.
pub struct Sending(State);

enum State {
    Sent {
        // Dropped before the guard, so that a request counts until the medium has let go of it.
        response: BoxFuture<'static, Result<Response<Bytes>, Error>>,
        service: Arc<str>,
        max_body: usize,
        _guard: Guard,
    },
    Refused(Option<Error>),
}

impl Future for Sending {
    type Output = Result<Response<Full<Bytes>>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Sent { response, service, max_body, .. } => {
                let response = ready!(response.as_mut().poll(cx))?;
                let is_too_large = response.body().len() > *max_body;
                Poll::Ready(match is_too_large {
                    true => Err(too_large("response body", service, *max_body)),
                    false => Ok(response.map(Full::new)),
                })
            }
            State::Refused(error) => Poll::Ready(Err(error.take().expect("a future is not polled after it is ready"))),
        }
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").finish_non_exhaustive()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("service", &self.service)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}
