//! The approximate memory size of ended spans.

use std::mem;

use throughline_core::trace::{Attributes, Status, Value};
use throughline_core::{SpanContext, SpanRecord};

/// Returns the approximate size of a span in bytes.
pub(super) fn size(span: &SpanRecord) -> usize {
    let events = span.events.iter().map(|event| mem::size_of_val(event) + event.name.len() + heap(&event.attributes));
    let links =
        span.links.iter().map(|link| mem::size_of_val(link) + identity(&link.span_context) + heap(&link.attributes));
    let status = if let Status::Error(description) = &span.status { description.len() } else { 0 };
    let parts = span.name.len() + status + heap(&span.attributes) + identity(&span.span_context);
    mem::size_of::<SpanRecord>() + parts + events.sum::<usize>() + links.sum::<usize>()
}

fn identity(context: &SpanContext) -> usize {
    context.trace_state().as_str().len()
}

fn heap(attributes: &Attributes) -> usize {
    let value = |value: &Value| match value {
        Value::Str(text) => text.len(),
        Value::BoolArray(items) => items.len(),
        Value::I64Array(items) => items.len() * 8,
        Value::F64Array(items) => items.len() * 8,
        Value::StrArray(items) => items.iter().map(|item| item.len() + mem::size_of_val(item)).sum(),
        _ => 0,
    };
    // The first pairs are stored inline, so they count twice. The rest, which may be many, is on
    // the heap.
    attributes.iter().map(|(key, content)| mem::size_of_val(content) + key.len() + value(content)).sum()
}
