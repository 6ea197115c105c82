//! The bank's spans over real OTLP: to a receiver that decodes them, and to Jaeger.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

#[allow(dead_code)]
#[path = "../../../tests/it/support/collector.rs"]
mod collector;
mod jaeger;

use std::collections::{HashMap, HashSet};

use bank::app::Config;
use bank::scenario::{Outcome, Scenario};
use collector::Collector;

/// The bank with these variables in its environment.
pub async fn play(variables: &[(&str, String)]) -> Outcome {
    let variables =
        variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<HashMap<_, _>>();
    let outcome = Scenario::Ok.play(Config { variables, ..Config::default() }).await.unwrap();
    assert_eq!(outcome.answer.as_ref().map(|(status, _)| *status), Some(200));
    assert!(outcome.closed.lost.is_none(), "{:?}", outcome.closed.lost);
    outcome
}

async fn same_spans_arrive(protocol: &str) {
    let collector = Collector::default();
    let address = if protocol == "grpc" { collector.grpc().await } else { collector.http().await };
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
    let outcome = play(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned())]).await;
    let trace = outcome.traces().remove(0);
    let ours: HashSet<_> = trace
        .spans()
        .iter()
        .map(|span| {
            let record = &span.record;
            (span.service.to_string(), record.name.to_string(), record.span_context.span_id().to_bytes().to_vec())
        })
        .collect();
    let received = collector.received();
    let theirs: HashSet<_> =
        received.iter().map(|(service, span)| (service.clone(), span.name.clone(), span.span_id.clone())).collect();
    assert_eq!((received.len(), &theirs), (23, &ours));
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
