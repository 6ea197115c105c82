//! All the ways in which a request ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use throughline::OnDisconnect;
use throughline::trace::Status;
use throughline::{Cause, Context};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::support::{PATIENCE, Traced, events, serve, text};

pub(super) type Report = (&'static str, String);

pub(super) async fn next(reports: &mut UnboundedReceiver<Report>) -> Report {
    timeout(PATIENCE, reports.recv()).await.expect("a report arrives in time").expect("a handler reports")
}

/// Reports the cause of `ctx` from a task that only waits for the context.
pub(super) fn watch(ctx: &Context, who: &'static str, reporter: &UnboundedSender<Report>) {
    let (ctx, reporter) = (ctx.clone(), reporter.clone());
    tokio::spawn(async move {
        ctx.done().await;
        let _ = reporter.send((who, ctx.cause().unwrap().name().to_owned()));
    });
}

/// A handler that never responds.
fn hanging(reporter: UnboundedSender<Report>) -> Router {
    let handler = move |Extension(ctx): Extension<Context>| async move {
        watch(&ctx, "spawned", &reporter);
        let _ = reporter.send(("handler", "called".into()));
        std::future::pending::<()>().await;
    };
    Router::new().route("/", get(handler))
}

async fn ask(address: std::net::SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_client_that_disconnects_cancels_the_handler_and_its_tasks() {
    let service = Traced::new("cards");
    let (reporter, mut reports) = unbounded_channel();
    let address = serve(hanging(reporter).layer(service.internal())).await;
    let stream = ask(address, GET).await;
    assert_eq!(next(&mut reports).await.0, "handler");
    drop(stream);
    assert_eq!(next(&mut reports).await, ("spawned", "client_disconnected".into()));
    let span = service.span().await;
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("client_disconnected"));
    assert_eq!((&span.status, text(&span, "error.type")), (&Status::Unset, None), "not a failure of the service");
    assert_eq!(events(&span), ["throughline.cancelled"]);
}

#[tokio::test]
async fn a_dropped_request_is_abandoned_if_outer_layers_may_drop_it() {
    let service = Traced::new("cards");
    let (reporter, mut reports) = unbounded_channel();
    let address = serve(hanging(reporter).layer(service.internal().outer_layers_may_drop())).await;
    let stream = ask(address, GET).await;
    next(&mut reports).await;
    drop(stream);
    assert_eq!(next(&mut reports).await, ("spawned", "abandoned".into()));
}

#[tokio::test]
async fn a_deadline_drops_the_handler_and_the_response_is_a_504() {
    let service = Traced::new("cards");
    let (reporter, mut reports) = unbounded_channel();
    let layer = service.internal().max_timeout(Duration::from_millis(30));
    let address = serve(hanging(reporter).layer(layer)).await;
    let response = timeout(PATIENCE, reqwest::get(format!("http://{address}/"))).await.unwrap().unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["origin"]), (&"DEADLINE_EXCEEDED".into(), &"cards".into()));
    next(&mut reports).await;
    assert_eq!(next(&mut reports).await, ("spawned", "deadline_exceeded".into()));
    let span = service.span().await;
    assert_eq!(text(&span, "error.type"), Some("DEADLINE_EXCEEDED"));
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("deadline_exceeded"));
    assert!(matches!(span.status, Status::Error(_)));
}

#[tokio::test]
async fn a_request_with_no_time_left_does_not_reach_the_handler() {
    let service = Traced::new("cards");
    let (reporter, mut reports) = unbounded_channel();
    let layer = service.internal();
    let address = serve(hanging(reporter).layer(layer.clone())).await;
    let response =
        reqwest::Client::new().get(format!("http://{address}/")).header("grpc-timeout", "0n").send().await.unwrap();
    assert_eq!((response.status().as_u16(), layer.shed_count()), (504, 1));
    assert!(reports.try_recv().is_err(), "the handler was not called");
    let span = service.span().await;
    assert_eq!(text(&span, "throughline.shed"), Some("dead on arrival"));
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("deadline_exceeded"));
    assert_eq!(events(&span), ["throughline.shed"], "one event");
}

#[tokio::test]
async fn a_shutdown_ends_every_request() {
    let service = Traced::new("cards");
    let (reporter, mut reports) = unbounded_channel();
    let process = Context::background().with_cancel();
    let address = serve(hanging(reporter).layer(service.internal().base(&process))).await;
    let request = tokio::spawn(reqwest::get(format!("http://{address}/")));
    next(&mut reports).await;
    process.cancel_with(Cause::Shutdown);
    assert_eq!(next(&mut reports).await, ("spawned", "shutdown".into()));
    assert_eq!(request.await.unwrap().unwrap().status(), 503);
    let late = reqwest::get(format!("http://{address}/")).await.unwrap();
    assert_eq!(late.status(), 503, "and for later requests");
}

#[tokio::test]
async fn tasks_end_with_the_response_body_and_detached_work_continues() {
    let service = Traced::new("cards");
    let (reporter, mut reports) = unbounded_channel::<Report>();
    let (chunks, body) = unbounded_channel::<Result<&'static str, std::io::Error>>();
    let body = Arc::new(tokio::sync::Mutex::new(Some(body)));
    let handler = move |Extension(ctx): Extension<Context>| {
        let (body, reporter) = (Arc::clone(&body), reporter.clone());
        async move {
            watch(&ctx, "request", &reporter);
            watch(&ctx.detach().with_cancel().disarm(), "detached", &reporter);
            let mut body = body.lock().await.take().unwrap();
            Response::new(Body::from_stream(futures_util::stream::poll_fn(move |cx| body.poll_recv(cx))))
        }
    };
    let address = serve(Router::new().route("/", get(handler)).layer(service.internal())).await;
    let mut response = reqwest::get(format!("http://{address}/")).await.unwrap();
    chunks.send(Ok("half")).unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "half");
    assert!(
        reports.try_recv().is_err() && service.telemetry.stats().emitted == 0,
        "the request lasts as long as its body"
    );
    drop(chunks);
    assert_eq!(response.chunk().await.unwrap(), None);
    assert_eq!(next(&mut reports).await, ("request", "request_finished".into()));
    assert!(reports.try_recv().is_err(), "a detached context is not cancelled");
    let span = service.span().await;
    assert_eq!(text(&span, "throughline.cancel.cause"), None, "the span ended before the context");
}

#[tokio::test]
async fn a_body_that_stalls_half_way_ends() {
    let service = Traced::new("cards");
    let handler = || async {
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>("half")]);
        Response::new(Body::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending())))
    };
    let layer = service.internal().max_timeout(Duration::from_millis(30));
    let address = serve(Router::new().route("/", get(handler)).layer(layer)).await;
    let mut response = reqwest::get(format!("http://{address}/")).await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "half");
    assert!(timeout(PATIENCE, response.chunk()).await.unwrap().is_err(), "the client sees that the body is incomplete");
    let span = service.span().await;
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("deadline_exceeded"));
    assert_eq!(text(&span, "error.type"), Some("DEADLINE_EXCEEDED"));
    assert_eq!(events(&span), ["throughline.cancelled"]);
}

#[tokio::test]
async fn a_response_of_known_length_ends_with_its_last_byte() {
    let service = Traced::new("files");
    let (reporter, mut reports) = unbounded_channel::<Report>();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        watch(&ctx, "request", &reporter);
        let chunks = futures_util::stream::iter(["hal", "ves"].map(Ok::<_, std::io::Error>));
        ([("content-length", "6")], Body::from_stream(chunks))
    };
    let address = serve(Router::new().route("/", get(handler)).layer(service.internal())).await;
    assert_eq!(reqwest::get(format!("http://{address}/")).await.unwrap().text().await.unwrap(), "halves");
    assert_eq!(next(&mut reports).await, ("request", "request_finished".into()));
    assert_eq!(text(&service.span().await, "throughline.cancel.cause"), None);
}

#[tokio::test]
async fn a_body_that_is_not_sent_has_ended_when_it_is_dropped() {
    let service = Traced::new("cards");
    let (reporter, mut reports) = unbounded_channel::<Report>();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        watch(&ctx, "request", &reporter);
        "a body that HEAD never sees"
    };
    let address = serve(Router::new().route("/", get(handler)).layer(service.internal())).await;
    let mut stream = ask(address, "HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(next(&mut reports).await, ("request", "request_finished".into()));
    assert_eq!(text(&service.span().await, "throughline.cancel.cause"), None);
}

#[tokio::test]
async fn a_panic_is_the_cause_of_the_requests_end() {
    let service = Traced::new("cards");
    let (reporter, mut reports) = unbounded_channel::<Report>();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        watch(&ctx, "spawned", &reporter);
        tokio::task::yield_now().await;
        if ctx.err().is_none() {
            panic!("a handler that panics");
        }
    };
    let address = serve(Router::new().route("/", get(handler)).layer(service.internal())).await;
    assert!(reqwest::get(format!("http://{address}/")).await.is_err());
    assert_eq!(next(&mut reports).await, ("spawned", "panicked".into()));
    let span = service.span().await;
    assert_eq!((text(&span, "error.type"), text(&span, "throughline.cancel.cause")), (Some("panic"), Some("panicked")));
}

#[tokio::test]
async fn a_reset_within_the_reserve_is_a_deadline() {
    let service = Traced::new("cards");
    let (reporter, mut reports) = unbounded_channel();
    // At most half of the timeout that is sent is reserve, whatever the minimum is.
    let reserve = throughline::ReplyReserve { min: Duration::from_secs(3600), percent: 0, max: Duration::MAX };
    let handler = move |Extension(ctx): Extension<Context>| async move {
        watch(&ctx, "spawned", &reporter);
        while ctx.remaining() > Some(Duration::from_millis(149)) {
            tokio::task::yield_now().await;
        }
        let _ = reporter.send(("handler", "late".into()));
        std::future::pending::<()>().await;
    };
    let app = Router::new().route("/", get(handler)).layer(service.internal().reserve(reserve));
    let stream = ask(serve(app).await, "GET / HTTP/1.1\r\nhost: x\r\ngrpc-timeout: 300m\r\n\r\n").await;
    assert_eq!(next(&mut reports).await.1, "late");
    drop(stream);
    assert_eq!(next(&mut reports).await, ("spawned", "deadline_exceeded".into()));
    assert_eq!(text(&service.span().await, "error.type"), Some("DEADLINE_EXCEEDED"));
}

#[tokio::test]
async fn a_detached_handler_outlives_its_client() {
    let service = Traced::new("cards");
    let (reporter, mut reports) = unbounded_channel::<Report>();
    let (release, released) = tokio::sync::watch::channel(false);
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let handler = move |Extension(ctx): Extension<Context>| {
        let (reporter, mut released, count) = (reporter.clone(), released.clone(), Arc::clone(&count));
        async move {
            let _ = reporter.send(("handler", "called".into()));
            released.changed().await.unwrap();
            assert_eq!(ctx.err(), None);
            count.fetch_add(1, Ordering::SeqCst);
            let _ = reporter.send(("handler", "ended".into()));
        }
    };
    let layer = service.internal().on_disconnect(OnDisconnect::Detach);
    let address = serve(Router::new().route("/", get(handler)).layer(layer)).await;
    let stream = ask(address, GET).await;
    next(&mut reports).await;
    drop(stream);
    release.send(true).unwrap();
    assert_eq!(next(&mut reports).await.1, "ended");
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    service.span().await;
}
