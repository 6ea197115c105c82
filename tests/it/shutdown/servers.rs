//! Idle connections do not hold up a shutdown: axum, hyper-util and tonic.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use throughline::{ContextLayer, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::server::TcpIncoming;

use crate::support::PATIENCE;

/// No test waits for it.
const GRACE: Duration = Duration::from_secs(3600);

fn app(shutdown: &Shutdown) -> Router {
    let app = Router::new().route("/", get(|| async { "seven" }));
    app.layer(ContextLayer::internal().base(shutdown.context()))
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An HTTP/1 connection after one request, and one after an HTTP/2 request.
async fn idle_connections(address: SocketAddr) -> (TcpStream, reqwest::Client) {
    let mut http1 = TcpStream::connect(address).await.unwrap();
    http1.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"seven") {
        assert_ne!(http1.read_buf(&mut read).await.unwrap(), 0);
    }
    (http1, http2(address).await)
}

async fn http2(address: SocketAddr) -> reqwest::Client {
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    client.get(format!("http://{address}/")).send().await.unwrap().bytes().await.unwrap();
    client
}

/// Runs `server` as the shutdown's.
fn start<F, E>(shutdown: &Shutdown, server: F) -> JoinHandle<Result<(), E>>
where
    F: IntoFuture<Output = Result<(), E>, IntoFuture: Send> + Send + 'static,
    E: Send + 'static,
{
    let shutdown = shutdown.clone();
    tokio::spawn(async move { shutdown.serve(server).await })
}

async fn ends<E: std::fmt::Debug>(server: JoinHandle<Result<(), E>>, shutdown: &Shutdown) {
    timeout(PATIENCE, server).await.expect("the server ends before the grace").unwrap().unwrap();
    assert!(shutdown.drain().await.is_clean());
}

#[tokio::test]
async fn idle_connections_do_not_hold_an_axum_server() {
    let shutdown = Shutdown::new(GRACE);
    let (listener, address) = listener().await;
    let server = axum::serve(listener, app(&shutdown)).with_graceful_shutdown(shutdown.requested());
    let server = start(&shutdown, server);
    let _idle = idle_connections(address).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    shutdown.request();
    ends(server, &shutdown).await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_a_hyper_util_server() {
    let shutdown = Shutdown::new(GRACE);
    let (listener, address) = listener().await;
    let (app, requested) = (app(&shutdown), shutdown.requested());
    let server = async move {
        let (connections, builder) = (GracefulShutdown::new(), Builder::new(TokioExecutor::new()));
        let mut requested = std::pin::pin!(requested);
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted?.0,
                () = &mut requested => break,
            };
            let service = TowerToHyperService::new(app.clone());
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            let connection = connections.watch(connection.into_owned());
            tokio::spawn(async move { connection.await.ok() });
        }
        drop(listener);
        connections.shutdown().await;
        std::io::Result::Ok(())
    };
    let server = start(&shutdown, server);
    let _idle = idle_connections(address).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    shutdown.request();
    ends(server, &shutdown).await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_a_tonic_server() {
    let shutdown = Shutdown::new(GRACE);
    let (listener, address) = listener().await;
    let layer = ContextLayer::internal().base(shutdown.context());
    let server = tonic::transport::Server::builder().layer(layer).add_routes(tonic::service::Routes::default());
    let server = server.serve_with_incoming_shutdown(TcpIncoming::from(listener), shutdown.requested());
    let server = start(&shutdown, server);
    let _idle = http2(address).await;
    shutdown.request();
    ends(server, &shutdown).await;
}

#[tokio::test(start_paused = true)]
async fn half_a_request_holds_a_server_up_no_longer_than_the_limits() {
    let shutdown = Shutdown::new(GRACE);
    let (listener, address) = listener().await;
    let server = axum::serve(listener, app(&shutdown)).with_graceful_shutdown(shutdown.requested());
    let server = start(&shutdown, server);
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    shutdown.request();
    server.await.unwrap().unwrap();
    assert!(shutdown.drain().await.is_clean());
}

#[tokio::test]
async fn after_the_grace_a_cancelled_request_gets_its_503_before_the_connection_closes() {
    for client in [reqwest::Client::builder(), reqwest::Client::builder().http2_prior_knowledge()] {
        let shutdown = Shutdown::new(Duration::ZERO).background_limit(PATIENCE);
        let (listener, address) = listener().await;
        let (sender, mut started) = tokio::sync::mpsc::unbounded_channel();
        let hanging = move || {
            sender.send(()).unwrap();
            std::future::pending::<()>()
        };
        let app = Router::new().route("/", get(hanging));
        let app = app.layer(ContextLayer::internal().base(shutdown.context()));
        let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.requested());
        let serving = shutdown.clone();
        let server = tokio::spawn(async move { serving.serve(server).await });
        let response = tokio::spawn(client.build().unwrap().get(format!("http://{address}/")).send());
        started.recv().await.unwrap();
        shutdown.request();
        let response = response.await.unwrap().unwrap();
        assert_eq!(response.status(), 503);
        assert!(response.text().await.unwrap().contains("UNAVAILABLE"));
        timeout(PATIENCE, server).await.expect("the server ends").unwrap().unwrap();
        assert_eq!(shutdown.drain().await.requests_cancelled, 1);
    }
}
