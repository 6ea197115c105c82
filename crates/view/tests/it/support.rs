//! Builds a trace span by span.

use std::sync::Arc;

use throughline_core::trace::{Batch, Resource, SpanKind, Status, UnixNanos};
use throughline_core::{SpanContext, SpanId, SpanRecord, TraceFlags, TraceId, TraceState};
use throughline_view::{Options, Trace};

/// One trace. Spans are numbered from 1, and 1 is the root.
#[derive(Default)]
pub(crate) struct Spans(pub(crate) Vec<Batch>);

impl Spans {
    /// Adds a span of `service` that lasts `from..to` ms.
    ///
    /// `parent` is the number of the parent span, or 0 for none.
    pub(crate) fn add(
        &mut self,
        parent: usize,
        service: &str,
        name: &'static str,
        kind: SpanKind,
        [from, to]: [u64; 2],
    ) -> &mut SpanRecord {
        let id = |number: usize| SpanId::from_hex(format!("{number:016x}").as_bytes());
        let trace_id = TraceId::from_hex(b"4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
        let context =
            SpanContext::new(trace_id, id(self.0.len() + 1).unwrap(), TraceFlags::SAMPLED, TraceState::EMPTY, false);
        let at = |ms: u64| UnixNanos(1_700_000_000_000_000_000 + ms * 1_000_000);
        let mut record = SpanRecord::new(context, name, at(from), at(to));
        (record.parent_span_id, record.kind) = (id(parent), kind);
        self.0.push(Batch::new(Arc::new(Resource::new([("service.name", service.to_owned())])), vec![record]));
        &mut self.0.last_mut().unwrap().spans[0]
    }

    pub(crate) fn trace(&self) -> Trace {
        let mut traces = Trace::from_batches(&self.0);
        assert_eq!(traces.len(), 1);
        traces.remove(0)
    }

    pub(crate) fn drawn(&self, options: &Options) -> String {
        self.trace().waterfall(options)
    }
}

pub(crate) const NARROW: Options = Options { width: 90, ..Options::PLAIN };

pub(crate) fn left(record: &mut SpanRecord, ms: f64) -> &mut SpanRecord {
    record.attributes.set("throughline.deadline.remaining_ms", ms);
    record
}

pub(crate) fn failed(record: &mut SpanRecord, origin: &str) {
    record.attributes.set("error.type", "DEADLINE_EXCEEDED");
    record.attributes.set("throughline.error.origin", origin.to_owned());
    record.status = Status::Error("deadline exceeded".into());
}

pub(crate) fn cancelled(record: &mut SpanRecord) {
    record.attributes.set("throughline.cancel.cause", "client_disconnected");
}
