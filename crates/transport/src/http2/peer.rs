//! One instance: its connection, and the requests on it.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use throughline::{Code, Error, error_message};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{MAX_HEADERS, Options, failure};
use crate::Instance;
use crate::error::too_large;

/// Streams that this side has reset and still remembers, so that late frames do no harm.
const MAX_RESETS: usize = 1 << 14;

/// Late frames of forgotten streams. h2 closes a connection with more of them.
const MAX_LATE_FRAMES: usize = 1 << 18;

/// How often a request is put on another connection because the first one has just ended.
const MAX_CONNECTIONS: usize = 3;

/// How long an instance counts as not reachable after a connection could not be made.
const UNREACHABLE: Duration = Duration::from_secs(1);

pub(super) struct Peer {
    service: Arc<str>,
    instance: Instance,
    options: Options,
    link: Mutex<Link>,
    in_flight: AtomicUsize,
}

struct Link {
    state: State,
    /// When the last connection could not be made.
    failed_at: Option<Instant>,
}

#[derive(Clone)]
enum State {
    None,
    Connecting(Attempt),
    Connected(Connection),
}

/// The attempt to connect that requests at the same time share.
type Attempt = Shared<BoxFuture<'static, Result<Connection, Error>>>;

#[derive(Clone)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Why the connection ended.
    failure: Arc<OnceLock<hyper::Error>>,
}

/// What became of a request.
pub(super) enum Sent {
    /// The instance has got the request.
    Done(Result<Response<Bytes>, Error>),
    /// It has not, and another instance may get it.
    Not(Error),
}

impl Peer {
    pub(super) fn new(service: Arc<str>, instance: Instance, options: Options) -> Arc<Peer> {
        let link = Mutex::new(Link { state: State::None, failed_at: None });
        Arc::new(Peer { service, instance, options, link, in_flight: AtomicUsize::new(0) })
    }

    pub(super) fn instance(&self) -> &Instance {
        &self.instance
    }

    pub(super) fn name(&self) -> Arc<str> {
        self.instance.name()
    }

    /// The smallest one gets the next request.
    pub(super) fn load(&self) -> (bool, usize) {
        let failed_at = self.lock().failed_at;
        let is_unreachable = failed_at.is_some_and(|at| at.elapsed() < UNREACHABLE);
        (is_unreachable, self.in_flight.load(Ordering::Relaxed))
    }

    /// Sends a request. Dropping the future resets its stream.
    ///
    /// When the connection ends before the instance has taken the request, another one gets it.
    pub(super) async fn send(self: &Arc<Self>, request: &Request<Bytes>, max_body: usize) -> Sent {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let _in_flight = InFlight(self);
        let mut last = None;
        for _ in 0..MAX_CONNECTIONS {
            let mut connection = match self.connection().await {
                Ok(connection) => connection,
                Err(error) => return Sent::Not(error),
            };
            let sending = connection.sender.try_send_request(self.prepare(request));
            let mut error = match sending.await {
                Ok(response) => return Sent::Done(self.read(response, max_body).await),
                Err(error) => error,
            };
            let was_taken = error.take_message().is_none();
            let failure = error.into_error();
            if was_taken && failure::is_refused(&failure) {
                return Sent::Not(self.failed(failure));
            }
            if was_taken && !failure::is_going_away(&failure) {
                return Sent::Done(Err(self.failed(failure)));
            }
            if let Some(garbage) = connection.failure.get().filter(|failure| failure::is_garbage(failure)) {
                return Sent::Done(Err(failure::no_http2(&self.service, self.instance.address(), garbage)));
            }
            self.discard(&connection);
            last = Some(failure);
        }
        Sent::Not(self.failed(last.expect("there was an attempt")).with_retryable(true))
    }

    fn prepare(&self, request: &Request<Bytes>) -> Request<Full<Bytes>> {
        // A copy: another connection gets the request if this one refuses it. Extensions are not
        // sent, so they are not copied.
        let mut prepared = Request::new(Full::new(request.body().clone()));
        *prepared.method_mut() = request.method().clone();
        *prepared.uri_mut() = request.uri().clone();
        *prepared.headers_mut() = request.headers().clone();
        #[cfg(feature = "tls")]
        if self.options.tls.is_some() {
            return with_https(prepared);
        }
        prepared
    }

    async fn read(&self, response: Response<Incoming>, max_body: usize) -> Result<Response<Bytes>, Error> {
        let (head, body) = response.into_parts();
        match Limited::new(body, max_body).collect().await {
            Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large("response body", &self.service, max_body)),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(failure) => Err(self.failed(*failure)),
                Err(other) => Err(Error::wrap(Code::Internal, other)),
            },
        }
    }

    fn failed(&self, failure: hyper::Error) -> Error {
        failure::of_request(&self.service, self.instance.address(), failure)
    }

    fn not_sent(&self, why: &str) -> Error {
        failure::not_sent(&self.service, self.instance.address(), why)
    }

    /// Returns the connection, and makes it if there is none.
    async fn connection(self: &Arc<Self>) -> Result<Connection, Error> {
        let attempt = {
            let mut link = self.lock();
            match &link.state {
                State::Connected(connection) if connection.sender.is_ready() => return Ok(connection.clone()),
                State::Connecting(attempt) => attempt.clone(),
                State::Connected(_) | State::None => {
                    let attempt = self.attempt();
                    let ended = std::mem::replace(&mut link.state, State::Connecting(attempt.clone()));
                    drop(link);
                    drop(ended);
                    attempt
                }
            }
        };
        let result = attempt.clone().await;
        if result.is_err() {
            // The task has done this already, unless its runtime has shut down.
            let mut link = self.lock();
            if matches!(&link.state, State::Connecting(current) if current.ptr_eq(&attempt)) {
                let failed = std::mem::replace(&mut link.state, State::None);
                drop(link);
                drop(failed);
            }
        }
        result
    }

    /// Connects on a task, so that a caller that gives up does not end the attempt of others.
    fn attempt(self: &Arc<Self>) -> Attempt {
        let (sender, receiver) = oneshot::channel();
        let (peer, connecting) = (Arc::downgrade(self), self.connect());
        tokio::spawn(async move {
            let result = connecting.await;
            if let Some(peer) = Weak::upgrade(&peer) {
                peer.connected(&result);
            }
            // Nobody waits any more: the connection is for the next request.
            let _ = sender.send(result);
        });
        let lost = self.not_sent("the runtime has shut down");
        receiver.map(move |result| result.unwrap_or(Err(lost))).boxed().shared()
    }

    fn connected(&self, result: &Result<Connection, Error>) {
        let (state, failed_at) = match result {
            Ok(connection) => (State::Connected(connection.clone()), None),
            Err(_) => (State::None, Some(Instant::now())),
        };
        let mut link = self.lock();
        link.failed_at = failed_at;
        let previous = std::mem::replace(&mut link.state, state);
        drop(link);
        drop(previous);
    }

    /// Takes no new requests to a connection that goes away. Its requests in flight finish.
    fn discard(&self, connection: &Connection) {
        let mut link = self.lock();
        let is_current = |current: &Connection| Arc::ptr_eq(&current.failure, &connection.failure);
        if matches!(&link.state, State::Connected(current) if is_current(current)) {
            let discarded = std::mem::replace(&mut link.state, State::None);
            drop(link);
            drop(discarded);
        }
    }

    fn connect(&self) -> impl Future<Output = Result<Connection, Error>> + Send + 'static {
        let (service, instance, options) = (Arc::clone(&self.service), self.instance.clone(), self.options.clone());
        async move {
            let address = instance.address();
            let timeout = options.connect_timeout;
            let connecting = async {
                let stream = TcpStream::connect(address).await.map_err(|e| (e.to_string(), true))?;
                // Small requests do not wait for more of them.
                stream.set_nodelay(true).map_err(|e| (e.to_string(), true))?;
                #[cfg(feature = "tls")]
                if let Some(tls) = &options.tls {
                    let stream = tls.connect(instance.host(), stream).await?;
                    return handshake(stream, &options).await.map_err(|e| (error_message(&e), true));
                }
                handshake(stream, &options).await.map_err(|e| (error_message(&e), true))
            };
            let result = match tokio::time::timeout(timeout, connecting).await {
                Ok(result) => result,
                Err(_elapsed) => Err((format!("no connection within {timeout:?}"), true)),
            };
            result.map_err(|(why, retryable): (String, bool)| {
                failure::not_sent(&service, address, &why).with_retryable(retryable)
            })
        }
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        // Nothing panics under the lock.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts HTTP/2 on a stream. A task drives the connection until it ends.
async fn handshake<I>(stream: I, options: &Options) -> Result<Connection, hyper::Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_LATE_FRAMES)
        .keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await?;
    let failure = Arc::new(OnceLock::new());
    let slot = Arc::clone(&failure);
    tokio::spawn(async move {
        let mut driver = pin!(driver);
        if let Err(error) = driver.as_mut().await {
            // Set before the driver is dropped: that gives requests back that it has not taken.
            let _ = slot.set(error);
        }
    });
    Ok(Connection { sender, failure })
}

#[cfg(feature = "tls")]
fn with_https<B>(mut request: Request<B>) -> Request<B> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTPS);
    *request.uri_mut() = http::Uri::from_parts(parts).expect("the URI had a scheme, an authority and a path");
    request
}

/// A request on its way, until it is dropped.
struct InFlight<'a>(&'a Peer);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
