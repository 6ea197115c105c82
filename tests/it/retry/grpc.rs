//! Retries of gRPC calls: one span, the server's pushback, and tonic's clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::uri::PathAndQuery;
use throughline::propagation::deadline::parse_grpc_timeout;
use throughline::trace::{SpanKind, Status as SpanStatus};
use throughline::{Code, Context, ContextLayer, Error, RetryPolicy};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Endpoint;
use tower::Layer;

use super::{Peer, Reply, millis, retrying, seconds};
use crate::support::grpc::{Raw, serve_grpc};
use crate::support::{Traced, events, number, text};

const METHOD: &str = "/cards.Cards/Get";

fn policy() -> RetryPolicy {
    RetryPolicy::new().idempotent_if(|_, uri| uri.path() == METHOD)
}

fn status(code: &'static str) -> Reply {
    Reply::With(200, "grpc-status", code)
}

/// Calls `peer` with a tonic client. A scripted success is no gRPC message, so the call fails then,
/// too: what matters is how often it is sent.
async fn call(peer: &Peer, policy: &RetryPolicy, ctx: &Context) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::with_origin(
        retrying(policy).layer(peer.clone()),
        http::Uri::from_static("http://cards.internal:80"),
    );
    grpc.ready().await.unwrap();
    let mut request = tonic::Request::new(Bytes::from("7"));
    request.extensions_mut().insert(ctx.clone());
    grpc.unary(request, PathAndQuery::from_static(METHOD), Raw).await.map(tonic::Response::into_inner)
}

#[tokio::test(start_paused = true)]
async fn a_status_is_retried_by_its_code_if_the_method_is_declared_idempotent() {
    for (code, sent) in [("14", 2), ("4", 2), ("8", 1), ("10", 1), ("13", 1), ("5", 1), ("1", 1), ("0", 1)] {
        let peer = Peer::new([status(code)]);
        let _ = call(&peer, &policy(), &Context::background()).await;
        assert_eq!(peer.count(), sent, "{code}");
        let peer = Peer::new([status(code)]);
        let _ = call(&peer, &RetryPolicy::new(), &Context::background()).await;
        assert_eq!(peer.count(), 1, "POST is not idempotent");
    }
    // The page of an ingress.
    let peer = Peer::new([Reply::With(503, "retry-after", "3")]);
    let _ = call(&peer, &policy(), &Context::background()).await;
    assert!(peer.waits()[..].first().is_some_and(|wait| *wait >= seconds(3)));
}

#[tokio::test(start_paused = true)]
async fn pushback_is_honoured_and_a_negative_or_malformed_one_forbids_retries() {
    // gRFC A6, "Pushback".
    for (value, sent, at_least) in [
        ("0", 2, 0),
        ("2000", 2, 2000),
        ("-1", 1, 0),
        ("-99999999999999999999", 1, 0),
        ("soon", 1, 0),
        ("1.5", 1, 0),
        ("", 1, 0),
        ("10001", 1, 0),
        ("4294967295", 1, 0),
    ] {
        let peer = Peer::new([Reply::Pushback(value)]);
        let _ = call(&peer, &policy(), &Context::background()).await;
        assert_eq!(peer.count(), sent, "{value}");
        assert!(peer.waits().iter().all(|wait| *wait >= millis(at_least) && *wait <= millis(at_least + 51)), "{value}");
    }
    let peer = Peer::new([Reply::Pushback("2000")]);
    let ctx = Context::background().with_timeout(seconds(2));
    let started = Instant::now();
    let failed = call(&peer, &policy(), &ctx).await.unwrap_err();
    assert_eq!((failed.code(), peer.count(), started.elapsed()), (tonic::Code::Unavailable, 1, millis(0)));
}

#[tokio::test(start_paused = true)]
async fn pushback_stops_hedging() {
    let policy = policy().hedge_after(millis(100)).max_attempts(5);
    let peer = Peer::new([Reply::Hang, Reply::Pushback("-1")]);
    let ctx = Context::background().with_timeout(seconds(2));
    let failed = call(&peer, &policy, &ctx).await.unwrap_err();
    assert_eq!((failed.code(), peer.count(), peer.dropped()), (tonic::Code::DeadlineExceeded, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn one_span_covers_all_attempts_and_each_sends_the_time_that_is_left() {
    let caller = Traced::new("api");
    let ctx = Context::background().with_tracer(caller.telemetry.tracer()).with_timeout(seconds(10));
    let peer = Peer::new([Reply::Pushback("2000"), status("14"), status("5")]);
    let failed = call(&peer, &policy(), &ctx).await.unwrap_err();
    assert_eq!((failed.code(), peer.count()), (tonic::Code::NotFound, 3));
    let span = caller.span().await;
    assert_eq!((span.name.as_ref(), span.kind), ("cards.Cards/Get", SpanKind::Client));
    assert_eq!((text(&span, "rpc.status_code"), text(&span, "error.type")), (Some("NOT_FOUND"), Some("NOT_FOUND")));
    assert!(matches!(span.status, SpanStatus::Error(_)));
    assert_eq!(number(&span, "http.request.resend_count"), None);
    assert_eq!(events(&span), ["throughline.retry", "throughline.retry"]);
    let wait = span.events[0].attributes.get("throughline.retry.wait_ms").and_then(|wait| wait.as_f64()).unwrap();
    assert!((2000.0..=2050.0).contains(&wait), "{wait}");
    let identity = span.span_context.span_id().to_string();
    assert!(peer.headers("traceparent").into_iter().all(|sent| sent.unwrap().contains(&identity)));
    let timeouts = peer.headers("grpc-timeout").into_iter().map(|sent| parse_grpc_timeout(sent?.as_bytes()));
    let timeouts: Vec<_> = timeouts.map(|timeout| timeout.unwrap().as_millis()).collect();
    assert!(timeouts[0] == 9950 && timeouts[1] <= 7950 && timeouts[2] <= timeouts[1], "{timeouts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_ends_the_wait_and_the_span_has_its_cause() {
    let caller = Traced::new("api");
    let request = Context::background().with_tracer(caller.telemetry.tracer()).with_cancel();
    let (peer, policy) = (Peer::new([Reply::Pushback("5000")]), policy());
    let cancel = async {
        tokio::time::sleep(seconds(1)).await;
        request.cancel_with(throughline::Cause::ClientDisconnected);
    };
    let (result, ()) = tokio::join!(call(&peer, &policy, request.context()), cancel);
    let error = Error::from_grpc_status(result.unwrap_err());
    assert_eq!((error.code(), error.message()), (Code::Cancelled, "client disconnected"));
    let span = caller.span().await;
    assert_eq!(
        (&span.status, text(&span, "throughline.cancel.cause")),
        (&SpanStatus::Unset, Some("client_disconnected"))
    );
    assert_eq!(peer.count(), 1);
}

#[tokio::test]
async fn a_tonic_client_gets_the_response_of_the_retry_and_its_message_is_sent_again() {
    let (caller, callee) = (Traced::new("api"), Traced::new("cards"));
    let calls = Arc::new(AtomicU32::new(0));
    let handler = move |request: tonic::Request<Bytes>| {
        let is_first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let down = Error::new(Code::Unavailable, "restarting").with_retry_after(millis(1));
            if is_first { Err(Status::from(down)) } else { Ok(request.into_inner()) }
        }
    };
    let address = serve_grpc(callee.internal(), handler).await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = retrying(&policy().backoff(millis(1), millis(1))).layer(endpoint.connect_lazy());
    let mut grpc = tonic::client::Grpc::with_origin(channel, endpoint.uri().clone());
    grpc.ready().await.unwrap();
    let mut request = tonic::Request::new(Bytes::from("7"));
    let ctx = Context::background().with_tracer(caller.telemetry.tracer()).with_timeout(seconds(10));
    request.extensions_mut().insert(ctx);
    let response = grpc.unary(request, PathAndQuery::from_static(METHOD), Raw).await.unwrap();
    assert_eq!(response.into_inner(), "7");
    let span = caller.span().await;
    assert_eq!((events(&span), text(&span, "rpc.status_code")), (vec!["throughline.retry"], Some("OK")));
    let parents: Vec<_> = callee.spans(2).await.iter().map(|span| span.parent_span_id).collect();
    assert_eq!(parents, [Some(span.span_context.span_id()); 2]);
}

#[tokio::test]
async fn a_stream_of_requests_is_not_retried() {
    let calls = Arc::new(AtomicU32::new(0));
    let seen = calls.clone();
    let address = serve_grpc(ContextLayer::internal(), move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
        async { Err(Status::unavailable("restarting")) }
    })
    .await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = retrying(&policy()).layer(endpoint.connect_lazy());
    let mut grpc = tonic::client::Grpc::with_origin(channel, endpoint.uri().clone());
    grpc.ready().await.unwrap();
    let messages = futures_util::stream::once(async {
        tokio::task::yield_now().await;
        Bytes::from("7")
    });
    let sent = grpc.client_streaming(tonic::Request::new(messages), PathAndQuery::from_static(METHOD), Raw).await;
    assert_eq!(sent.map(tonic::Response::into_inner).unwrap_err().code(), tonic::Code::Unavailable);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}
