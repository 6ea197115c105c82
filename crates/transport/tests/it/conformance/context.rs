//! The context travels by the two layers, and by them alone.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use throughline::trace::SpanKind;
use throughline::{ClientLayer, Context, ContextLayer, Error, Principal};
use tower::service_fn;

use super::{Harness, recording, request, serve};
use crate::start;

pub async fn the_whole_context_arrives<H: Harness>() {
    let medium = start!(H);
    serve(medium.server(), "balance", async |ctx: Context, request: Request<Bytes>| {
        let remaining = ctx.remaining().expect("the deadline arrives");
        assert!(remaining <= Duration::from_secs(10) && remaining > Duration::from_secs(1), "{remaining:?}");
        assert_eq!(ctx.baggage().get("tenant").as_deref(), Some("blue"));
        assert_eq!(ctx.principal().map(Principal::subject), Some("alice"));
        assert_eq!(request.headers().get_all("traceparent").iter().count(), 1);
        Ok(Response::new(Bytes::from(ctx.span_context().unwrap().trace_id().to_string())))
    })
    .await;
    let (telemetry, _spans) = recording("caller");
    let ctx = Context::background().with_timeout(Duration::from_secs(10));
    let ctx = ctx.with_baggage(ctx.baggage().insert("tenant", "blue").unwrap());
    let ctx = ctx.with_principal(Principal::new("alice").unwrap());
    let span = ctx.span("caller").tracer(telemetry.tracer()).start();
    let response = medium.client().send(&span, "balance", request("/", "")).await.unwrap();
    assert_eq!(response.body(), span.span_context().unwrap().trace_id().to_string().as_bytes());
}

pub async fn a_call_has_one_client_and_one_server_span<H: Harness>() {
    let medium = start!(H);
    let (server_telemetry, server_spans) = recording("balance");
    let (client_telemetry, client_spans) = recording("cards");
    let listener = medium.server().listen("balance").await.unwrap();
    let layer = ContextLayer::internal().tracer(server_telemetry.tracer().clone());
    let service = service_fn(async |_: Request<Full<Bytes>>| Ok::<_, Error>(Response::new(Full::new(Bytes::new()))));
    tokio::spawn(async move { listener.serve(&Context::background(), layer, service).await });
    let client =
        medium.client().clone().client_layer(ClientLayer::internal().tracer(client_telemetry.tracer().clone()));
    client.send(&Context::background(), "balance", request("/reserve", "")).await.unwrap();
    assert!(medium.server().stop_listening("balance").await);
    server_telemetry.force_flush(Duration::from_secs(5)).await.unwrap();
    client_telemetry.force_flush(Duration::from_secs(5)).await.unwrap();
    let (client_spans, server_spans) = (client_spans.spans(), server_spans.spans());
    let kinds: Vec<_> = client_spans.iter().chain(&server_spans).map(|span| span.kind).collect();
    assert_eq!(kinds, [SpanKind::Client, SpanKind::Server]);
    let (client, server) = (&client_spans[0], &server_spans[0]);
    assert_eq!(server.span_context.trace_id(), client.span_context.trace_id());
    assert_eq!(server.parent_span_id, Some(client.span_context.span_id()));
}
