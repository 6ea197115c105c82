//! A recorder that keeps the spans in memory and prints them as an indented tree.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use throughline_core::trace::{Recorder, Resource, Sampler, Status, Tracer, TracerConfig};
use throughline_core::{Context, SpanId, SpanRecord};

#[derive(Default)]
pub(crate) struct Memory {
    spans: Mutex<Vec<SpanRecord>>,
    is_shut: AtomicBool,
    refused: AtomicUsize,
}

impl Recorder for Memory {
    fn record(&self, span: SpanRecord) {
        self.spans.lock().unwrap().push(span);
    }

    fn admit(&self) -> bool {
        let shut = self.is_shut.load(SeqCst);
        self.refused.fetch_add(usize::from(shut), SeqCst);
        !shut
    }
}

impl Memory {
    /// Returns a recorder, and a context whose spans all go to it.
    pub(crate) fn new() -> (Arc<Self>, Context) {
        Self::with(|_| {})
    }

    pub(crate) fn with_sampler(sampler: impl Sampler + 'static) -> (Arc<Self>, Context) {
        Self::with(|config| config.sampler = Arc::new(sampler))
    }

    pub(crate) fn with(configure: impl FnOnce(&mut TracerConfig)) -> (Arc<Self>, Context) {
        let memory = Arc::new(Self::default());
        let mut config = TracerConfig::new(memory.clone());
        config.resource = Arc::new(Resource::new([("service.name", "test")]));
        configure(&mut config);
        (memory, Context::background().with_tracer(&Tracer::new(config)))
    }

    pub(crate) fn shut_down(&self) {
        self.is_shut.store(true, SeqCst);
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.load(SeqCst)
    }

    pub(crate) fn spans(&self) -> Vec<SpanRecord> {
        self.spans.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.spans.lock().unwrap().len()
    }

    /// Returns the only span of this name.
    pub(crate) fn span(&self, name: &str) -> SpanRecord {
        let mut named: Vec<_> = self.spans().into_iter().filter(|span| span.name == name).collect();
        assert_eq!(named.len(), 1, "spans named {name}");
        named.remove(0)
    }

    /// Prints the traces: each span below its parent, siblings in the order of their start. `!`
    /// marks errors.
    pub(crate) fn tree(&self) -> String {
        let mut spans = self.spans();
        spans.sort_by_key(|span| span.start_time);
        let known = |id: SpanId| spans.iter().any(|span| span.span_context.span_id() == id);
        let mut out = String::new();
        let mut next: Vec<_> =
            spans.iter().rev().filter(|span| !span.parent_span_id.is_some_and(known)).map(|span| (0, span)).collect();
        while let Some((depth, span)) = next.pop() {
            let mark = if matches!(span.status, Status::Error(_)) { " !" } else { "" };
            writeln!(out, "{:width$}{}{mark}", "", span.name, width = 2 * depth).unwrap();
            let id = Some(span.span_context.span_id());
            next.extend(spans.iter().rev().filter(|below| below.parent_span_id == id).map(|below| (depth + 1, below)));
        }
        out
    }
}
