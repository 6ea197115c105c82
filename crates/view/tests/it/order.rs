//! The order of spans whose times are equal.

use std::sync::Arc;

use throughline_core::trace::{Batch, Resource, UnixNanos};
use throughline_core::{SpanContext, SpanId, SpanRecord, TraceFlags, TraceId, TraceState};
use throughline_view::Trace;

const NOW: UnixNanos = UnixNanos(1_700_000_000_000_000_000);

fn span(trace_id: TraceId, name: &'static str, parent: Option<SpanId>) -> SpanRecord {
    let context = SpanContext::new(trace_id, SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, false);
    let mut record = SpanRecord::new(context, name, NOW, NOW);
    record.parent_span_id = parent;
    record
}

fn batch(service: &str, spans: Vec<SpanRecord>) -> Batch {
    let instance = SpanId::random().to_string();
    let resource = [("service.name", service.to_owned()), ("service.instance.id", instance)];
    Batch::new(Arc::new(Resource::new(resource)), spans)
}

#[test]
fn on_a_paused_clock_siblings_keep_the_order_in_which_they_ended() {
    for _ in 0..200 {
        let trace_id = TraceId::random();
        let root = span(trace_id, "order", None);
        let parent = Some(root.span_context.span_id());
        let steps = ["reserve", "book", "notify"].map(|name| span(trace_id, name, parent));
        let spans = steps.into_iter().chain([root]).collect();
        assert_eq!(
            Trace::from_batches(&[batch("api", spans)])[0].outline(),
            "api: order\n  api: reserve\n  api: book\n  api: notify\n"
        );
    }
}

#[test]
fn on_a_paused_clock_siblings_of_several_services_are_ordered_by_service() {
    for run in 0..200 {
        let trace_id = TraceId::random();
        let root = span(trace_id, "send paid", None);
        let parent = Some(root.span_context.span_id());
        let mut batches = vec![
            batch("shop", vec![root]),
            batch("mail", vec![span(trace_id, "process paid", parent), span(trace_id, "process paid again", parent)]),
            batch("feed", vec![span(trace_id, "process paid", parent)]),
        ];
        // Services export at different times.
        batches.rotate_left(run % 3);
        assert_eq!(
            Trace::from_batches(&batches)[0].outline(),
            "shop: send paid\n  feed: process paid\n  mail: process paid\n  mail: process paid again\n"
        );
    }
}

#[test]
fn on_a_paused_clock_traces_keep_the_order_in_which_their_first_spans_ended() {
    for _ in 0..200 {
        let spans = ["first", "second", "third"].map(|name| span(TraceId::random(), name, None));
        let traces = Trace::from_batches(&[batch("api", spans.into())]);
        let names: Vec<_> = traces.iter().map(|trace| trace.spans()[0].record.name.as_ref()).collect();
        assert_eq!(names, ["first", "second", "third"]);
    }
}
