//! Whole requests: over HTTP/2, with a hyper server, upgraded, and as a tree of spans.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use throughline::{Context, ContextError, Error, Group, SendWith, SpanRecord};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{PATIENCE, Traced, client, serve, text};

/// Sends a message when it is dropped.
struct Dropped(UnboundedSender<&'static str>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

#[tokio::test]
async fn a_reset_stream_cancels_the_work_that_its_handler_spawned() {
    let service = Traced::new("cards");
    let (sender, mut receiver) = unbounded_channel();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        let held = Dropped(sender.clone());
        ctx.spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        let _ = sender.send("called");
        std::future::pending::<()>().await;
    };
    let app = Router::new().route("/hang", get(handler)).route("/", get(|| async { "next" })).layer(service.internal());
    let address = serve(app).await;
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let call = tokio::spawn(http2.get(format!("http://{address}/hang")).send());
    assert_eq!(receiver.recv().await, Some("called"));
    call.abort();
    assert_eq!(timeout(PATIENCE, receiver.recv()).await.unwrap(), Some("dropped"));
    let span = service.span().await;
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("client_disconnected"));
    assert_eq!(text(&span, "network.protocol.version"), Some("2"));
    let next = http2.get(format!("http://{address}/")).send().await.unwrap();
    assert_eq!(next.text().await.unwrap(), "next", "the connection and its other streams go on");
}

#[tokio::test]
async fn a_client_that_drops_the_response_body_has_disconnected() {
    let service = Traced::new("cards");
    let endless = || async {
        let chunks = futures_util::stream::iter([Ok::<_, Infallible>("half")]);
        Response::new(Body::from_stream(futures_util::StreamExt::chain(chunks, futures_util::stream::pending())))
    };
    let address = serve(Router::new().route("/", get(endless)).layer(service.internal())).await;
    let mut response = reqwest::get(format!("http://{address}/")).await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "half");
    drop(response);
    assert_eq!(text(&service.span().await, "throughline.cancel.cause"), Some("client_disconnected"));
}

#[tokio::test]
async fn a_hyper_server_works_with_the_layer_and_names_no_route() {
    let service = Traced::new("cards");
    let responding = service_fn(async |request: Request<hyper::body::Incoming>| {
        let ctx = request.extensions().get::<Context>().unwrap();
        Ok::<_, Infallible>(Response::new(Body::from(ctx.err().is_none().to_string())))
    });
    let layered = service.internal().layer(responding);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let each = hyper::service::service_fn(move |request| layered.clone().oneshot(request));
        let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        server.serve_connection(TokioIo::new(stream), each).await
    });
    let response = reqwest::get(format!("http://{address}/cards/7")).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "true");
    assert_eq!(service.span().await.name, "GET");
}

#[tokio::test(start_paused = true)]
async fn after_an_upgrade_the_context_lasts_until_its_deadline() {
    for (method, status) in [(Method::GET, 101), (Method::CONNECT, 200)] {
        let (sender, mut receiver) = unbounded_channel();
        let responding = service_fn(move |request: Request<()>| {
            sender.send(request.extensions().get::<Context>().unwrap().clone()).unwrap();
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let layer = throughline::ContextLayer::internal().max_timeout(Duration::from_secs(60));
        let request = Request::builder().method(method).body(()).unwrap();
        drop(layer.layer(responding).oneshot(request).await.unwrap());
        let ctx = receiver.recv().await.unwrap();
        assert_eq!(ctx.err(), None, "{status}");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(ctx.err(), Some(ContextError::DeadlineExceeded), "{status}");
    }
}

/// The spans as an indented tree. Siblings are sorted by URL and name.
fn tree(spans: &[(&str, SpanRecord)]) -> String {
    fn is_root(spans: &[(&str, SpanRecord)], span: &SpanRecord) -> bool {
        !spans.iter().any(|(_, other)| span.parent_span_id == Some(other.span_context.span_id()))
    }
    let mut open: Vec<_> = spans.iter().filter(|(_, span)| is_root(spans, span)).map(|it| (0, it)).collect();
    let mut shown = String::new();
    while let Some((depth, (service, span))) = open.pop() {
        writeln!(shown, "{:1$}{service} {2:?} {3}", "", depth * 2, span.kind, span.name).unwrap();
        let id = Some(span.span_context.span_id());
        let mut below: Vec<_> = spans.iter().filter(|(_, span)| span.parent_span_id == id).collect();
        below.sort_by_key(|(_, span)| (text(span, "url.full").map(str::to_owned), span.name.clone()));
        open.extend(below.into_iter().rev().map(|it| (depth + 1, it)));
    }
    shown
}

#[tokio::test]
async fn a_fan_out_is_one_tree() {
    let names = ["api", "cards", "limits"];
    let [api, cards, limits] = names.map(Traced::new);
    let limits_at = serve(Router::new().route("/limits/{id}", get(|| async { "9" })).layer(limits.internal())).await;
    let get_text = async move |ctx: Context, path: &str| {
        let response = reqwest::Client::new().get(format!("http://{path}")).send_with(&ctx, &client()).await?;
        Ok::<_, Error>(response.text().await.unwrap())
    };
    let card = async move |Extension(ctx): Extension<Context>| get_text(ctx, &format!("{limits_at}/limits/7")).await;
    let cards_at = serve(Router::new().route("/cards/{id}", get(card)).layer(cards.internal())).await;
    let both = async move |Extension(ctx): Extension<Context>| {
        let mut group = Group::<Error>::new(&ctx);
        for id in [1, 2] {
            drop(group.spawn(async move |ctx| get_text(ctx, &format!("{cards_at}/cards/{id}")).await));
        }
        group.join().await
    };
    let api_at = serve(Router::new().route("/cards", get(both)).layer(api.edge())).await;
    assert_eq!(reqwest::get(format!("http://{api_at}/cards")).await.unwrap().status(), 200);
    let mut spans = Vec::new();
    for (name, service, count) in [("api", api, 3), ("cards", cards, 4), ("limits", limits, 2)] {
        spans.extend(service.spans(count).await.into_iter().map(|span| (name, span)));
    }
    let trace_id = spans[0].1.span_context.trace_id();
    assert!(spans.iter().all(|(_, span)| span.span_context.trace_id() == trace_id));
    let expected = "\
api Server GET /cards
  api Client GET
    cards Server GET /cards/{id}
      cards Client GET
        limits Server GET /limits/{id}
  api Client GET
    cards Server GET /cards/{id}
      cards Client GET
        limits Server GET /limits/{id}
";
    assert_eq!(tree(&spans), expected);
}
