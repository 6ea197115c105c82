//! The start of a request: its context and its span.

use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, HeaderValue};
use throughline::trace::{SpanKind, Status};
use throughline::{Context, ContextLayer, SpanRecord};

use crate::support::{Traced, number, serve, text};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn remaining(Extension(ctx): Extension<Context>) -> String {
    ctx.remaining().map_or("none".into(), |remaining| remaining.as_millis().to_string())
}

async fn get_with(layer: ContextLayer, headers: &[(&'static str, &str)]) -> String {
    let address = serve(Router::new().route("/cards/{id}", get(remaining)).layer(layer)).await;
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let url = format!("http://{address}/cards/7?secret=1");
    reqwest::Client::new().get(url).headers(all).send().await.unwrap().text().await.unwrap()
}

async fn span_with(layer: impl FnOnce(&Traced) -> ContextLayer, headers: &[(&'static str, &str)]) -> SpanRecord {
    let service = Traced::new("cards");
    get_with(layer(&service), headers).await;
    service.span().await
}

#[tokio::test]
async fn a_server_span_has_the_attributes_of_its_request() {
    let span = span_with(Traced::internal, &[("traceparent", PARENT), ("user-agent", "tests")]).await;
    assert_eq!((span.name.as_ref(), span.kind, &span.status), ("GET /cards/{id}", SpanKind::Server, &Status::Unset));
    assert_eq!(span.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.parent_span_id.unwrap().to_string(), "00f067aa0ba902b7");
    assert!(span.parent_is_remote);
    let shown = |key| text(&span, key);
    assert_eq!(shown("http.request.method"), Some("GET"));
    assert_eq!(shown("http.route"), Some("/cards/{id}"));
    assert_eq!(shown("url.path"), Some("/cards/7"));
    assert_eq!(shown("url.scheme"), Some("http"));
    assert_eq!(shown("server.address"), Some("127.0.0.1"));
    assert_eq!(shown("network.protocol.version"), Some("1.1"));
    assert_eq!(shown("user_agent.original"), Some("tests"));
    assert_eq!(number(&span, "http.response.status_code"), Some(200.0));
    assert!(!format!("{:?}", span.attributes).contains("secret"));
    assert_eq!(text(&span, "throughline.cancel.cause"), None, "the end of a request is not a cancellation");
}

#[tokio::test]
async fn malformed_headers_start_a_new_trace_without_a_deadline() {
    for parent in ["garbage", "00-0-0-0", "", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"] {
        let span = span_with(Traced::internal, &[("traceparent", parent), ("grpc-timeout", "-5S")]).await;
        assert_eq!(span.parent_span_id, None, "{parent}");
        assert_eq!(number(&span, "throughline.deadline.remaining_ms"), None);
    }
    let seven: String = get_with(ContextLayer::internal(), &[("grpc-timeout", "soon")]).await;
    assert_eq!(seven, "none");
}

#[tokio::test]
async fn a_caller_can_only_shorten_the_deadline() {
    let second = Duration::from_secs(1);
    let millis = async |layer, timeout: &[(&'static str, &str)]| get_with(layer, timeout).await.parse::<u64>().unwrap();
    let internal = ContextLayer::internal;
    assert!(millis(internal().max_timeout(second), &[("grpc-timeout", "1H")]).await <= 1000);
    assert!(
        millis(internal().max_timeout(second), &[]).await <= 1000,
        "the maximum holds without a timeout of the caller"
    );
    assert!(millis(internal().default_timeout(second), &[]).await <= 1000);
    let hour = millis(internal().default_timeout(second), &[("grpc-timeout", "1H")]).await;
    assert!(hour > 1_000_000, "a default is not a maximum: {hour}");
    assert!(millis(internal(), &[("grpc-timeout", "3S")]).await <= 3000);
    assert!(millis(ContextLayer::edge(), &[("grpc-timeout", "99999999H")]).await <= 60_000);
}

#[tokio::test]
async fn an_edge_starts_a_new_trace_with_a_link_to_the_callers() {
    let span = span_with(Traced::edge, &[("traceparent", PARENT)]).await;
    assert_eq!(span.parent_span_id, None);
    assert_ne!(span.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.links.len(), 1);
    assert_eq!(span.links[0].span_context.span_id().to_string(), "00f067aa0ba902b7");
}

#[tokio::test]
async fn the_context_is_ambient_in_the_handler_and_its_values_come_from_the_base() {
    use throughline::Key;
    static REGION: Key<&str> = Key::new("region");
    async fn region(Extension(ctx): Extension<Context>) -> String {
        assert_eq!(ctx.span_context(), Context::current().span_context());
        Context::current().value(&REGION).copied().unwrap_or_default().to_owned()
    }
    let base = Context::background().with_value(&REGION, "eu");
    let app = Router::new().route("/", get(region)).layer(ContextLayer::internal().base(&base));
    let response = reqwest::get(format!("http://{}/", serve(app).await)).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "eu");
}
