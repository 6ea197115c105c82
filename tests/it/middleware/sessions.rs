//! Connections after an upgrade: the context and the span of their sessions.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use throughline::{Cause, Context, StreamCtx};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::{PATIENCE, Traced, events, serve, text};

/// Upgrades to a protocol that echoes each byte. Reports the context of each session.
fn echo(contexts: mpsc::UnboundedSender<Context>) -> Router {
    let handler = move |ctx: StreamCtx, mut request: Request<Body>| async move {
        let connection = hyper::upgrade::on(&mut request);
        let work = move |ctx: Context| async move {
            assert_eq!(Context::current(), ctx);
            let mut connection = TokioIo::new(connection.await.unwrap());
            contexts.send(ctx).unwrap();
            while let Ok(byte) = connection.read_u8().await {
                connection.write_u8(byte).await.unwrap();
            }
        };
        tokio::spawn(ctx.session("chat", work));
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(Body::empty())
            .unwrap()
    };
    Router::new().route("/chat", get(handler))
}

async fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream
}

#[tokio::test]
async fn a_session_has_its_own_span_and_ends_when_its_connection_closes() {
    let service = Traced::new("chat");
    let (sender, mut contexts) = mpsc::unbounded_channel();
    let address = serve(echo(sender).layer(service.edge())).await;
    let mut stream = connect(address).await;
    let ctx = contexts.recv().await.unwrap();
    stream.write_u8(7).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 7);
    assert_eq!((ctx.is_done(), ctx.deadline()), (false, None), "the edge's limit was for the head");
    let work = ctx.spawn(std::future::pending::<()>());
    drop(stream);
    assert!(timeout(PATIENCE, work).await.unwrap().unwrap().is_err(), "work below the session ends with it");
    assert_eq!(ctx.cause().unwrap().name(), "request_finished");
    let spans = service.spans(2).await;
    let (request, session) = (&spans[0], &spans[1]);
    assert_eq!((&*request.name, &*session.name), ("GET /chat", "chat"));
    assert_eq!(session.parent_span_id, Some(request.span_context.span_id()));
    assert_eq!(text(session, "throughline.cancel.cause"), None);
}

#[tokio::test]
async fn a_shutdown_closes_the_connection_of_a_session() {
    let (service, process) = (Traced::new("chat"), Context::background().with_cancel());
    let (sender, mut contexts) = mpsc::unbounded_channel();
    let address = serve(echo(sender).layer(service.edge().base(&process))).await;
    let mut stream = connect(address).await;
    let _session = contexts.recv().await.unwrap();
    process.cancel_with(Cause::Shutdown);
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0])).await.unwrap().unwrap_or(0), 0, "the connection is closed");
    let spans = service.spans(2).await;
    assert_eq!(text(&spans[1], "throughline.cancel.cause"), Some("shutdown"));
    assert_eq!(events(&spans[1]), ["throughline.cancelled"]);
}

#[tokio::test]
async fn a_session_that_is_dropped_cancels_its_context() {
    let (sender, mut contexts) = mpsc::unbounded_channel();
    let work = move |ctx: Context| async move {
        sender.send(ctx).unwrap();
        std::future::pending::<()>().await;
    };
    let session = tokio::spawn(StreamCtx(Context::background()).session("chat", work));
    let ctx = contexts.recv().await.unwrap();
    assert!(!ctx.is_done());
    session.abort();
    assert!(session.await.unwrap_err().is_cancelled());
    assert_eq!(ctx.cause().unwrap().name(), "handle_dropped");
}
