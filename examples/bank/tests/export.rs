//! Exports the bank's spans by OTLP, to a test receiver and to Jaeger.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

#[allow(dead_code)]
#[path = "../../../tests/it/support/collector.rs"]
mod collector;
mod jaeger;

use std::collections::{HashMap, HashSet};

use bank::app::Config;
use bank::scenario::{Outcome, Scenario};
use collector::Collector;

/// Plays the `Ok` scenario with these environment variables.
pub async fn play(variables: &[(&str, String)]) -> Outcome {
    let variables =
        variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<HashMap<_, _>>();
    let outcome = Scenario::Ok.play(Config { variables, ..Config::default() }).await.unwrap();
    assert_eq!(outcome.response.as_ref().map(|(status, _)| *status), Some(200));
    assert!(outcome.closed.lost.is_none(), "{:?}", outcome.closed.lost);
    outcome
}

async fn same_spans_arrive(protocol: &str) {
    let collector = Collector::default();
    let address = if protocol == "grpc" { collector.grpc().await } else { collector.http().await };
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
    let outcome = play(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned())]).await;
    let trace = outcome.traces().remove(0);
    let sent: HashSet<_> = trace
        .spans()
        .iter()
        .map(|span| {
            let record = &span.record;
            (span.service.to_string(), record.name.to_string(), record.span_context.span_id().to_bytes().to_vec())
        })
        .collect();
    let received = collector.received();
    let exported: HashSet<_> =
        received.iter().map(|(service, span)| (service.clone(), span.name.clone(), span.span_id.clone())).collect();
    assert_eq!((received.len(), &exported), (23, &sent));
    let ids: HashSet<_> = received.iter().map(|(_, span)| span.span_id.clone()).collect();
    let roots: Vec<_> = received.iter().filter(|(_, span)| !ids.contains(&span.parent_span_id)).collect();
    assert_eq!(roots.len(), 1, "every other parent is present");
    assert_eq!(received.iter().map(|(_, span)| span.trace_id.clone()).collect::<HashSet<_>>().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_spans_arrive_over_http() {
    same_spans_arrive("http/protobuf").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_spans_arrive_over_grpc() {
    same_spans_arrive("grpc").await;
}
