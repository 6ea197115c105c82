//! A call, from before its send to the end of its response.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::StreamExt;
use http::HeaderMap;
use throughline::trace::{SpanKind, Status};
use throughline::{Cause, ClientLayer, Code, Context, Error, SendWith};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{PATIENCE, Traced, client, events, number, serve, text};

async fn echo(headers: HeaderMap) -> String {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines.join("\n")
}

#[tokio::test]
async fn a_call_carries_the_trace_and_less_time_than_is_left() {
    let caller = Traced::new("api");
    let address = serve(Router::new().route("/", get(echo))).await;
    let ctx = Context::background().with_tracer(caller.telemetry.tracer()).with_timeout(Duration::from_secs(10));
    let response =
        reqwest::Client::new().get(format!("http://u:p@{address}/?sig=1")).send_with(&ctx, &client()).await.unwrap();
    let sent = response.text().await.unwrap();
    let span = caller.span().await;
    assert_eq!((span.name.as_ref(), span.kind, &span.status), ("GET", SpanKind::Client, &Status::Unset));
    let identity = format!("traceparent: 00-{}-{}-01", span.span_context.trace_id(), span.span_context.span_id());
    assert!(sent.contains(&identity), "{sent}");
    let timeout = sent.lines().find_map(|line| line.strip_prefix("grpc-timeout: ")).unwrap();
    let timeout = throughline::propagation::deadline::parse_grpc_timeout(timeout.as_bytes()).unwrap();
    assert!(timeout <= Duration::from_millis(9_950), "50 ms are kept back: {timeout:?}");
    let left = number(&span, "throughline.deadline.remaining_ms").unwrap();
    assert!(left > timeout.as_secs_f64() * 1e3);
    assert_eq!((left * 1e3).round() / 1e3, left, "three decimals");
    let url = text(&span, "url.full").unwrap();
    assert!(url.contains("sig=REDACTED") && !url.contains("u:p"), "{url}");
    assert_eq!(number(&span, "server.port"), Some(address.port().into()));
}

#[tokio::test]
async fn chosen_query_keys_are_redacted_on_the_span_but_not_in_the_request() {
    let caller = Traced::new("api");
    let echo = async |uri: axum::http::Uri| uri.to_string();
    let address = serve(Router::new().route("/", get(echo))).await;
    let ctx = Context::background().with_tracer(caller.telemetry.tracer());
    let layer = client().redact_query(["token"]).redact_query(["key".to_owned()]);
    let request = reqwest::Client::new().get(format!("http://{address}/?token=abc&page=2&sig=1&key=d"));
    let sent = request.send_with(&ctx, &layer).await.unwrap().text().await.unwrap();
    assert_eq!(sent, "/?token=abc&page=2&sig=1&key=d");
    let shown = format!("http://{address}/?token=REDACTED&page=2&sig=REDACTED&key=REDACTED");
    assert_eq!(text(&caller.span().await, "url.full"), Some(shown.as_str()));
}

#[tokio::test]
async fn an_external_host_gets_only_the_traceparent() {
    let address = serve(Router::new().route("/", get(echo))).await;
    let ctx = Context::background().with_timeout(Duration::from_secs(10));
    let request = reqwest::Client::new().get(format!("http://{address}/")).header("tracestate", "internal=1");
    let sent = request.send_with(&ctx, &ClientLayer::external()).await.unwrap().text().await.unwrap();
    assert!(sent.contains("traceparent: 00-"), "{sent}");
    assert!(!sent.contains("grpc-timeout") && !sent.contains("tracestate"), "{sent}");
}

#[tokio::test]
async fn a_call_without_time_left_is_not_sent() {
    let caller = Traced::new("api");
    // Nothing listens on that port. A call that is sent would fail with another code.
    let ctx = Context::background().with_tracer(caller.telemetry.tracer()).with_timeout(Duration::ZERO);
    let error = reqwest::Client::new().get("http://127.0.0.1:1/").send_with(&ctx, &client()).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let span = caller.span().await;
    assert_eq!(
        (text(&span, "throughline.shed"), text(&span, "error.type")),
        (Some("not sent"), Some("DEADLINE_EXCEEDED"))
    );
}

#[tokio::test]
async fn a_call_that_is_not_sent_because_its_caller_cancelled_is_no_error_on_the_span() {
    let caller = Traced::new("api");
    let request = Context::background().with_tracer(caller.telemetry.tracer()).with_cancel();
    request.cancel_with(Cause::ClientDisconnected);
    let error = reqwest::Client::new().get("http://127.0.0.1:1/").send_with(&request, &client()).await.unwrap_err();
    assert_eq!(error.code(), Code::Cancelled);
    let span = caller.span().await;
    assert_eq!((&span.status, text(&span, "error.type")), (&Status::Unset, None));
    assert_eq!(text(&span, "throughline.shed"), Some("not sent"));
    assert_eq!(events(&span), ["throughline.cancelled"]);
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("client_disconnected"));
}

#[tokio::test]
async fn a_peer_that_does_not_listen_is_unavailable() {
    let caller = Traced::new("api");
    let ctx = Context::background().with_tracer(caller.telemetry.tracer());
    let error = reqwest::Client::new().get("http://127.0.0.1:1/").send_with(&ctx, &client()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(matches!(caller.span().await.status, Status::Error(_)));
}

#[tokio::test]
async fn cancelling_a_call_cancels_the_callee_and_is_no_error_on_the_span() {
    let (caller, callee) = (Traced::new("api"), Traced::new("cards"));
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        let (seen, seen_sender) = (ctx.clone(), sender.clone());
        tokio::spawn(async move {
            seen.done().await;
            let _ = seen_sender.send(seen.cause().unwrap().name());
        });
        let _ = sender.send("called");
        std::future::pending::<()>().await;
    };
    let address = serve(Router::new().route("/", get(handler)).layer(callee.internal())).await;
    let request = Context::background().with_tracer(caller.telemetry.tracer()).with_cancel();
    let ctx = request.context().clone();
    let call = tokio::spawn(async move {
        reqwest::Client::new().get(format!("http://{address}/")).send_with(&ctx, &client()).await.map(drop)
    });
    assert_eq!(receiver.recv().await, Some("called"));
    request.cancel_with(Cause::ClientDisconnected);
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Cancelled);
    let seen = tokio::time::timeout(PATIENCE, receiver.recv()).await.unwrap();
    assert_eq!(seen, Some("client_disconnected"));
    let span = caller.span().await;
    assert_eq!((&span.status, text(&span, "throughline.cancel.cause")), (&Status::Unset, Some("client_disconnected")));
    let callee_span = callee.span().await;
    assert_eq!(callee_span.parent_span_id, Some(span.span_context.span_id()));
    assert_eq!(text(&callee_span, "throughline.cancel.cause"), Some("client_disconnected"));
    assert_eq!((events(&span), events(&callee_span)), (vec!["throughline.cancelled"], vec!["throughline.cancelled"]));
}

#[tokio::test]
async fn a_dropped_call_is_abandoned_and_a_call_cancelled_by_an_error_records_the_error() {
    let (caller, callee) = (Traced::new("api"), Traced::new("cards"));
    let address = serve(Router::new().route("/", get(std::future::pending::<()>)).layer(callee.internal())).await;
    let request = Context::background().with_tracer(caller.telemetry.tracer()).with_cancel();
    let call = || {
        let ctx = request.context().clone();
        Box::pin(
            async move { reqwest::Client::new().get(format!("http://{address}/")).send_with(&ctx, &client()).await },
        )
    };
    let mut dropped = call();
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(dropped.as_mut().poll(cx))).await.is_pending());
    drop(dropped);
    let mut cancelled = call();
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(cancelled.as_mut().poll(cx))).await.is_pending());
    request.cancel_with(std::io::Error::other("db is down"));
    assert_eq!(cancelled.await.unwrap_err().code(), Code::Cancelled);
    let spans = caller.spans(2).await;
    let recorded: Vec<_> = spans
        .iter()
        .map(|span| (text(span, "throughline.cancel.cause"), text(span, "throughline.cancel.message"), events(span)))
        .collect();
    let once = || vec!["throughline.cancelled"];
    assert_eq!(recorded, [(Some("abandoned"), None, once()), (Some("error"), Some("db is down"), once())]);
}

/// A service that closes the connection in the middle of its response.
async fn cut_off() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await.unwrap();
    });
    url
}

#[tokio::test]
async fn a_reqwest_error_becomes_the_error_of_the_call_or_else_the_one_of_reqwest() {
    let half = async || {
        let first = futures_util::stream::once(async { Ok::<_, Infallible>("half") });
        Body::from_stream(first.chain(futures_util::stream::pending()))
    };
    let app = Router::new().route("/half", get(half)).route("/text", get(|| async { "hm" }));
    let address = serve(app).await;
    let get = |path: &str| reqwest::Client::new().get(format!("http://{address}{path}"));

    let request = Context::background().with_cancel();
    let response = get("/half").send_with(&request, &client()).await.unwrap();
    request.cancel_with(Cause::ClientDisconnected);
    let error = Error::from(response.text().await.unwrap_err());
    assert_eq!((error.code(), error.message()), (Code::Cancelled, "client disconnected"));

    let ctx = Context::background().with_timeout(Duration::from_millis(200));
    let read = async || Ok::<_, Error>(get("/half").send_with(&ctx, &client()).await?.text().await?);
    assert_eq!(read().await.unwrap_err().code(), Code::DeadlineExceeded);
    let read = async || get("/half").timeout(Duration::from_millis(200)).send().await?.text().await;
    assert_eq!(Error::from(read().await.unwrap_err()).code(), Code::DeadlineExceeded, "a timeout of reqwest's own");

    let ctx = Context::background();
    let response = reqwest::Client::new().get(cut_off().await).send_with(&ctx, &client()).await.unwrap();
    assert_eq!(Error::from(response.text().await.unwrap_err()).code(), Code::Unavailable);
    let response = get("/text").send_with(&ctx, &client()).await.unwrap();
    assert_eq!(Error::from(response.json::<u8>().await.unwrap_err()).code(), Code::Internal);

    let missing = get("/nowhere").send().await.unwrap().error_for_status().unwrap_err();
    let error = Error::from(missing);
    assert_eq!(error.code(), Code::NotFound);
    assert!(!error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test]
async fn a_reqwest_client_as_a_service_uses_the_ambient_context() {
    use tower::{Layer, Service, ServiceExt};
    let caller = Traced::new("api");
    let address = serve(Router::new().route("/", get(echo))).await;
    let mut service = client().layer(reqwest::Client::new());
    let request = reqwest::Client::new().get(format!("http://{address}/")).build().unwrap();
    let ctx = Context::background().with_tracer(caller.telemetry.tracer());
    let call = ctx.enter(|| service.call(request));
    let response = call.await.unwrap();
    assert_eq!(response.url().path(), "/");
    let sent = response.text().await.unwrap();
    assert!(sent.contains(&caller.span().await.span_context.span_id().to_string()), "{sent}");
    let _ = ServiceExt::<reqwest::Request>::ready(&mut service).await.unwrap();
}

#[tokio::test]
async fn the_time_left_shrinks_from_hop_to_hop() {
    let (api, cards) = (Traced::new("api"), Traced::new("cards"));
    let below = serve(Router::new().route("/", get(|| async { "ok" })).layer(cards.internal())).await;
    let handler = move |Extension(ctx): Extension<Context>| async move {
        let response = reqwest::Client::new().get(format!("http://{below}/")).send_with(&ctx, &client()).await?;
        Ok::<_, throughline::Error>(response.text().await.unwrap())
    };
    let layer = api.edge().max_timeout(Duration::from_secs(5));
    let address = serve(Router::new().route("/", get(handler)).layer(layer)).await;
    assert_eq!(reqwest::get(format!("http://{address}/")).await.unwrap().text().await.unwrap(), "ok");
    let (here, there) = (api.spans(2).await, cards.span().await);
    let left = |span| number(span, "throughline.deadline.remaining_ms").unwrap();
    let (server, call) = (&here[1], &here[0]);
    assert_eq!((server.kind, call.kind), (SpanKind::Server, SpanKind::Client));
    assert_eq!(
        (call.parent_span_id, there.parent_span_id),
        (Some(server.span_context.span_id()), Some(call.span_context.span_id()))
    );
    assert!(left(server) > left(call) && left(call) > left(&there));
}
