//! Tests with a real Jaeger on its default ports (`tests/jaeger/jaeger-up` starts one).

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::play;

const API: &str = "http://127.0.0.1:16686";

async fn get_json(path: &str) -> Option<Value> {
    let response = reqwest::get(format!("{API}{path}")).await.ok()?;
    if response.status().is_success() { response.json().await.ok() } else { None }
}

/// Whether a Jaeger is running.
///
/// If not, prints that tests are skipped, or fails if it is required.
async fn is_there() -> bool {
    let is_there = get_json("/api/v3/services").await.is_some();
    let is_required = std::env::var("THROUGHLINE_JAEGER").is_ok_and(|value| value == "required");
    assert!(is_there || !is_required, "no Jaeger responds at {API}");
    if !is_there {
        println!("skipped: no Jaeger responds at {API}; tests/jaeger/jaeger-up starts one");
    }
    is_there
}

/// Waits until Jaeger has `count` spans of the trace. Jaeger stores spans with a delay.
async fn trace(id: &str, count: usize) -> Value {
    let start = Instant::now();
    loop {
        let found = get_json(&format!("/api/traces/{id}")).await.map(|mut response| response["data"][0].take());
        let spans = found.as_ref().and_then(|trace| trace["spans"].as_array()).map_or(0, Vec::len);
        if spans >= count {
            return found.unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "Jaeger has {spans} of {count} spans");
        tokio::task::yield_now().await;
    }
}

async fn jaeger_has_it_all(endpoint: &str, protocol: &str) {
    if !is_there().await {
        return;
    }
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned())];
    let outcome = play(&variables).await;
    let sent = outcome.traces().remove(0);
    let stored = trace(&sent.trace_id().to_string(), 23).await;

    let spans = stored["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 23);
    let ids: HashSet<_> = spans.iter().map(|span| span["spanID"].as_str().unwrap()).collect();
    let mut roots = 0;
    for span in spans {
        assert!(span["warnings"].as_array().is_none_or(Vec::is_empty), "{span}");
        match span["references"].as_array().unwrap().first() {
            Some(parent) => assert!(ids.contains(parent["spanID"].as_str().unwrap()), "{span}"),
            None => roots += 1,
        }
    }
    assert_eq!(roots, 1);
    let services: HashSet<_> = stored["processes"]
        .as_object()
        .unwrap()
        .values()
        .map(|process| process["serviceName"].as_str().unwrap())
        .collect();
    assert_eq!(services, sent.services().into_iter().collect());

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() + 60_000;
    let response = get_json(&format!("/api/dependencies?endTs={now}&lookback=3600000")).await.unwrap();
    let edges: HashSet<_> = response["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| (edge["parent"].as_str().unwrap(), edge["child"].as_str().unwrap()))
        .collect();
    for edge in sent.edges() {
        assert!(edges.contains(&edge), "{edge:?} is not among {edges:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jaeger_has_the_whole_trace_over_http() {
    jaeger_has_it_all("http://127.0.0.1:4318", "http/protobuf").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jaeger_has_the_whole_trace_over_grpc() {
    jaeger_has_it_all("http://127.0.0.1:4317", "grpc").await;
}
