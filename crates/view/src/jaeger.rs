//! Encodes a trace as JSON for Jaeger's UI, in the format of Jaeger's query API.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use throughline_core::SpanRecord;
use throughline_core::trace::{Attributes, Resource, SpanKind, Status, Value as AttributeValue};

use crate::trace::{SpanView, Trace};

/// The greatest safe integer of JavaScript: 2^53 - 1. Greater ones are rounded.
const MAX_SAFE: u64 = (1 << 53) - 1;

impl Trace {
    /// Encodes the trace as JSON that Jaeger's UI loads: "Search", then "JSON File".
    ///
    /// - Each resource is a process, with its attributes as tags. So two instances of a service are
    ///   two processes.
    /// - Integers beyond ±(2^53 - 1) are strings, as in Jaeger's own JSON.
    /// - `NaN`, `Infinity` and `-Infinity` are strings.
    pub fn jaeger_json(&self) -> String {
        let mut processes = Map::new();
        let mut ids: HashMap<*const Resource, String> = HashMap::new();
        let mut spans = Vec::with_capacity(self.spans().len());
        for span in self.spans() {
            // Spans with equal resources share one value, so the address identifies it.
            let next = ids.len() + 1;
            let id = ids.entry(Arc::as_ptr(&span.resource)).or_insert_with(|| {
                let id = format!("p{next}");
                processes.insert(id.clone(), process(span));
                id
            });
            spans.push(encode(span, id));
        }
        let trace = json!({ "traceID": self.trace_id().to_string(), "spans": spans, "processes": processes });
        json!({ "data": [trace] }).to_string()
    }
}

/// Encodes the resource of a span as a process of Jaeger's.
fn process(span: &SpanView) -> Value {
    let attributes = span.resource.attributes.iter().filter(|(key, _)| *key != "service.name");
    let tags: Vec<_> = attributes.map(|(key, value)| tag(key, value)).collect();
    json!({ "serviceName": &*span.service, "tags": tags })
}

fn encode(span: &SpanView, process: &str) -> Value {
    let record = &span.record;
    let trace_id = record.span_context.trace_id().to_string();
    let mut references: Vec<_> = record
        .parent_span_id
        .map(|id| json!({ "refType": "CHILD_OF", "traceID": trace_id, "spanID": id.to_string() }))
        .into_iter()
        .collect();
    references.extend(record.links.iter().map(|link| {
        let (trace_id, span_id) = (link.span_context.trace_id().to_string(), link.span_context.span_id().to_string());
        json!({ "refType": "FOLLOWS_FROM", "traceID": trace_id, "spanID": span_id })
    }));
    json!({
        "traceID": trace_id,
        "spanID": record.span_context.span_id().to_string(),
        "operationName": record.name,
        "references": references,
        "startTime": record.start_time.0 / 1000,
        "duration": u64::try_from(record.duration().as_micros()).unwrap_or(u64::MAX),
        "tags": span_tags(record),
        "logs": record.events.iter().map(|event| {
            let mut fields = vec![tag("event", &AttributeValue::Str(event.name.clone()))];
            fields.extend(tags(&event.attributes));
            json!({ "timestamp": event.time.0 / 1000, "fields": fields })
        }).collect::<Vec<_>>(),
        "processID": process,
        "warnings": null,
    })
}

fn span_tags(record: &SpanRecord) -> Vec<Value> {
    let mut all: Vec<_> = tags(&record.attributes).collect();
    if record.kind != SpanKind::Internal {
        all.push(tag("span.kind", &AttributeValue::Str(record.kind.to_string().into())));
    }
    match &record.status {
        Status::Unset => {}
        Status::Ok => all.push(tag("otel.status_code", &AttributeValue::from("OK"))),
        Status::Error(description) => {
            all.push(tag("error", &AttributeValue::Bool(true)));
            all.push(tag("otel.status_code", &AttributeValue::from("ERROR")));
            if !description.is_empty() {
                all.push(tag("otel.status_description", &AttributeValue::Str(description.clone())));
            }
        }
    }
    all
}

fn tags(attributes: &Attributes) -> impl Iterator<Item = Value> {
    attributes.iter().map(|(key, value)| tag(key, value))
}

fn tag(key: &str, value: &AttributeValue) -> Value {
    let (kind, value) = match value {
        AttributeValue::Bool(truth) => ("bool", json!(truth)),
        // Jaeger writes these as strings, too: JavaScript would round the numbers.
        AttributeValue::I64(number) if number.unsigned_abs() > MAX_SAFE => ("int64", json!(number.to_string())),
        AttributeValue::I64(number) => ("int64", json!(number)),
        // JSON has no numbers for these. The strings are those of protobuf's JSON format.
        AttributeValue::F64(number) if number.is_nan() => ("float64", json!("NaN")),
        AttributeValue::F64(number) if number.is_infinite() && *number > 0.0 => ("float64", json!("Infinity")),
        AttributeValue::F64(number) if number.is_infinite() => ("float64", json!("-Infinity")),
        AttributeValue::F64(number) => ("float64", json!(number)),
        other => ("string", json!(other.as_str().map_or_else(|| other.to_string(), str::to_owned))),
    };
    json!({ "key": key, "type": kind, "value": value })
}
