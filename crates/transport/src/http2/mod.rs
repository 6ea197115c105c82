//! The medium HTTP/2.

mod activity;
mod client;
mod dispatch;
mod failure;
mod peer;
mod server;
mod services;
#[cfg(feature = "tls")]
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Response;
use http::header::HeaderName;
use throughline::{Code, Error};
use tokio::net::{TcpListener, ToSocketAddrs};

use crate::medium::{InstanceChanges, Medium, Outgoing};
use crate::{Inbox, Resolver, StaticResolver, Transport};
use client::Client;
use server::Server;
#[cfg(feature = "tls")]
pub use tls::Tls;

/// The header of a response that no service has made: nothing listens to the name.
const NO_SUCH_SERVICE: HeaderName = HeaderName::from_static("x-no-such-service");

/// The largest list of headers, in bytes.
const MAX_HEADERS: u32 = 64 << 10;

impl Transport {
    /// Returns the options of a transport over HTTP/2.
    ///
    /// # Examples
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use throughline::{Context, Error};
    /// use throughline_transport::{StaticResolver, Transport};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// // One process serves. Port 0: the system chooses a port.
    /// let server = Transport::http2().bind("127.0.0.1:0").await?;
    /// let address = server.local_addr().expect("it is bound").to_string();
    /// let mut cards = server.listen("cards").await?;
    /// tokio::spawn(async move {
    ///     while let Some(incoming) = cards.next().await {
    ///         incoming.responder.respond(Response::new(Bytes::from("active")));
    ///     }
    /// });
    ///
    /// // Another one calls.
    /// let addresses = StaticResolver::new().with("cards", [address]);
    /// let client = Transport::http2().resolver(addresses).client();
    /// let response = client.send(&Context::background(), "cards", Request::new(Bytes::new())).await?;
    /// assert_eq!(response.body(), "active");
    /// # Ok::<(), Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "http2")))]
    pub fn http2() -> Http2 {
        Http2::new()
    }
}

/// Options of a transport over HTTP/2. [`Transport::http2`] makes them.
///
/// # The server
/// One port has all services of the transport. It takes HTTP/2 (with prior knowledge) and HTTP/1.1,
/// so `curl` works. The host of a request names the service: `balance`, or a name whose first
/// label it is, such as `balance.default.svc.cluster.local`. Upper and lower case are the same, and
/// the port is ignored. If the host is an IP address or `localhost`, and one service listens, the
/// request is for that one.
///
/// | Limit | Value |
/// |---|---|
/// | connections | 10,000, see [`max_connections`](Self::max_connections). Others wait in the socket's queue. |
/// | requests at the same time on one connection | 1,024 |
/// | headers of a request or a response | 64 KiB |
/// | time for the body of a request, and for the headers of HTTP/1.1 | 30 s, see [`read_timeout`](Self::read_timeout) |
/// | a new connection without a request | 30 s |
/// | a connection without a request in flight | 5 min |
///
/// When the last service of the transport stops, each connection gets a GOAWAY and closes after its
/// requests in flight. The port stays open: a request then gets
/// [`NoSuchService`](crate::NoSuchService). It closes when the transport and its listeners are
/// dropped.
///
/// A caller that resets its stream or loses its connection cancels the handler. Over HTTP/1.1, a
/// caller that closes its side of the connection does so, too.
///
/// # The client
/// It has one connection for each instance, made at the first request. Requests share it. When it
/// ends, the next request makes another one. Pings find a peer that does not respond any more: its
/// requests end with `UNAVAILABLE` after at most 30 s.
///
/// A request goes to the instance with the fewest requests in flight from here. If no connection
/// can be made, or if the instance does not have the service, it goes to the next one. A request
/// that an instance may have handled is not sent again.
#[derive(Debug)]
#[must_use]
pub struct Http2 {
    resolver: Arc<dyn Resolver>,
    options: Options,
}

#[derive(Clone, Debug)]
struct Options {
    max_connections: usize,
    read_timeout: Duration,
    idle_timeout: Duration,
    connect_timeout: Duration,
    keep_alive_interval: Duration,
    keep_alive_timeout: Duration,
    #[cfg(feature = "tls")]
    tls: Option<tls::Configs>,
}

impl Http2 {
    fn new() -> Self {
        Http2 {
            resolver: Arc::new(StaticResolver::new()),
            options: Options {
                max_connections: 10_000,
                read_timeout: Duration::from_secs(30),
                idle_timeout: Duration::from_secs(5 * 60),
                connect_timeout: Duration::from_secs(3),
                keep_alive_interval: Duration::from_secs(20),
                keep_alive_timeout: Duration::from_secs(10),
                #[cfg(feature = "tls")]
                tls: None,
            },
        }
    }

    /// Sets where the services are that this transport sends to; default: nowhere.
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Sets how many connections the server has at the same time; default: 10,000.
    pub fn max_connections(mut self, connections: std::num::NonZeroUsize) -> Self {
        self.options.max_connections = connections.get().min(tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// Sets how long the body of a request may take to arrive; default: 30 s.
    ///
    /// After it the caller gets `DEADLINE_EXCEEDED`. It also limits the time for a TLS handshake,
    /// for the headers of HTTP/1.1 and for the first request of a connection.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.options.read_timeout = timeout;
        self
    }

    /// Sets how long the server keeps a connection without a request in flight; default: 5 min.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.idle_timeout = timeout;
        self
    }

    /// Sets how long the client waits for a connection; default: 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// Sets when both sides ping, and how long they wait for the response; default: 20 s, 10 s.
    ///
    /// A connection whose peer does not respond is closed.
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.options.keep_alive_interval = interval;
        self.options.keep_alive_timeout = timeout;
        self
    }

    /// Uses TLS on both sides: no connection is without it.
    ///
    /// The certificate of an instance must be valid for its [`host`](crate::Instance::host).
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the private key does not fit the certificate.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, tls: Tls) -> Result<Self, Error> {
        self.options.tls = Some(tls.build()?);
        Ok(self)
    }

    /// Binds a socket, and returns a transport that listens to it and sends.
    ///
    /// With port 0 the system chooses the port: see [`Transport::local_addr`].
    ///
    /// # Errors
    /// - `UNAVAILABLE`: the address cannot be bound. The message says what to check.
    /// - `INVALID_ARGUMENT`: it uses TLS and has no certificate.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn bind(self, address: impl ToSocketAddrs + fmt::Display) -> Result<Transport, Error> {
        #[cfg(feature = "tls")]
        if self.options.tls.as_ref().is_some_and(|tls| !tls.is_server()) {
            return Err(Error::new(Code::InvalidArgument, "a server with TLS needs a certificate: `Tls::identity`"));
        }
        let name = address.to_string();
        let socket = TcpListener::bind(address).await;
        let bound = socket.and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (local_addr, socket) = bound.map_err(|e| server::not_bound(&name, e))?;
        let server = Server::start(socket, self.options.clone());
        let client = Client::new(self.resolver, self.options);
        Ok(Transport::new(Http2Medium { server: Some((local_addr, server)), client }))
    }

    /// Returns a transport that only sends.
    ///
    /// Its `listen` fails with `FAILED_PRECONDITION`.
    pub fn client(self) -> Transport {
        Transport::new(Http2Medium { server: None, client: Client::new(self.resolver, self.options) })
    }
}

/// The medium: a client, and a server if it is bound.
#[derive(Debug)]
struct Http2Medium {
    server: Option<(SocketAddr, Arc<server::Handle>)>,
    client: Arc<Client>,
}

impl Medium for Http2Medium {
    fn listen(&self, inbox: Inbox) -> BoxFuture<'_, Result<BoxFuture<'static, ()>, Error>> {
        let listening = match &self.server {
            Some((_, server)) => server::Handle::listen(server, inbox),
            None => {
                let message = "this transport only sends: make it with `bind` instead of `client`";
                Err(Error::new(Code::FailedPrecondition, message))
            }
        };
        Box::pin(std::future::ready(listening))
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'static, Result<Response<Bytes>, Error>> {
        let client = Arc::clone(&self.client);
        Box::pin(async move { client.send(outgoing).await })
    }

    fn instances<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<InstanceChanges, Error>> {
        Box::pin(self.client.instances(service))
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(|(address, _)| *address)
    }
}
