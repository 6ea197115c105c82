//! Named services over any medium.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use throughline::middleware::client::error_for_status;
use throughline::{Cause, ClientLayer, Code, Context, Error};
use tower::discover::Change;
use tower::{Layer, Service};

use crate::control::{Control, Limits};
use crate::in_process::InProcess;
use crate::inbox::channel;
use crate::{Endpoint, Listener, ListenerCounters, Medium};

/// Sends requests to named services, and receives them. Cloning costs one reference count.
///
/// A request is an `http::Request<Bytes>`, a response an `http::Response<Bytes>`, on every medium.
/// So a service does not depend on the medium: another transport is another line in `main`.
///
/// | Medium | Made by | Needs |
/// |---|---|---|
/// | this process | [`in_process`](Self::in_process) | nothing |
/// | HTTP/2 | `http2`, with the feature `http2` | nothing |
/// | NATS | `nats`, with the feature `nats` | a `nats-server` |
/// | any other | [`new`](Self::new) | a [`Medium`] |
///
/// The `throughline-service` crate has handlers, clients, balancing and circuit breaking on top.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use throughline::Context;
/// use throughline_transport::Transport;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let transport = Transport::in_process();
/// let mut cards = transport.listen("cards").await?;
/// tokio::spawn(async move {
///     while let Some(incoming) = cards.next().await {
///         incoming.responder.respond(Response::new(Bytes::from("active")));
///     }
/// });
/// let response = transport.send(&Context::background(), "cards", Request::new(Bytes::new())).await?;
/// assert_eq!(response.body(), "active");
///
/// assert!(transport.stop_listening("cards").await);
/// assert!(!transport.stop_listening("cards").await);
/// # Ok::<(), throughline::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Transport {
    medium: Arc<dyn Medium>,
    listeners: Arc<Mutex<HashMap<Arc<str>, Arc<Control>>>>,
    sending: Arc<AtomicUsize>,
    client: ClientLayer,
    /// The services that were called.
    peers: Arc<Mutex<HashMap<Box<str>, Arc<Peer>>>>,
    limits: Limits,
    drain_timeout: Duration,
}

/// What a call of a service needs, made once.
struct Peer {
    /// Has the service as its peer.
    layer: ClientLayer,
    endpoint: Endpoint,
}

impl Transport {
    /// The default of [`max_in_flight`](Self::max_in_flight).
    pub const MAX_IN_FLIGHT: usize = 1024;
    /// The default of [`max_body`](Self::max_body): 4 MiB.
    pub const MAX_BODY: usize = 4 << 20;
    /// The default of [`drain_timeout`](Self::drain_timeout): 20 s.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

    /// A transport between services of this process.
    pub fn in_process() -> Self {
        Self::new(InProcess::default())
    }

    /// A transport over a medium.
    pub fn new(medium: impl Medium) -> Self {
        Transport {
            medium: Arc::new(medium),
            listeners: Arc::default(),
            sending: Arc::default(),
            client: ClientLayer::internal(),
            peers: Arc::default(),
            limits: Limits { in_flight: Self::MAX_IN_FLIGHT, body: Self::MAX_BODY },
            drain_timeout: Self::DRAIN_TIMEOUT,
        }
    }

    /// Sets how many requests a listener takes at the same time; default: 1,024.
    ///
    /// A request counts from its arrival to its response. One more is refused at once with
    /// `RESOURCE_EXHAUSTED`. It holds for listeners that are made later, by this value.
    pub fn max_in_flight(mut self, requests: std::num::NonZeroUsize) -> Self {
        // The limit of tokio's channels. It is far beyond the memory of a machine.
        self.limits.in_flight = requests.get().min(tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// Sets the size of the largest body of a request or a response, in bytes; default: 4 MiB.
    ///
    /// A larger one is `RESOURCE_EXHAUSTED`.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.limits.body = bytes;
        self.peers = Arc::default();
        self
    }

    /// Sets how long requests in flight may run when a listener is stopped; default: 20 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Sets the layer that [`send`](Self::send) uses; default: [`ClientLayer::internal`].
    ///
    /// Its [`peer`](ClientLayer::peer) is the service that is called.
    pub fn client_layer(mut self, layer: ClientLayer) -> Self {
        self.client = layer;
        self.peers = Arc::default();
        self
    }

    /// Starts to receive requests for `service`.
    ///
    /// # Errors
    /// - `INVALID_ARGUMENT`: the name is empty, longer than 63 bytes, or has other characters than
    ///   ASCII letters, digits, `-` and `_`.
    /// - `ALREADY_EXISTS`: this transport has a listener for the name.
    /// - `UNAVAILABLE`: the medium cannot be reached. The message says what to check.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn listen(&self, service: &str) -> Result<Listener, Error> {
        let service: Arc<str> = check_name(service)?.into();
        let (inbox, receiver) = channel(Arc::clone(&service), self.limits);
        let control = Arc::clone(inbox.control());
        let taken = {
            let mut listeners = lock(&self.listeners);
            match listeners.get(&service).is_some_and(|existing| !existing.closed.is_done()) {
                true => true,
                false => {
                    listeners.insert(Arc::clone(&service), Arc::clone(&control));
                    false
                }
            }
        };
        if taken {
            return Err(Error::new(Code::AlreadyExists, format!("{service} has a listener already")));
        }
        // Closes the inbox if this future is dropped, or if the medium fails.
        let listener = Listener::new(receiver, Arc::clone(&control));
        let receiving = self.medium.listen(inbox).await?;
        tokio::spawn(async move {
            let closed = control.closed.done_owned();
            tokio::select! { () = receiving => {}, () = closed => {} }
            control.received.cancel();
        });
        Ok(listener)
    }

    /// Stops to receive requests for `service`. Returns whether there was a listener.
    ///
    /// Requests in flight go on. When the [drain time](Self::drain_timeout) has passed, those that
    /// [`Listener::serve`] handles are cancelled with [`Cause::Shutdown`]. Then the listener's
    /// stream ends. It returns when the listener has ended, at most 100 ms after the drain time.
    ///
    /// # Cancellation safety
    /// If the future is dropped, the listener takes no new requests, and does not end by itself.
    /// Call it again to go on.
    pub async fn stop_listening(&self, service: &str) -> bool {
        self.stop_listening_until(&Context::background().with_timeout(self.drain_timeout), service).await
    }

    /// Stops to receive requests for `service`, with `ctx` in place of the drain time.
    ///
    /// Requests in flight go on until `ctx` is done. Otherwise it is as
    /// [`stop_listening`](Self::stop_listening). With the context of a
    /// [`Shutdown`](throughline::Shutdown), they have the grace of the shutdown.
    pub async fn stop_listening_until(&self, ctx: &Context, service: &str) -> bool {
        let Some(control) = lock(&self.listeners).get(service).cloned().filter(|control| !control.closed.is_done())
        else {
            return false;
        };
        control.draining.cancel_with(Cause::Shutdown);
        let ended = async {
            if ctx.run(control.drained()).await.is_err() {
                control.overdue.cancel_with(Cause::Shutdown);
                let _ = tokio::time::timeout(UNWIND, control.drained()).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = control.closed.done() => {}
        }
        control.close();
        let mut listeners = lock(&self.listeners);
        let removed = listeners.get(service).is_some_and(|other| Arc::ptr_eq(other, &control));
        let removed = if removed { listeners.remove(service) } else { None };
        drop(listeners);
        drop(removed);
        true
    }

    /// Sends `request` to an instance of `service` with the context `ctx`.
    ///
    /// The call ends with `ctx`: a call with a timeout of its own is
    /// `send(&ctx.with_timeout(…), …)`. It has a CLIENT span, and its headers carry the trace, the
    /// time left, the values of keys and the principal. The authority of the URI becomes the name
    /// of the service.
    ///
    /// # Errors
    /// - [`NoSuchService`](crate::NoSuchService), at once: nothing listens to this name.
    /// - `UNAVAILABLE`: there are instances, and none can be reached.
    /// - `DEADLINE_EXCEEDED`, `CANCELLED`: `ctx` is done. The cause is in the message.
    /// - `RESOURCE_EXHAUSTED`: the listener has as many requests in flight as it takes, or a body
    ///   is too large.
    /// - For a response with a status of 400 or more: the error that it describes.
    ///
    /// # Cancellation safety
    /// Dropping the future cancels the call: the handler's context is cancelled with
    /// [`Cause::ClientDisconnected`].
    pub async fn send(
        &self,
        ctx: &Context,
        service: &str,
        mut request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Error> {
        request.extensions_mut().insert(ctx.clone());
        let peer = self.peer(service);
        let request = peer.endpoint.address(request)?.map(Full::new);
        let response = peer.layer.layer(peer.endpoint.clone()).call(request).await?;
        let (head, body) = error_for_status(response).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }

    fn peer(&self, service: &str) -> Arc<Peer> {
        let mut peers = lock(&self.peers);
        if let Some(peer) = peers.get(service) {
            return Arc::clone(peer);
        }
        let layer = self.client.clone().peer(service.to_owned());
        let peer = Arc::new(Peer { layer, endpoint: self.endpoint(service, None) });
        // Names that a caller makes up do not fill the memory.
        if peers.len() < MAX_PEERS {
            peers.insert(service.into(), Arc::clone(&peer));
        }
        peer
    }

    /// Returns a tower service that sends requests to `service`, without a context and a span.
    ///
    /// For clients that have a [`ClientLayer`] of their own. `instance` is a name of
    /// [`instances`](Self::instances); `None` is any.
    pub fn endpoint(&self, service: &str, instance: Option<Arc<str>>) -> Endpoint {
        let sending = Arc::clone(&self.sending);
        Endpoint::new(Arc::clone(&self.medium), sending, service.into(), instance, self.limits.body)
    }

    /// Returns the instances of a service: those of now at once, then the changes.
    ///
    /// It is a `tower::discover::Discover`.
    ///
    /// # Errors
    /// [`NoSuchService`](crate::NoSuchService): the name is not known.
    pub async fn instances(&self, service: &str) -> Result<Instances, Error> {
        let changes = self.medium.instances(service).await?;
        let (transport, service) = (self.clone(), Arc::<str>::from(service));
        let endpoints = changes.map(move |change| {
            Ok(match change {
                Change::Insert(name, ()) => {
                    let instance = Some(Arc::clone(&name)).filter(|name| !name.is_empty());
                    Change::Insert(name, transport.endpoint(&service, instance))
                }
                Change::Remove(name) => Change::Remove(name),
            })
        });
        Ok(endpoints.boxed())
    }

    /// Returns what the listener for `service` has counted. `None`: there is none.
    pub fn counters(&self, service: &str) -> Option<ListenerCounters> {
        let control = lock(&self.listeners).get(service).cloned()?;
        (!control.closed.is_done()).then(|| control.counters())
    }

    /// Returns the address that requests arrive at. `None`: the medium has no address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.medium.local_addr()
    }

    /// Returns how many requests this transport has sent and waits for, clones included.
    pub fn sending(&self) -> usize {
        self.sending.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many names have their peer kept.
const MAX_PEERS: usize = 1024;

/// The time for cancelled requests to be dropped.
const UNWIND: Duration = Duration::from_millis(100);

/// The instances of a service, by their names. See [`Transport::instances`].
pub type Instances = BoxStream<'static, Result<Change<Arc<str>, Endpoint>, Error>>;

/// A name must be valid as a host, as a subject of NATS, and in a path.
fn check_name(service: &str) -> Result<&str, Error> {
    if is_name(service) {
        return Ok(service);
    }
    let message = "a service's name has 1 to 63 ASCII letters, digits, '-' and '_'";
    Err(Error::new(Code::InvalidArgument, format!("{message}: {service:?}")))
}

pub(crate) fn is_name(service: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !service.is_empty() && service.len() <= 63 && service.bytes().all(is_valid)
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("medium", &self.medium).finish_non_exhaustive()
    }
}
