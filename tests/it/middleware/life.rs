//! A request's end, in each of the ways it can come.

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

type Told = (&'static str, String);

async fn next(told: &mut UnboundedReceiver<Told>) -> Told {
    timeout(PATIENCE, told.recv()).await.expect("it is told in time").expect("somebody tells")
}

/// Tells why `ctx` was ended, from a task that knows of it by the context alone.
fn watch(ctx: &Context, who: &'static str, tell: &UnboundedSender<Told>) {
    let (ctx, tell) = (ctx.clone(), tell.clone());
    tokio::spawn(async move {
        ctx.done().await;
        let _ = tell.send((who, ctx.cause().unwrap().name().to_owned()));
    });
}

/// A handler that never answers.
fn hanging(tell: UnboundedSender<Told>) -> Router {
    let handler = move |Extension(ctx): Extension<Context>| async move {
        watch(&ctx, "spawned", &tell);
        let _ = tell.send(("handler", "called".into()));
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
async fn a_client_that_hangs_up_cancels_the_handler_and_what_it_spawned() {
    let service = Traced::new("cards");
    let (tell, mut told) = unbounded_channel();
    let address = serve(hanging(tell).layer(service.internal())).await;
    let stream = ask(address, GET).await;
    assert_eq!(next(&mut told).await.0, "handler");
    drop(stream);
    assert_eq!(next(&mut told).await, ("spawned", "client_disconnected".into()));
    let span = service.span().await;
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("client_disconnected"));
    assert_eq!((&span.status, text(&span, "error.type")), (&Status::Unset, None), "nobody here has failed");
    assert_eq!(events(&span), ["throughline.cancelled"]);
}

#[tokio::test]
async fn where_layers_outside_may_drop_a_request_it_is_abandoned() {
    let service = Traced::new("cards");
    let (tell, mut told) = unbounded_channel();
    let address = serve(hanging(tell).layer(service.internal().outer_layers_may_drop())).await;
    let stream = ask(address, GET).await;
    next(&mut told).await;
    drop(stream);
    assert_eq!(next(&mut told).await, ("spawned", "abandoned".into()));
}

#[tokio::test]
async fn a_deadline_drops_the_handler_and_answers_504() {
    let service = Traced::new("cards");
    let (tell, mut told) = unbounded_channel();
    let layer = service.internal().max_timeout(Duration::from_millis(30));
    let address = serve(hanging(tell).layer(layer)).await;
    let answer = timeout(PATIENCE, reqwest::get(format!("http://{address}/"))).await.unwrap().unwrap();
    assert_eq!(answer.status(), 504);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["origin"]), (&"DEADLINE_EXCEEDED".into(), &"cards".into()));
    next(&mut told).await;
    assert_eq!(next(&mut told).await, ("spawned", "deadline_exceeded".into()));
    let span = service.span().await;
    assert_eq!(text(&span, "error.type"), Some("DEADLINE_EXCEEDED"));
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("deadline_exceeded"));
    assert!(matches!(span.status, Status::Error(_)));
}

#[tokio::test]
async fn a_request_that_is_dead_on_arrival_does_not_reach_the_handler() {
    let service = Traced::new("cards");
    let (tell, mut told) = unbounded_channel();
    let layer = service.internal();
    let address = serve(hanging(tell).layer(layer.clone())).await;
    let answer =
        reqwest::Client::new().get(format!("http://{address}/")).header("grpc-timeout", "0n").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), layer.shed_count()), (504, 1));
    assert!(told.try_recv().is_err(), "the handler was not called");
    let span = service.span().await;
    assert_eq!(text(&span, "throughline.shed"), Some("dead on arrival"));
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("deadline_exceeded"));
    assert_eq!(events(&span), ["throughline.shed"], "one event");
}

#[tokio::test]
async fn a_shutdown_reaches_every_request() {
    let service = Traced::new("cards");
    let (tell, mut told) = unbounded_channel();
    let process = Context::background().with_cancel();
    let address = serve(hanging(tell).layer(service.internal().base(&process))).await;
    let asked = tokio::spawn(reqwest::get(format!("http://{address}/")));
    next(&mut told).await;
    process.cancel_with(Cause::Shutdown);
    assert_eq!(next(&mut told).await, ("spawned", "shutdown".into()));
    assert_eq!(asked.await.unwrap().unwrap().status(), 503);
    let late = reqwest::get(format!("http://{address}/")).await.unwrap();
    assert_eq!(late.status(), 503, "and those that come after");
}

#[tokio::test]
async fn what_a_request_started_ends_with_its_body_and_what_is_detached_goes_on() {
    let service = Traced::new("cards");
    let (tell, mut told) = unbounded_channel::<Told>();
    let (chunks, body) = unbounded_channel::<Result<&'static str, std::io::Error>>();
    let body = Arc::new(tokio::sync::Mutex::new(Some(body)));
    let handler = move |Extension(ctx): Extension<Context>| {
        let (body, tell) = (Arc::clone(&body), tell.clone());
        async move {
            watch(&ctx, "request", &tell);
            watch(&ctx.detach().with_cancel().disarm(), "detached", &tell);
            let mut body = body.lock().await.take().unwrap();
            Response::new(Body::from_stream(futures_util::stream::poll_fn(move |cx| body.poll_recv(cx))))
        }
    };
    let address = serve(Router::new().route("/", get(handler)).layer(service.internal())).await;
    let mut answer = reqwest::get(format!("http://{address}/")).await.unwrap();
    chunks.send(Ok("half")).unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "half");
    assert!(
        told.try_recv().is_err() && service.telemetry.stats().emitted == 0,
        "a streaming answer is still the request"
    );
    drop(chunks);
    assert_eq!(answer.chunk().await.unwrap(), None);
    assert_eq!(next(&mut told).await, ("request", "request_finished".into()));
    assert!(told.try_recv().is_err(), "what is detached goes on");
    let span = service.span().await;
    assert_eq!(text(&span, "throughline.cancel.cause"), None, "the span ended before");
}

#[tokio::test]
async fn a_deadline_in_the_middle_of_a_body_ends_the_body() {
    let service = Traced::new("cards");
    let handler = || async {
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>("half")]);
        Response::new(Body::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending())))
    };
    let layer = service.internal().max_timeout(Duration::from_millis(30));
    let address = serve(Router::new().route("/", get(handler)).layer(layer)).await;
    let mut answer = reqwest::get(format!("http://{address}/")).await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "half");
    assert!(timeout(PATIENCE, answer.chunk()).await.unwrap().is_err(), "the answer is known to be half of one");
    let span = service.span().await;
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("deadline_exceeded"));
    assert_eq!(text(&span, "error.type"), Some("DEADLINE_EXCEEDED"));
    assert_eq!(events(&span), ["throughline.cancelled"]);
}

#[tokio::test]
async fn an_answer_of_a_known_length_has_ended_with_its_last_byte() {
    let service = Traced::new("files");
    let (tell, mut told) = unbounded_channel::<Told>();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        watch(&ctx, "request", &tell);
        let chunks = futures_util::stream::iter(["hal", "ves"].map(Ok::<_, std::io::Error>));
        ([("content-length", "6")], Body::from_stream(chunks))
    };
    let address = serve(Router::new().route("/", get(handler)).layer(service.internal())).await;
    assert_eq!(reqwest::get(format!("http://{address}/")).await.unwrap().text().await.unwrap(), "halves");
    assert_eq!(next(&mut told).await, ("request", "request_finished".into()));
    assert_eq!(text(&service.span().await, "throughline.cancel.cause"), None);
}

#[tokio::test]
async fn a_body_that_does_not_go_on_the_wire_has_ended() {
    let service = Traced::new("cards");
    let (tell, mut told) = unbounded_channel::<Told>();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        watch(&ctx, "request", &tell);
        "a body that HEAD never sees"
    };
    let address = serve(Router::new().route("/", get(handler)).layer(service.internal())).await;
    let mut stream = ask(address, "HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(next(&mut told).await, ("request", "request_finished".into()));
    assert_eq!(text(&service.span().await, "throughline.cancel.cause"), None);
}

#[tokio::test]
async fn a_panic_is_the_cause_of_what_it_ends() {
    let service = Traced::new("cards");
    let (tell, mut told) = unbounded_channel::<Told>();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        watch(&ctx, "spawned", &tell);
        tokio::task::yield_now().await;
        if ctx.err().is_none() {
            panic!("a handler that panics");
        }
    };
    let address = serve(Router::new().route("/", get(handler)).layer(service.internal())).await;
    assert!(reqwest::get(format!("http://{address}/")).await.is_err());
    assert_eq!(next(&mut told).await, ("spawned", "panicked".into()));
    let span = service.span().await;
    assert_eq!((text(&span, "error.type"), text(&span, "throughline.cancel.cause")), (Some("panic"), Some("panicked")));
}

#[tokio::test]
async fn a_reset_within_the_reserve_is_a_deadline() {
    let service = Traced::new("cards");
    let (tell, mut told) = unbounded_channel();
    // The caller's reserve is at most half of what it sent: with all of it, a drop at any time is within.
    let reserve = throughline::ReplyReserve { min: Duration::from_secs(3600), percent: 0, max: Duration::MAX };
    let handler = move |Extension(ctx): Extension<Context>| async move {
        watch(&ctx, "spawned", &tell);
        while ctx.remaining() > Some(Duration::from_millis(149)) {
            tokio::task::yield_now().await;
        }
        let _ = tell.send(("handler", "late".into()));
        std::future::pending::<()>().await;
    };
    let app = Router::new().route("/", get(handler)).layer(service.internal().reserve(reserve));
    let stream = ask(serve(app).await, "GET / HTTP/1.1\r\nhost: x\r\ngrpc-timeout: 300m\r\n\r\n").await;
    assert_eq!(next(&mut told).await.1, "late");
    drop(stream);
    assert_eq!(next(&mut told).await, ("spawned", "deadline_exceeded".into()));
    assert_eq!(text(&service.span().await, "error.type"), Some("DEADLINE_EXCEEDED"));
}

#[tokio::test]
async fn a_detached_handler_outlives_its_client() {
    let service = Traced::new("cards");
    let (tell, mut told) = unbounded_channel::<Told>();
    let (go, goes) = tokio::sync::watch::channel(false);
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let handler = move |Extension(ctx): Extension<Context>| {
        let (tell, mut goes, count) = (tell.clone(), goes.clone(), Arc::clone(&count));
        async move {
            let _ = tell.send(("handler", "called".into()));
            goes.changed().await.unwrap();
            assert_eq!(ctx.err(), None);
            count.fetch_add(1, Ordering::SeqCst);
            let _ = tell.send(("handler", "ended".into()));
        }
    };
    let layer = service.internal().on_disconnect(OnDisconnect::Detach);
    let address = serve(Router::new().route("/", get(handler)).layer(layer)).await;
    let stream = ask(address, GET).await;
    next(&mut told).await;
    drop(stream);
    go.send(true).unwrap();
    assert_eq!(next(&mut told).await.1, "ended");
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    service.span().await;
}
