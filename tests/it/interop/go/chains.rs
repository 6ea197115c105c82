//! Chains of requests through both services, as one trace each.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use throughline::trace::SpanKind;
use throughline::{Context, SpanRecord};

use super::Pair;
use super::service::relay;

const CHAINS: usize = 600;
const HOPS: usize = 5;
/// The chains that are followed at one time.
const AT_ONCE: usize = 20;

/// The hops of chain `number`: Go and Rust in turn, each over HTTP or gRPC.
fn hops(pair: &Pair, number: usize) -> Vec<Value> {
    let hop = |index: usize| {
        let (http, grpc) = match (number + index) % 2 {
            0 => (pair.go_http, pair.go_grpc),
            _ => (pair.rust.http, pair.rust.grpc),
        };
        let is_grpc = (number >> (index + 1)) % 2 == 1;
        json!({ "to": if is_grpc { format!("grpc://{grpc}") } else { format!("http://{http}/relay") } })
    };
    (0..HOPS).map(hop).collect()
}

/// A span of either service: its id, that of its parent (or ""), and its kind.
type Ended = (String, String, String);
type Traces = HashMap<String, Vec<Ended>>;

fn add_spans_of_rust(traces: &mut Traces, spans: Vec<SpanRecord>) {
    for span in spans {
        let parent = span.parent_span_id.map_or_else(String::new, |parent| parent.to_string());
        let kind = match span.kind {
            SpanKind::Internal => "internal",
            SpanKind::Client => "client",
            SpanKind::Server => "server",
            kind => panic!("{kind:?}"),
        };
        let ended = (span.span_context.span_id().to_string(), parent, kind.to_owned());
        traces.entry(span.span_context.trace_id().to_string()).or_default().push(ended);
    }
}

/// Takes the ended spans of the Go service.
async fn add_spans_of_go(traces: &mut Traces, pair: &mut Pair) {
    pair.send(&json!({ "do": "spans", "id": "spans" }));
    for span in pair.event("spans", "spans").await["what"].as_array().unwrap() {
        let text = |name: &str| span[name].as_str().unwrap().to_owned();
        traces.entry(text("trace")).or_default().push((text("span"), text("parent"), text("kind")));
    }
}

#[tokio::test]
async fn six_hundred_chains_through_rust_and_go_are_one_trace_each() {
    let Some(mut pair) = Pair::start().await else { return };
    let (mut chains, mut traces, mut of_rust) = (Vec::new(), Traces::new(), Vec::new());
    for first in (0..CHAINS).step_by(AT_ONCE) {
        let mut seen: Vec<Vec<Value>> = Vec::new();
        let mut from_rust = tokio::task::JoinSet::new();
        let mut from_go = Vec::new();
        for number in first..first + AT_ONCE {
            let hops = hops(&pair, number);
            if number % 2 == 0 {
                let ctx = Context::background().with_tracer(pair.rust.traced.telemetry.tracer());
                let ctx = ctx.with_timeout(Duration::from_secs(20));
                let ctx = ctx.with_baggage(ctx.baggage().insert("tenant", "acme").unwrap());
                from_rust.spawn(async move {
                    let root = ctx.span("chain").start();
                    relay(&root, &hops).await
                });
            } else {
                let id = format!("chain {number}");
                pair.send(&json!({ "do": "relay", "id": id, "timeoutMS": 20_000, "hops": hops }));
                from_go.push(id);
            }
        }
        seen.extend(from_rust.join_all().await);
        for id in from_go {
            let result = pair.event(&id, "result").await;
            seen.push(serde_json::from_value(result["what"].clone()).unwrap());
        }

        for chain in &seen {
            assert_eq!(chain.len(), HOPS + 1, "{chain:?}");
            for (one, next) in chain.iter().zip(&chain[1..]) {
                assert_ne!(one["service"], next["service"], "{chain:?}");
                assert_eq!(one["trace"], next["trace"], "{chain:?}");
                assert!(one["left_us"].as_i64() > next["left_us"].as_i64(), "a deadline only shrinks: {chain:?}");
            }
            assert!(chain.iter().all(|hop| hop["tenant"] == "acme"), "{chain:?}");
        }

        add_spans_of_go(&mut traces, &mut pair).await;
        // Half of the hops are Rust's. Each has a SERVER and a CLIENT span.
        let count = (first + AT_ONCE) * (2 * HOPS + 1) / 2;
        of_rust = pair.rust.traced.spans(count as u64).await;
        chains.extend(seen);
    }

    add_spans_of_rust(&mut traces, of_rust);
    assert_eq!((chains.len(), traces.len()), (CHAINS, CHAINS), "a trace for each chain");
    let expected: Vec<_> = ["internal"].into_iter().chain(["client", "server"].repeat(HOPS)).collect();
    for chain in &chains {
        let spans = &traces[chain[0]["trace"].as_str().unwrap()];
        let (mut parent, mut kinds) = (String::new(), Vec::new());
        // Each span has one child: the spans are one line from the first service to the last.
        while let Some((id, _, kind)) = spans.iter().find(|(_, of, _)| *of == parent) {
            kinds.push(kind.as_str());
            parent.clone_from(id);
        }
        assert_eq!((spans.len(), &kinds), (expected.len(), &expected), "{spans:?}");
    }
}
