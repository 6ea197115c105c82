//! What a server sees of a client that disconnects, in every state of a request.
//!
//! A disconnect that the server does not see is hidden. The work then ends at its deadline.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::{any, get};
use axum::{Extension, Router};
use futures_util::stream;
use http_body_util::{BodyExt, Channel};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use throughline::{Context, ContextLayer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower::ServiceBuilder;
use tower_http::timeout::TimeoutLayer;

use super::life::{Report, next, watch};
use crate::support::grpc::{call_grpc, serve_grpc_by};
use crate::support::{PATIENCE, client, serve};

const SEEN: (&str, &str) = ("request", "client_disconnected");
/// A disconnect that was not seen: the deadline has ended the request.
const HIDDEN: (&str, &str) = ("request", "deadline_exceeded");
/// The deadline of requests whose disconnect is hidden.
const SOON: Duration = Duration::from_millis(200);

/// Handlers that do not respond, or not to the end.
fn app(layer: ContextLayer) -> (Router, UnboundedReceiver<Report>) {
    let (reporter, reports) = unbounded_channel::<Report>();
    let app = Router::new()
        .route("/plain", any(plain))
        .route("/body-read", any(body_read))
        .route("/body-kept", any(body_kept))
        .route("/reading", any(reading))
        .route("/stream", get(streaming))
        .route("/panic", get(panicking))
        .layer(Extension(reporter))
        .layer(layer);
    (app, reports)
}

type Reporter = Extension<UnboundedSender<Report>>;

async fn plain(Extension(ctx): Extension<Context>, Extension(reporter): Reporter) {
    watch(&ctx, "request", &reporter);
    let _ = reporter.send(("handler", "called".into()));
    std::future::pending::<()>().await;
}

/// Reads the body to its end, and only then says that it was called.
async fn body_read(ctx: Extension<Context>, reporter: Reporter, body: Body) {
    body.collect().await.unwrap();
    plain(ctx, reporter).await;
}

/// Keeps the body, and does not read it.
async fn body_kept(ctx: Extension<Context>, reporter: Reporter, body: Body) {
    plain(ctx, reporter).await;
    drop(body);
}

/// Reads the first part of the body, says that it was called, and then reads the rest.
async fn reading(Extension(ctx): Extension<Context>, Extension(reporter): Reporter, mut body: Body) {
    watch(&ctx, "request", &reporter);
    let _ = body.frame().await;
    let _ = reporter.send(("handler", "called".into()));
    let rest = body.collect().await;
    let _ = reporter.send(("body", if rest.is_ok() { "complete" } else { "cut off" }.into()));
    std::future::pending::<()>().await;
}

async fn streaming(Extension(ctx): Extension<Context>, Extension(reporter): Reporter) -> Response {
    watch(&ctx, "request", &reporter);
    let first = stream::iter([Ok::<_, Infallible>("half")]);
    Response::new(Body::from_stream(futures_util::StreamExt::chain(first, stream::pending())))
}

async fn panicking(Extension(ctx): Extension<Context>, Extension(reporter): Reporter) {
    watch(&ctx, "request", &reporter);
    tokio::task::yield_now().await;
    if ctx.err().is_none() {
        panic!("a handler that panics");
    }
}

fn post(path: &str, length: usize) -> String {
    format!("POST /{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")
}

fn get_request(path: &str) -> String {
    format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// Sends `request`, disconnects when the handler runs, and returns the end of the request.
async fn disconnect_http1(layer: ContextLayer, request: String) -> Report {
    let (app, mut reports) = app(layer);
    let mut client = TcpStream::connect(serve(app).await).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(next(&mut reports).await, ("handler", "called".into()));
    drop(client);
    next(&mut reports).await
}

async fn is_seen_over_http1(request: String) {
    let (who, cause) = disconnect_http1(ContextLayer::internal(), request.clone()).await;
    assert_eq!((who, &*cause), SEEN, "{request}");
}

async fn is_hidden_over_http1(request: String) {
    let (who, cause) = disconnect_http1(ContextLayer::internal().max_timeout(SOON), request.clone()).await;
    assert_eq!((who, &*cause), HIDDEN, "{request}");
}

#[tokio::test]
async fn http1_shows_the_disconnect_of_a_request_without_a_body() {
    is_seen_over_http1(get_request("plain")).await;
}

#[tokio::test]
async fn http1_shows_the_disconnect_of_a_request_whose_body_was_read_to_its_end() {
    is_seen_over_http1(post("body-read", 5) + "hello").await;
    is_seen_over_http1(post("plain", 0)).await;
}

#[tokio::test]
async fn http1_shows_the_disconnect_of_a_request_whose_short_body_arrived_and_is_not_read() {
    is_seen_over_http1(post("plain", 5) + "hello").await;
    is_seen_over_http1(post("body-kept", 5) + "hello").await;
}

#[tokio::test]
async fn http1_hides_the_disconnect_behind_the_rest_of_a_body_that_is_kept_and_not_read() {
    let (app, mut reports) = app(ContextLayer::internal().max_timeout(SOON));
    let mut client = TcpStream::connect(serve(app).await).await.unwrap();
    // The server reads one part ahead of the handler.
    client.write_all((post("body-kept", 10) + "hello").as_bytes()).await.unwrap();
    assert_eq!(next(&mut reports).await, ("handler", "called".into()));
    client.write_all(b"world").await.unwrap();
    drop(client);
    assert_eq!(next(&mut reports).await, (HIDDEN.0, HIDDEN.1.into()));
}

#[tokio::test]
async fn http1_hides_the_disconnect_in_the_middle_of_a_body_that_is_not_read() {
    is_hidden_over_http1(post("plain", 10) + "hello").await;
    is_hidden_over_http1(post("body-kept", 10) + "hello").await;
}

#[tokio::test]
async fn http1_shows_the_disconnect_in_the_middle_of_a_body_only_as_an_error_of_the_body() {
    let (app, mut reports) = app(ContextLayer::internal().max_timeout(SOON));
    let mut client = TcpStream::connect(serve(app).await).await.unwrap();
    client.write_all((post("reading", 10) + "hello").as_bytes()).await.unwrap();
    assert_eq!(next(&mut reports).await, ("handler", "called".into()));
    drop(client);
    assert_eq!(next(&mut reports).await, ("body", "cut off".into()));
    // A handler that goes on nevertheless is not cancelled before its deadline.
    assert_eq!(next(&mut reports).await, (HIDDEN.0, HIDDEN.1.into()));
}

#[tokio::test]
async fn http1_hides_the_disconnect_behind_a_pipelined_request() {
    is_hidden_over_http1(get_request("plain") + &get_request("plain")).await;
}

#[tokio::test]
async fn http1_shows_the_disconnect_during_a_streaming_response() {
    let (app, mut reports) = app(ContextLayer::internal());
    let mut client = TcpStream::connect(serve(app).await).await.unwrap();
    client.write_all(get_request("stream").as_bytes()).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"half\r\n") {
        client.read_buf(&mut received).await.unwrap();
    }
    drop(client);
    assert_eq!(next(&mut reports).await, (SEEN.0, SEEN.1.into()));
}

#[tokio::test]
async fn http1_takes_a_client_that_closes_its_half_of_the_connection_for_a_disconnect() {
    let (app, mut reports) = app(ContextLayer::internal());
    let mut client = TcpStream::connect(serve(app).await).await.unwrap();
    client.write_all(get_request("plain").as_bytes()).await.unwrap();
    next(&mut reports).await;
    client.shutdown().await.unwrap();
    assert_eq!(next(&mut reports).await, (SEEN.0, SEEN.1.into()));
    assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0, "no response");
}

/// Serves `app` with a server that allows clients to close their half of the connection.
async fn serve_half_close(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (connection, _) = listener.accept().await.unwrap();
        let mut server = hyper::server::conn::http1::Builder::new();
        server.half_close(true).serve_connection(TokioIo::new(connection), TowerToHyperService::new(app)).await
    });
    address
}

#[tokio::test]
async fn with_hypers_half_close_the_client_gets_its_response_and_only_the_deadline_ends_the_work() {
    let (app, mut reports) = app(ContextLayer::internal().max_timeout(SOON));
    let mut client = TcpStream::connect(serve_half_close(app).await).await.unwrap();
    client.write_all(get_request("plain").as_bytes()).await.unwrap();
    next(&mut reports).await;
    client.shutdown().await.unwrap();
    assert_eq!(next(&mut reports).await, (HIDDEN.0, HIDDEN.1.into()));
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 504"), "{response}");
}

#[tokio::test]
async fn hypers_half_close_hides_every_disconnect() {
    let (app, mut reports) = app(ContextLayer::internal().max_timeout(SOON));
    let mut client = TcpStream::connect(serve_half_close(app).await).await.unwrap();
    client.write_all(get_request("plain").as_bytes()).await.unwrap();
    next(&mut reports).await;
    drop(client);
    assert_eq!(next(&mut reports).await, (HIDDEN.0, HIDDEN.1.into()));
}

/// How a client leaves over HTTP/2.
#[derive(Clone, Copy, Debug)]
enum Leave {
    /// It resets the stream of its request.
    Reset,
    /// It closes the connection.
    Close,
}

/// Connects. Returns a second handle of the socket, too, to close it.
async fn connect_http2(to: SocketAddr) -> (SendRequest<Body>, std::net::TcpStream) {
    let socket = TcpStream::connect(to).await.unwrap().into_std().unwrap();
    let stream = TokioIo::new(TcpStream::from_std(socket.try_clone().unwrap()).unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(async { drop(connection.await) });
    (sender, socket)
}

/// Sends a request, leaves when the handler runs, and returns the end of the request.
async fn disconnect_http2(leave: Leave, request: Request<Body>) -> Report {
    let is_stream = request.uri().path() == "/stream";
    let (app, mut reports) = app(ContextLayer::internal());
    let (mut sender, socket) = connect_http2(serve(app).await).await;
    let mut response = Box::pin(sender.send_request(request));
    let mut body = None;
    if is_stream {
        let mut received = (&mut response).await.unwrap().into_body();
        assert_eq!(received.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        body = Some(received);
    } else {
        let called = tokio::select! {
            called = next(&mut reports) => called,
            response = &mut response => panic!("{response:?}"),
        };
        assert_eq!(called, ("handler", "called".into()));
    }
    match leave {
        Leave::Reset => drop((response, body.take())),
        Leave::Close => socket.shutdown(std::net::Shutdown::Both).unwrap(),
    }
    loop {
        let report = next(&mut reports).await;
        if report.0 == "request" {
            return report;
        }
    }
}

#[tokio::test]
async fn http2_shows_every_disconnect_with_a_body_read_or_not_and_during_a_stream() {
    let get = |path: &str| Request::get(format!("http://x/{path}")).body(Body::empty()).unwrap();
    let post = |path: &str| Request::post(format!("http://x/{path}")).body(Body::from("hello")).unwrap();
    for leave in [Leave::Reset, Leave::Close] {
        for request in
            [get("plain"), post("body-read"), post("body-kept"), post("plain"), post("reading"), get("stream")]
        {
            let what = format!("{leave:?} {request:?}");
            let (who, cause) = disconnect_http2(leave, request).await;
            assert_eq!((who, &*cause), SEEN, "{what}");
        }
    }
}

#[tokio::test]
async fn http2_shows_the_disconnect_in_the_middle_of_a_body_read_or_not() {
    for path in ["plain", "body-kept", "reading"] {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        sender.send_data("hello".into()).await.unwrap();
        let request = Request::post(format!("http://x/{path}")).body(Body::new(body)).unwrap();
        let (who, cause) = disconnect_http2(Leave::Close, request).await;
        assert_eq!((who, &*cause), SEEN, "{path}");
        drop(sender);
    }
}

#[tokio::test]
async fn http2_shows_the_disconnect_of_one_stream_and_leaves_the_others() {
    let (app, mut reports) = app(ContextLayer::internal());
    let (mut sender, _socket) = connect_http2(serve(app).await).await;
    let get = |path: &str| Request::get(format!("http://x/{path}")).body(Body::empty()).unwrap();
    let one = tokio::spawn(sender.send_request(get("plain")));
    let other = tokio::spawn(sender.send_request(get("plain")));
    next(&mut reports).await;
    next(&mut reports).await;
    one.abort();
    assert_eq!(next(&mut reports).await, (SEEN.0, SEEN.1.into()));
    assert!(reports.try_recv().is_err() && !other.is_finished(), "the other request is still there");
    other.abort();
    assert_eq!(next(&mut reports).await, (SEEN.0, SEEN.1.into()));
}

#[tokio::test]
async fn a_panic_ends_the_connection_over_http1_and_the_stream_over_http2() {
    let (app, mut reports) = app(ContextLayer::internal());
    let address = serve(app).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(get_request("panic").as_bytes()).await.unwrap();
    assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    assert_eq!(next(&mut reports).await, ("request", "panicked".into()));

    let (mut sender, _socket) = connect_http2(address).await;
    let get = |path: &str| Request::get(format!("http://x/{path}")).body(Body::empty()).unwrap();
    sender.send_request(get("panic")).await.unwrap_err();
    assert_eq!(next(&mut reports).await, ("request", "panicked".into()));
    let response = sender.send_request(get("stream")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "the connection lives on");
}

/// The end of a request that a timeout layer outside of `layer` drops after 30 ms.
async fn dropped_by_outer(layer: ContextLayer) -> Report {
    let (app, mut reports) = app(layer);
    let outer = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_millis(30));
    let app = Router::new().fallback_service(ServiceBuilder::new().layer(outer).service(app));
    let response = reqwest::get(format!("http://{}/plain", serve(app).await)).await.unwrap();
    assert_eq!(response.status(), 408);
    next(&mut reports).await;
    next(&mut reports).await
}

#[tokio::test]
async fn a_timeout_layer_outside_looks_like_a_disconnect_unless_it_is_declared() {
    assert_eq!(dropped_by_outer(ContextLayer::internal()).await, (SEEN.0, SEEN.1.into()));
    let declared = ContextLayer::internal().outer_layers_may_drop();
    assert_eq!(dropped_by_outer(declared).await, ("request", "abandoned".into()));
}

/// The end of a gRPC request that tonic's own timer ends after 30 ms.
async fn dropped_by_tonic(layer: ContextLayer) -> (String, tonic::Code) {
    let (reporter, mut reports) = unbounded_channel::<Report>();
    let server = tonic::transport::Server::builder().timeout(Duration::from_millis(30));
    let address = serve_grpc_by(server, layer, move |request| {
        watch(request.extensions().get::<Context>().unwrap(), "request", &reporter);
        std::future::pending()
    })
    .await;
    let (client, ctx) = (client(), Context::background());
    let call = call_grpc(&client, &ctx, address, "/a.B/C", "");
    let status = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap_err();
    (next(&mut reports).await.1, status.code())
}

#[tokio::test]
async fn tonics_timeout_looks_like_a_disconnect_unless_it_is_declared() {
    let (cause, code) = dropped_by_tonic(ContextLayer::internal()).await;
    assert_eq!((&*cause, code), ("client_disconnected", tonic::Code::Cancelled));
    let (cause, code) = dropped_by_tonic(ContextLayer::internal().outer_layers_may_drop()).await;
    assert_eq!((&*cause, code), ("abandoned", tonic::Code::Cancelled));
    // The layer's own limit is a deadline, and the client gets its status.
    let (cause, code) = dropped_by_tonic(ContextLayer::internal().max_timeout(Duration::from_millis(10))).await;
    assert_eq!((&*cause, code), ("deadline_exceeded", tonic::Code::DeadlineExceeded));
}
