//! grpcio as client and as server: deadlines, traces and errors, both ways.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use throughline::{Cause, Code, Context, ContextLayer, Error, ReplyReserve};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use super::Peer;
use crate::support::grpc::{call_grpc, serve_grpc};
use crate::support::{PATIENCE, client};

/// Starts the peer, and returns it with its address.
fn peer() -> Option<(Peer, std::net::SocketAddr)> {
    let mut peer = Peer::python("grpc_peer.py")?;
    let port = peer.response().as_u64().unwrap();
    Some((peer, ([127, 0, 0, 1], u16::try_from(port).unwrap()).into()))
}

/// Calls the peer on a blocking thread: this runtime must stay free to serve the peer.
async fn call_peer(peer: Peer, request: Value) -> (Peer, Value) {
    let calling = tokio::task::spawn_blocking(move || {
        let mut peer = peer;
        let response = peer.call(&request);
        (peer, response)
    });
    timeout(PATIENCE, calling).await.expect("the peer responds").unwrap()
}

#[tokio::test]
async fn a_call_from_grpcio_has_its_deadline_and_its_trace() {
    let Some((mut peer, _)) = peer() else { return };
    let address = serve_grpc(ContextLayer::internal(), async |request| {
        let ctx = request.extensions().get::<Context>().unwrap();
        let span = ctx.span_context().unwrap();
        let left = ctx.remaining().map(|left| left.as_secs_f64());
        Ok(Bytes::from(json!([left, span.trace_id().to_string(), ctx.baggage().get("tenant")]).to_string()))
    })
    .await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let metadata = [("traceparent", &*format!("00-{trace}-00f067aa0ba902b7-01")), ("baggage", "tenant=acme")];
    let call = json!({ "to": address.to_string(), "method": "/a.B/C", "message": "", "metadata": metadata });
    for given in [0.987654, 3.0, 90.0, 1234.5, 4e4, 4e6] {
        let mut call = call.clone();
        call["timeout"] = given.into();
        let response;
        (peer, response) = call_peer(peer, call).await;
        let (left, trace_id, tenant): (f64, String, String) =
            serde_json::from_str(response["response"].as_str().unwrap()).unwrap();
        // grpcio rounds the timeout up, by at most 1 %.
        assert!(left > 0.0 && left <= given * 1.01, "{left} of {given}");
        assert_eq!((&*trace_id, &*tenant), (trace, "acme"));
    }
    let (_, response) = call_peer(peer, call).await;
    let (left, ..): (Option<f64>, String, String) =
        serde_json::from_str(response["response"].as_str().unwrap()).unwrap();
    assert_eq!(left, None, "without a deadline, the service has none");
}

#[tokio::test]
async fn grpcio_reads_deadline_exceeded_for_its_deadline_and_for_the_services_deadline() {
    let Some((mut peer, _)) = peer() else { return };
    let (sender, mut received) = unbounded_channel();
    let layer = ContextLayer::internal().max_timeout(Duration::from_secs(1));
    let address = serve_grpc(layer, move |request| {
        sender.send(request.extensions().get::<Context>().unwrap().clone()).unwrap();
        std::future::pending()
    })
    .await;
    // Without its own deadline, grpcio reads the status in the trailers. With its own deadline, it
    // may close the stream before the service sends the status.
    for given in [Value::Null, 0.5.into()] {
        let call = json!({ "to": address.to_string(), "method": "/a.B/C", "message": "", "timeout": &given });
        let response;
        (peer, response) = call_peer(peer, call).await;
        assert_eq!(response["code"], "DEADLINE_EXCEEDED", "{response}");
        let served = timeout(PATIENCE, received.recv()).await.unwrap().unwrap();
        timeout(PATIENCE, served.done()).await.unwrap();
        if given.is_null() {
            assert!(matches!(served.cause(), Some(Cause::DeadlineExceeded)), "{:?}", served.cause());
        }
    }
}

#[tokio::test]
async fn grpcio_reads_errors_of_this_library() {
    let Some((peer, _)) = peer() else { return };
    let address = serve_grpc(ContextLayer::internal(), async |_| {
        let missing = [("field".to_owned(), "amount".into())].into_iter().collect();
        let error = Error::new(Code::ResourceExhausted, "zu viel: 100 % für heute")
            .with_retry_after(Duration::from_millis(1500));
        Err(error
            .with_retryable(true)
            .with_detail("example.com/Missing", missing)
            .through_service(Some("cards"))
            .into())
    })
    .await;
    let (_, response) = call_peer(peer, json!({ "to": address.to_string(), "method": "/a.B/C", "message": "" })).await;
    assert_eq!(
        (&response["code"], &response["message"]),
        (&json!("RESOURCE_EXHAUSTED"), &json!("zu viel: 100 % für heute"))
    );
    assert_eq!(
        (&response["retry_nanos"], &response["trailers"]["grpc-retry-pushback-ms"]),
        (&json!(1_500_000_000), &json!("1500"))
    );
    let info = &response["info"];
    assert_eq!((&info["reason"], &info["domain"]), (&json!("RESOURCE_EXHAUSTED"), &json!("throughline")));
    let details = r#"[{"@type":"example.com/Missing","field":"amount"}]"#;
    let metadata = json!({ "origin": "cards", "path": r#"["cards"]"#, "retryable": "true", "details": details });
    assert_eq!(info["metadata"], metadata);
}

#[tokio::test]
async fn grpcio_receives_a_shorter_timeout_and_the_trace() {
    let Some((_peer, address)) = peer() else { return };
    for given in [Duration::from_secs(3), Duration::from_secs(70), Duration::from_secs(300_000)] {
        let ctx = Context::background().with_timeout(given);
        let left = call_grpc(&client(), &ctx, address, "/a.B/left", "").await.unwrap();
        let left: f64 = serde_json::from_slice(&left).unwrap();
        let most = given - ReplyReserve::DEFAULT.of(given);
        assert!(left > 0.0 && left <= most.as_secs_f64(), "{left} of {given:?}");
    }
    let ctx = Context::background();
    let ctx = ctx.with_baggage(ctx.baggage().insert("tenant", "a,b").unwrap());
    let span = ctx.span("ask").start();
    let metadata = call_grpc(&client(), &span, address, "/a.B/metadata", "").await.unwrap();
    let metadata: Vec<(String, String)> = serde_json::from_slice(&metadata).unwrap();
    let get = |name: &str| metadata.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
    assert_eq!(get("baggage"), "tenant=a%2Cb");
    let parent = throughline::propagation::w3c::parse_traceparent(get("traceparent").as_bytes()).unwrap();
    assert_eq!(Some(parent.0), span.span_context().map(|sent| sent.trace_id()));
}

#[tokio::test]
async fn a_slow_grpcio_server_is_deadline_exceeded() {
    let Some((_peer, address)) = peer() else { return };
    let ctx = Context::background().with_timeout(Duration::from_millis(200));
    let status = call_grpc(&client(), &ctx, address, "/a.B/hang", "").await.unwrap_err();
    assert_eq!(Error::from_grpc_status(status).code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn errors_from_grpcio_are_read() {
    let Some((_peer, address)) = peer() else { return };
    let from_throughline = r#"{"code": 5, "message": "keine Karte: 100 % weg, ü", "reason": "NOT_FOUND", "domain": "throughline", "retry_nanos": 250000000,
        "metadata": {"origin": "cards", "path": "[\"cards\",\"api\"]", "retryable": "false", "details": "[{\"@type\":\"example.com/Missing\"}]"}}"#;
    let status =
        call_grpc(&client(), &Context::background(), address, "/a.B/fail", from_throughline).await.unwrap_err();
    let error = Error::from_grpc_status(status);
    assert_eq!((error.code(), error.message()), (Code::NotFound, "keine Karte: 100 % weg, ü"));
    assert_eq!((error.origin(), error.path().len(), error.retryable()), (Some("cards"), 2, Some(false)));
    assert_eq!((error.retry_after(), error.details().len()), (Some(Duration::from_millis(250)), 1));

    let from_others = r#"{"code": 14, "message": "later", "reason": "QUOTA", "domain": "example.com", "metadata": {"origin": "x"}, "retry_nanos": 0}"#;
    let status = call_grpc(&client(), &Context::background(), address, "/a.B/fail", from_others).await.unwrap_err();
    let error = Error::from_grpc_status(status);
    let host = Some("127.0.0.1");
    assert_eq!((error.code(), error.message(), error.origin()), (Code::Unavailable, "later", host));
}
