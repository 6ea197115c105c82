//! A layer inside another one continues the request of the outer one.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http_body_util::BodyExt;
use serde_json::Value;
use throughline::trace::SpanKind;
use throughline::{Cause, Code, Codec, Context, ContextLayer, Error, Key, Principal};
use tonic::Status;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::grpc::{call_grpc_stream, serve_grpc_stream_by};
use crate::support::{Traced, client, number, serve, text};

static SHARD: Key<u8> = Key::header("x-shard", Codec::text());

/// `inner` around the routes, `outer` around all of them.
async fn nested<A, F>(outer: ContextLayer, inner: ContextLayer, handler: A) -> std::net::SocketAddr
where
    A: Fn(Context) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<String, Error>> + Send + 'static,
{
    let handler = move |Extension(ctx): Extension<Context>| handler(ctx);
    let cards = Router::new().route("/{id}", get(handler)).layer(inner);
    serve(Router::new().fallback_service(outer.layer(Router::new().nest("/cards", cards)))).await
}

async fn ask(address: std::net::SocketAddr, headers: &[(&'static str, &'static str)]) -> reqwest::Response {
    let mut request = reqwest::Client::new().get(format!("http://{address}/cards/7"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_layer_inside_another_continues_its_trace_its_principal_and_its_deadline() {
    let service = Traced::new("cards");
    let outer = service.edge().authenticator(|_| Ok(Principal::new("alice"))).max_timeout(Duration::from_secs(2));
    for (limit, at_most) in [(9, 2000), (1, 1000)] {
        let inner = service.internal().max_timeout(Duration::from_secs(limit));
        let address = nested(outer.clone(), inner, |ctx| async move {
            let remaining = ctx.remaining().unwrap().as_millis();
            Ok(format!("{} {remaining}", ctx.principal().unwrap().subject()))
        })
        .await;
        let body = ask(address, &[]).await.text().await.unwrap();
        let (subject, remaining) = body.split_once(' ').unwrap();
        assert!(subject == "alice" && remaining.parse::<u128>().unwrap() <= at_most, "{body}");
    }
    for span in service.spans(2).await {
        assert_eq!(
            (span.kind, span.name.as_ref()),
            (SpanKind::Server, "GET /cards/{id}"),
            "the route is the inner layer's"
        );
        assert_eq!((text(&span, "http.route"), text(&span, "url.path")), (Some("/cards/{id}"), Some("/cards/7")));
        assert_eq!(text(&span, "throughline.cancel.cause"), None);
    }
    assert_eq!(service.memory.spans().len(), 2, "one for each request");
}

#[tokio::test]
async fn an_error_gets_its_service_into_its_path_once() {
    let service = Traced::new("cards");
    let address = nested(service.internal(), service.internal(), |_| async {
        Err(Error::wrap(Code::Aborted, std::io::Error::other("locked")))
    })
    .await;
    let problem: Value = ask(address, &[]).await.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["path"]), (&"ABORTED".into(), &serde_json::json!(["cards"])));
    let span = service.span().await;
    assert_eq!(number(&span, "http.response.status_code"), Some(409.0));
    assert_eq!(span.events.iter().filter(|event| event.name == "exception").count(), 1);
}

#[tokio::test]
async fn a_layer_inside_an_edge_trusts_a_client_no_more_than_the_edge_does() {
    let shard = |ctx: Context| async move { Ok(ctx.value(&SHARD).map_or("none".into(), |shard| shard.to_string())) };
    let inner = || ContextLayer::internal().keys(&[&SHARD]);
    for (outer, seen) in [(ContextLayer::internal(), "3"), (ContextLayer::edge(), "none")] {
        let address = nested(outer, inner(), shard).await;
        assert_eq!(ask(address, &[("x-shard", "3")]).await.text().await.unwrap(), seen);
    }
}

#[tokio::test]
async fn the_deadline_of_an_inner_layer_is_on_the_span_of_the_request() {
    let service = Traced::new("cards");
    let inner = ContextLayer::internal().max_timeout(Duration::from_millis(30));
    let address = nested(service.internal(), inner, |_| std::future::pending()).await;
    let response = ask(address, &[]).await;
    assert_eq!(response.status(), 504);
    let problem: Value = response.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["path"]), (&"DEADLINE_EXCEEDED".into(), &serde_json::json!(["cards"])));
    let span = service.span().await;
    assert_eq!(
        (text(&span, "error.type"), number(&span, "http.response.status_code")),
        (Some("DEADLINE_EXCEEDED"), Some(504.0))
    );
}

#[tokio::test]
async fn the_base_of_either_layer_ends_a_request_as_unavailable() {
    for is_inner in [true, false] {
        let (service, process) = (Traced::new("cards"), Context::background().with_cancel());
        let (outer, inner) = match is_inner {
            true => (service.internal(), ContextLayer::internal().base(&process)),
            false => (service.internal().base(&process), ContextLayer::internal()),
        };
        let (called, is_called) = tokio::sync::oneshot::channel();
        let called = std::sync::Arc::new(std::sync::Mutex::new(Some(called)));
        let address = nested(outer, inner, move |_| {
            called.lock().unwrap().take().unwrap().send(()).unwrap();
            std::future::pending()
        })
        .await;
        let request = tokio::spawn(ask(address, &[]));
        is_called.await.unwrap();
        process.cancel_with(Cause::Shutdown);
        let response = request.await.unwrap();
        assert_eq!(response.status(), 503, "inner: {is_inner}");
        assert_eq!(response.json::<Value>().await.unwrap()["retryable"], true);
        let span = service.span().await;
        assert_eq!(text(&span, "error.type"), Some("UNAVAILABLE"));
        assert!(span.events.iter().filter(|event| event.name.contains("cancelled")).count() <= 1);
    }
}

#[tokio::test]
async fn a_grpc_stream_ends_with_trailers_for_the_deadline_of_either_layer() {
    let service = Traced::new("cards");
    let limit = Duration::from_millis(50);
    let (wide, narrow) = (|| service.internal(), || service.internal().max_timeout(limit));
    for (outer, inner) in [(wide(), narrow()), (narrow(), wide()), (narrow(), narrow())] {
        let address = serve_grpc_stream_by(outer, Some(inner), "one").await;
        let mut messages = call_grpc_stream(address, "/cards.Cards/Watch").await;
        assert_eq!(messages.message().await.unwrap().unwrap(), "one");
        assert_eq!(messages.message().await.unwrap_err().code(), tonic::Code::DeadlineExceeded);
    }
    for span in service.spans(3).await {
        assert_eq!(
            (span.name.as_ref(), text(&span, "rpc.status_code")),
            ("cards.Cards/Watch", Some("DEADLINE_EXCEEDED"))
        );
    }
}

#[tokio::test]
async fn a_method_whose_inner_layer_has_a_deadline_has_the_path_of_its_service() {
    let service = Traced::new("cards");
    let hanging = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let inner = ContextLayer::internal().max_timeout(Duration::from_millis(20));
    let request = Request::post("/cards.Cards/Get").version(http::Version::HTTP_2);
    let request = request.header("content-type", "application/grpc").body(Body::empty()).unwrap();
    let response = service.internal().layer(inner.layer(hanging)).oneshot(request).await.unwrap();
    let error = Error::from_grpc_status(Status::from_header_map(response.headers()).unwrap());
    assert_eq!((error.code(), error.path().collect::<Vec<_>>()), (Code::DeadlineExceeded, vec!["cards"]));
}

#[tokio::test]
async fn a_call_within_the_process_is_a_request_of_its_own() {
    let (outer, inner) = (Traced::new("api"), Traced::new("cards"));
    let cards = inner.internal().layer(service_fn(async |request: Request<Body>| {
        let remaining = request.extensions().get::<Context>().unwrap().remaining();
        Ok::<_, Infallible>(Response::new(Body::from(format!("{}", remaining.is_some()))))
    }));
    let gateway = outer
        .internal()
        .layer(service_fn(move |request: Request<Body>| client().layer(cards.clone()).oneshot(request)));
    let mut gateway = gateway;
    let response = gateway.call(Request::new(Body::empty())).await.unwrap();
    response.into_body().collect().await.unwrap();
    let (outer_spans, served) = (outer.spans(2).await, inner.span().await);
    let call = outer_spans.iter().find(|span| span.kind == SpanKind::Client).unwrap();
    assert_eq!((served.kind, served.parent_span_id), (SpanKind::Server, Some(call.span_context.span_id())));
}

#[tokio::test(start_paused = true)]
async fn a_stream_lives_longer_than_the_limits_of_both_layers() {
    let (ctx, stream) = (Duration::from_secs(30), Duration::from_secs(300));
    let streaming = service_fn(move |request: Request<Body>| async move {
        let throughline::StreamCtx(whole) = throughline::StreamCtx::of(request.extensions()).unwrap();
        assert_eq!(request.extensions().get::<Context>().unwrap().remaining(), Some(ctx));
        let frames = futures_util::stream::unfold(0, move |sent| {
            let whole = whole.clone();
            async move {
                whole.run(tokio::time::sleep(Duration::from_secs(20))).await.unwrap();
                assert!(!whole.is_done() && !Context::current().is_done());
                (sent < 15).then(|| (Ok::<_, Infallible>("frame"), sent + 1))
            }
        });
        Ok::<_, Infallible>(Response::new(Body::from_stream(frames)))
    });
    for (outer, inner) in [(30, 60), (60, 30), (30, 30)] {
        let layer = |limit| ContextLayer::internal().max_timeout(Duration::from_secs(limit));
        let start = tokio::time::Instant::now();
        let response = layer(outer).layer(layer(inner).layer(streaming)).oneshot(Request::new(Body::empty()));
        let body = response.await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes().len(), 15 * "frame".len());
        assert!(start.elapsed() > stream);
    }
}
