//! What a medium has to do.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::{Request, Response};
use throughline::Error;
use tower::discover::Change;

use crate::Inbox;

/// Moves requests and responses between a [`Transport`](crate::Transport) and its services.
///
/// [`Transport::in_process`](crate::Transport::in_process) and the other transports of this crate
/// are built on one. Implement it for a medium of your own.
///
/// A medium moves the method, the path with its query, the status, the headers and the body. It
/// does not look at contexts: the layers of a transport have written them into the headers. The
/// limits, the draining and the counters are in [`Inbox`], which is the same for each medium.
pub trait Medium: fmt::Debug + Send + Sync + 'static {
    /// Starts to receive requests for [`inbox.service()`](Inbox::service).
    ///
    /// The outer future is ready once requests arrive. The inner one delivers them to the inbox:
    /// the transport polls it on a task. It ends when [`inbox.draining()`](Inbox::draining) is
    /// ready, each request that has arrived is delivered, and each response is sent. It is dropped
    /// when the listener ends.
    ///
    /// # Errors
    /// `ALREADY_EXISTS`: the medium has one listener for each service, and there is one already.
    fn listen(&self, inbox: Inbox) -> BoxFuture<'_, Result<BoxFuture<'static, ()>, Error>>;

    /// Sends a request, and waits for its response.
    ///
    /// Dropping the future cancels the call: the medium lets the other side know.
    ///
    /// # Errors
    /// - [`NoSuchService`](crate::NoSuchService): nothing listens to this name. It is returned at
    ///   once.
    /// - `UNAVAILABLE`: there are instances, and none can be reached.
    /// - `RESOURCE_EXHAUSTED`: the response is larger than [`Outgoing::max_body`].
    /// - `INTERNAL`: the response is not what the medium expects. The message names the service.
    fn send(&self, outgoing: Outgoing) -> BoxFuture<'static, Result<Response<Bytes>, Error>>;

    /// Returns the instances of a service: those of now at once, then the changes.
    ///
    /// Default: one instance with an empty name, because the medium itself chooses. The names go
    /// into [`Outgoing::instance`].
    ///
    /// # Errors
    /// [`NoSuchService`](crate::NoSuchService): the name is not known.
    fn instances<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<InstanceChanges, Error>> {
        let _ = service;
        let all = stream::iter([Change::Insert(Arc::from(""), ())]).chain(stream::pending());
        Box::pin(std::future::ready(Ok(all.boxed())))
    }

    /// Returns the address that the medium receives requests at. Default: it has none.
    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }
}

/// The names of instances that appear and disappear.
pub type InstanceChanges = BoxStream<'static, Change<Arc<str>, ()>>;

/// A request that a [`Medium`] sends.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outgoing {
    /// The service. It is also the authority of the request's URI.
    pub service: Arc<str>,
    /// The instance to send to. `None`: any instance.
    pub instance: Option<Arc<str>>,
    /// The request. Its body is not larger than `max_body`.
    pub request: Request<Bytes>,
    /// The largest body of the response, in bytes.
    pub max_body: usize,
}
