//! Encodes span records as OTLP messages.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValueKind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status};
use throughline_core::trace::{Attributes, Batch, Event, Link, SpanKind, Status as SpanStatus, Value};
use throughline_core::{SpanContext, SpanRecord};

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK` of trace.proto.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

pub(super) fn request(batch: &Batch) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "throughline".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = batch.spans.iter().map(encode).collect();
    let resource = Resource { attributes: attributes(&batch.resource.attributes), ..Resource::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }],
            schema_url: String::new(),
        }],
    }
}

fn encode(record: &SpanRecord) -> Span {
    let (trace_id, span_id, trace_state) = identity(&record.span_context);
    Span {
        trace_id,
        span_id,
        trace_state,
        parent_span_id: record.parent_span_id.map(|id| id.to_bytes().to_vec()).unwrap_or_default(),
        flags: flags(&record.span_context, record.parent_is_remote),
        name: record.name.to_string(),
        kind: kind(record.kind) as i32,
        start_time_unix_nano: record.start_time.0,
        end_time_unix_nano: record.end_time.0,
        attributes: attributes(&record.attributes),
        dropped_attributes_count: record.dropped_attributes_count,
        events: record.events.iter().map(event).collect(),
        dropped_events_count: record.dropped_events_count,
        links: record.links.iter().map(link).collect(),
        dropped_links_count: record.dropped_links_count,
        status: status(&record.status),
    }
}

fn identity(context: &SpanContext) -> (Vec<u8>, Vec<u8>, String) {
    let (trace_id, span_id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
    (trace_id.to_vec(), span_id.to_vec(), context.trace_state().as_str().to_owned())
}

fn flags(context: &SpanContext, is_remote: bool) -> u32 {
    u32::from(context.flags().to_byte()) | HAS_IS_REMOTE | if is_remote { IS_REMOTE } else { 0 }
}

fn kind(kind: SpanKind) -> span::SpanKind {
    match kind {
        SpanKind::Internal => span::SpanKind::Internal,
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Client => span::SpanKind::Client,
        SpanKind::Producer => span::SpanKind::Producer,
        SpanKind::Consumer => span::SpanKind::Consumer,
    }
}

fn status(status: &SpanStatus) -> Option<Status> {
    let (code, message) = match status {
        SpanStatus::Unset => return None,
        SpanStatus::Ok => (status::StatusCode::Ok, String::new()),
        SpanStatus::Error(description) => (status::StatusCode::Error, description.to_string()),
    };
    Some(Status { message, code: code as i32 })
}

fn event(event: &Event) -> span::Event {
    span::Event {
        time_unix_nano: event.time.0,
        name: event.name.to_string(),
        attributes: attributes(&event.attributes),
        dropped_attributes_count: event.dropped_attributes_count,
    }
}

fn link(link: &Link) -> span::Link {
    let (trace_id, span_id, trace_state) = identity(&link.span_context);
    span::Link {
        trace_id,
        span_id,
        trace_state,
        attributes: attributes(&link.attributes),
        dropped_attributes_count: link.dropped_attributes_count,
        flags: flags(&link.span_context, link.span_context.is_remote()),
    }
}

fn attributes(attributes: &Attributes) -> Vec<KeyValue> {
    let pair = |(key, content): (&str, &Value)| KeyValue {
        key: key.to_owned(),
        value: Some(value(content)),
        ..KeyValue::default()
    };
    attributes.iter().map(pair).collect()
}

fn value(value: &Value) -> AnyValue {
    let text = |text: &std::borrow::Cow<'static, str>| AnyValueKind::StringValue(text.to_string());
    AnyValue {
        value: Some(match value {
            Value::Bool(truth) => AnyValueKind::BoolValue(*truth),
            Value::I64(number) => AnyValueKind::IntValue(*number),
            Value::F64(number) => AnyValueKind::DoubleValue(*number),
            Value::Str(content) => text(content),
            Value::BoolArray(items) => array(items, |item| AnyValueKind::BoolValue(*item)),
            Value::I64Array(items) => array(items, |item| AnyValueKind::IntValue(*item)),
            Value::F64Array(items) => array(items, |item| AnyValueKind::DoubleValue(*item)),
            Value::StrArray(items) => array(items, text),
            other => AnyValueKind::StringValue(other.to_string()),
        }),
    }
}

fn array<T>(items: &[T], kind: impl Fn(&T) -> AnyValueKind) -> AnyValueKind {
    let values = items.iter().map(|item| AnyValue { value: Some(kind(item)) }).collect();
    AnyValueKind::ArrayValue(ArrayValue { values })
}
