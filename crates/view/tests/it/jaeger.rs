//! The JSON for Jaeger's UI.

use std::sync::Arc;

use serde_json::{Value, json};
use throughline_core::trace::{Batch, Event, Resource, SpanKind, UnixNanos};
use throughline_view::Trace;

use crate::support::Spans;

fn document(spans: &Spans) -> Value {
    serde_json::from_str(&spans.trace().jaeger_json()).unwrap()
}

/// The type and the value of the tag `key`.
fn tag(tags: &Value, key: &str) -> Value {
    let tag = tags.as_array().unwrap().iter().find(|tag| tag["key"] == key).unwrap();
    json!([tag["type"], tag["value"]])
}

#[test]
fn integers_that_javascript_would_round_are_strings() {
    let mut spans = Spans::default();
    let record = spans.add(0, "api", "GET /", SpanKind::Server, [0, 1]);
    let safe = (1_i64 << 53) - 1;
    for (key, number) in [("safe", safe), ("-safe", -safe), ("beyond", safe + 2), ("least", i64::MIN)] {
        record.attributes.set(key, number);
    }
    record.events.push(Event::new("paged", record.end_time, [("cursor", i64::MAX)]));
    let span = &document(&spans)["data"][0]["spans"][0];
    assert_eq!(tag(&span["tags"], "safe"), json!(["int64", safe]));
    assert_eq!(tag(&span["tags"], "-safe"), json!(["int64", -safe]));
    assert_eq!(tag(&span["tags"], "beyond"), json!(["int64", "9007199254740993"]));
    assert_eq!(tag(&span["tags"], "least"), json!(["int64", "-9223372036854775808"]));
    assert_eq!(tag(&span["logs"][0]["fields"], "cursor"), json!(["int64", "9223372036854775807"]));
}

#[test]
fn floats_without_a_json_number_are_strings_and_never_null() {
    let mut spans = Spans::default();
    let record = spans.add(0, "api", "GET /", SpanKind::Server, [0, 1]);
    for (key, number) in [("nan", f64::NAN), ("up", f64::INFINITY), ("down", f64::NEG_INFINITY), ("half", 0.5)] {
        record.attributes.set(key, number);
    }
    let document = document(&spans);
    let tags = &document["data"][0]["spans"][0]["tags"];
    assert_eq!(tag(tags, "nan"), json!(["float64", "NaN"]));
    assert_eq!(tag(tags, "up"), json!(["float64", "Infinity"]));
    assert_eq!(tag(tags, "down"), json!(["float64", "-Infinity"]));
    assert_eq!(tag(tags, "half"), json!(["float64", 0.5]));
}

#[test]
fn each_resource_is_a_process_with_its_attributes() {
    let mut spans = Spans::default();
    spans.add(0, "api", "GET /", SpanKind::Server, [0, 9]);
    spans.add(1, "api", "parse", SpanKind::Internal, [0, 1]);
    for instance in [7_i64, 8, 7] {
        let id = spans.0.len() as u64;
        spans.add(1, "balance", "POST /reserve", SpanKind::Server, [id, id + 1]);
        let resource =
            [("service.name", "balance".into()), ("process.pid", throughline_core::trace::Value::I64(instance))];
        let last = spans.0.last_mut().unwrap();
        // A separate batch: its resource is equal, but not the same value.
        *last = Batch::new(Arc::new(Resource::new(resource)), last.spans.clone());
    }
    let document = document(&spans);
    let trace = &document["data"][0];
    let processes = trace["processes"].as_object().unwrap();
    let of_span: Vec<_> =
        trace["spans"].as_array().unwrap().iter().map(|span| span["processID"].as_str().unwrap()).collect();
    assert_eq!(processes.len(), 3);
    assert_eq!((of_span[0], of_span[2]), (of_span[1], of_span[4]), "equal resources are one process");
    let balance = |span: usize| {
        let process = &processes[of_span[span]];
        (process["serviceName"].as_str().unwrap(), tag(&process["tags"], "process.pid"))
    };
    assert_eq!(balance(2), ("balance", json!(["int64", 7])));
    assert_eq!(balance(3), ("balance", json!(["int64", 8])));
    assert_eq!(processes[of_span[0]], json!({ "serviceName": "api", "tags": [] }), "the name is no tag");
}

#[test]
fn a_resource_without_a_name_or_with_a_nan_is_a_process() {
    let mut spans = Spans::default();
    spans.add(0, "api", "GET /", SpanKind::Server, [0, 9]);
    spans.add(1, "api", "parse", SpanKind::Internal, [0, 1]);
    for batch in &mut spans.0 {
        *batch = Batch::new(Arc::new(Resource::new([("load", f64::NAN)])), batch.spans.clone());
    }
    let trace: &Trace = &spans.trace();
    assert_eq!(trace.start(), UnixNanos(1_700_000_000_000_000_000));
    let document: Value = serde_json::from_str(&trace.jaeger_json()).unwrap();
    let processes = document["data"][0]["processes"].as_object().unwrap();
    assert_eq!(processes.len(), 1);
    let process = processes.values().next().unwrap();
    assert_eq!(
        (process["serviceName"].as_str(), tag(&process["tags"], "load")),
        (Some("unknown"), json!(["float64", "NaN"]))
    );
}
