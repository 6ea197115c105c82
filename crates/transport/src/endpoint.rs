//! A tower service that sends requests over a medium.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
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
        Endpoint { medium, sending, service, instance, max_body }
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
        let authority = Authority::from_maybe_shared(Bytes::copy_from_slice(self.service.as_bytes()));
        parts.authority = Some(authority.map_err(|e| Error::wrap(Code::InvalidArgument, e))?);
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
        let service = Arc::clone(&self.service);
        let (medium, instance, max_body) = (Arc::clone(&self.medium), self.instance.clone(), self.max_body);
        let guard = Guard::new(&self.sending);
        Sending(Box::pin(async move {
            let _guard = guard;
            let (head, body) = request.into_parts();
            // A `Full` has one frame, so nothing is copied.
            let body = body.collect().await.unwrap_or_else(|never| match never {}).to_bytes();
            if body.len() > max_body {
                return Err(too_large("request body", &service, max_body));
            }
            let request = Request::from_parts(head, body);
            let name = Arc::clone(&service);
            let response = medium.send(Outgoing { service, instance, request, max_body }).await?;
            if response.body().len() > max_body {
                return Err(too_large("response body", &name, max_body));
            }
            Ok(response.map(Full::new))
        }))
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
pub struct Sending(BoxFuture<'static, Result<Response<Full<Bytes>>, Error>>);

impl Future for Sending {
    type Output = Result<Response<Full<Bytes>>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
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
