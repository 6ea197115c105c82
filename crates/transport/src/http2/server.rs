//! The server: one port for all services of a transport.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use throughline::{CancelHandle, Code, Context, Error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::activity::{Active, Activity, LINGER};
use super::services::Services;
use super::{MAX_HEADERS, Options, dispatch};
use crate::Inbox;

/// Requests at the same time on one connection.
const MAX_STREAMS: u32 = 1024;

/// Streams that the caller resets before the server takes them. Many callers may give up at once.
const MAX_RESETS: usize = 1024;

/// Late frames of requests that the server has refused. h2 closes a connection with more of them.
const MAX_LATE_FRAMES: usize = 1 << 16;

/// The pause after an error of `accept`, for example because the process has no free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the connections share.
pub(super) struct Server {
    services: Services,
    options: Options,
    protocol: auto::Builder<TokioExecutor>,
}

/// Keeps the port open. The medium has one, and each listener.
pub(super) struct Handle {
    server: Arc<Server>,
    /// Dropping it ends the accept loop.
    _accepting: CancelHandle,
}

/// `UNAVAILABLE` with what to check.
pub(super) fn not_bound(address: &str, error: io::Error) -> Error {
    let check = match error.kind() {
        io::ErrorKind::AddrInUse => "another process has the port",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege",
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address",
        _ => "an address is HOST:PORT",
    };
    let message = format!("{address} cannot be bound: {error}; check: {check}");
    Error::wrap(Code::Unavailable, error).with_message(message)
}

impl Server {
    pub(super) fn start(socket: TcpListener, options: Options) -> Arc<Handle> {
        let mut protocol = auto::Builder::new(TokioExecutor::new());
        protocol.http1().timer(TokioTimer::new()).header_read_timeout(options.read_timeout);
        protocol
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_LATE_FRAMES)
            .keep_alive_interval(options.keep_alive_interval)
            .keep_alive_timeout(options.keep_alive_timeout);
        let server = Arc::new(Server { services: Services::default(), options, protocol });
        let accepting = Context::background().with_cancel();
        tokio::spawn(accept(socket, Arc::clone(&server), accepting.context().clone()));
        Arc::new(Handle { server, _accepting: accepting })
    }
}

impl Handle {
    pub(super) fn listen(handle: &Arc<Handle>, inbox: Inbox) -> Result<BoxFuture<'static, ()>, Error> {
        handle.server.services.insert(&inbox)?;
        let listening = Listening(Arc::clone(handle));
        Ok(Box::pin(async move {
            inbox.draining().await;
            // Requests whose body is still arriving are in flight: the listener waits for them.
            listening.0.server.services.stopped();
        }))
    }
}

/// A listener, until it is dropped.
struct Listening(Arc<Handle>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.server.services.stopped();
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("services", &self.server.services).finish_non_exhaustive()
    }
}

/// Takes connections until `accepting` is done.
async fn accept(socket: TcpListener, server: Arc<Server>, accepting: Context) {
    let permits = Arc::new(Semaphore::new(server.options.max_connections));
    let accept = async {
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            match socket.accept().await {
                Ok((stream, _peer)) => {
                    tokio::spawn(connection(Arc::clone(&server), stream, accepting.clone(), permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = accepting.done() => {}
        () = accept => {}
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream, accepting: Context, _permit: OwnedSemaphorePermit) {
    // Small responses do not wait for more of them. A failure here is one of the connection.
    let _ = stream.set_nodelay(true);
    #[cfg(feature = "tls")]
    if let Some(tls) = &server.options.tls {
        let handshake = tokio::time::timeout(server.options.read_timeout, tls.accept(stream));
        match handshake.await {
            Ok(Ok(stream)) => serve(&server, stream, &accepting).await,
            Ok(Err(error)) => tracing::debug!(error, "a TLS handshake has failed"),
            Err(_elapsed) => tracing::debug!("a TLS handshake has taken too long"),
        }
        return;
    }
    serve(&server, stream, &accepting).await;
}

/// Serves one connection until it closes.
async fn serve<I>(server: &Arc<Server>, stream: I, accepting: &Context)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let activity = Arc::new(Activity::new(server.options.read_timeout));
    let service = service_fn(|request: Request<Incoming>| {
        let active = Active::start(&activity, server.options.idle_timeout);
        let server = Arc::clone(server);
        async move {
            let _active = active;
            let response = dispatch::respond(&server.services, request, server.options.read_timeout).await;
            Ok::<_, Infallible>(response.map(Full::new))
        }
    });
    let mut drains = server.services.drains();
    let mut connection = pin!(server.protocol.serve_connection(TokioIo::new(stream), service));
    let mut check = pin!(tokio::time::sleep(server.options.read_timeout));
    let mut is_closing = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(error, "a connection has failed");
                }
                return;
            }
            _ = drains.changed(), if !is_closing => {}
            () = accepting.done(), if !is_closing => {}
            () = check.as_mut() => match activity.expires_at() {
                // A request ends before the connection does.
                None => {
                    check.as_mut().reset(Instant::now() + LINGER);
                    continue;
                }
                Some(at) if at > Instant::now() => {
                    check.as_mut().reset(at);
                    continue;
                }
                // The caller does not close its side.
                Some(_) if is_closing => return,
                Some(_) => {}
            },
        }
        is_closing = true;
        activity.close();
        connection.as_mut().graceful_shutdown();
        check.as_mut().reset(Instant::now() + LINGER);
    }
}
