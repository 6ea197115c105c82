use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use throughline_core::trace::{Batch, Resource, SpanKind, UnixNanos};
use throughline_core::{SpanId, SpanRecord, TraceId};

/// The spans of one trace, as a tree.
///
/// A span is a root if its parent is not in the trace. The records are not trusted: spans that are
/// each other's parents form a circle, and one span of each circle becomes a root.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use throughline_core::trace::{Batch, Resource, UnixNanos};
/// use throughline_core::{SpanContext, SpanId, SpanRecord, TraceFlags, TraceId, TraceState};
/// use throughline_view::{Options, Trace};
///
/// let (trace_id, span_id, flags) = (TraceId::random(), SpanId::random(), TraceFlags::SAMPLED);
/// let context = SpanContext::new(trace_id, span_id, flags, TraceState::EMPTY, false);
/// let span = SpanRecord::new(context, "GET /", UnixNanos(0), UnixNanos(2_000_000));
/// let batch = Batch::new(Arc::new(Resource::new([("service.name", "api")])), vec![span]);
///
/// let traces = Trace::from_batches(&[batch]);
/// assert_eq!(traces[0].outline(), "api: GET /\n");
/// assert!(traces[0].waterfall(&Options::PLAIN).contains("2.00 ms"));
/// ```
#[derive(Clone, Debug)]
pub struct Trace {
    spans: Vec<SpanView>,
    /// The indexes and depths of all spans.
    ///
    /// A parent comes before its children, and children are sorted by their start.
    order: Vec<(usize, usize)>,
}

/// A span and its position in the tree.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpanView {
    /// The record of the span.
    pub record: SpanRecord,
    /// The `service.name` of the resource, or "unknown".
    pub service: Arc<str>,
    /// The resource that made the span. Spans with equal resources share one value.
    pub resource: Arc<Resource>,
    /// The position among the spans of its resource, in the order in which they ended.
    position: usize,
    /// The index of the parent in [`Trace::spans`].
    pub parent: Option<usize>,
    /// The indexes of the children in [`Trace::spans`], sorted by their start.
    pub children: Vec<usize>,
}

impl Trace {
    /// Builds the traces in the batches, sorted by their start.
    ///
    /// Spans with equal times are sorted by service, and within a service by the order in which
    /// they ended. So on a paused clock, the same program gives the same trees.
    pub fn from_batches(batches: &[Batch]) -> Vec<Trace> {
        let mut traces: HashMap<TraceId, Vec<SpanView>> = HashMap::new();
        // The key is text because NaN is not equal to itself. The value has the number of spans.
        let mut resources: HashMap<String, (Arc<Resource>, usize)> = HashMap::new();
        for batch in batches {
            let service: Arc<str> = batch.resource.service_name().unwrap_or("unknown").into();
            let resource = resources.entry(format!("{:?}", batch.resource.attributes));
            let (resource, count) = resource.or_insert_with(|| (Arc::clone(&batch.resource), 0));
            for record in &batch.spans {
                let view = SpanView {
                    record: record.clone(),
                    service: Arc::clone(&service),
                    resource: Arc::clone(resource),
                    position: *count,
                    parent: None,
                    children: Vec::new(),
                };
                *count += 1;
                traces.entry(view.record.span_context.trace_id()).or_default().push(view);
            }
        }
        let mut traces: Vec<_> = traces.into_values().map(Trace::of).collect();
        traces.sort_by(|a, b| a.spans[0].rank().cmp(&b.spans[0].rank()));
        traces
    }

    fn of(mut spans: Vec<SpanView>) -> Trace {
        spans.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let mut by_id: HashMap<SpanId, usize> = HashMap::new();
        for (index, span) in spans.iter().enumerate() {
            // If several spans have the same id, the first one gets the children.
            by_id.entry(span.record.span_context.span_id()).or_insert(index);
        }
        for index in 0..spans.len() {
            let parent = spans[index].record.parent_span_id.and_then(|id| by_id.get(&id).copied());
            if let Some(parent) = parent.filter(|parent| *parent != index) {
                spans[index].parent = Some(parent);
                spans[parent].children.push(index);
            }
        }
        let order = order(&mut spans);
        Trace { spans, order }
    }

    /// The trace id of all spans.
    pub fn trace_id(&self) -> TraceId {
        self.spans[0].record.span_context.trace_id()
    }

    /// All spans, sorted by their start. There is at least one.
    pub fn spans(&self) -> &[SpanView] {
        &self.spans
    }

    /// The spans without a parent in this trace.
    pub fn roots(&self) -> impl Iterator<Item = &SpanView> {
        self.spans.iter().filter(|span| span.parent.is_none())
    }

    /// The services of the spans, each once, in the order of the tree.
    pub fn services(&self) -> Vec<&str> {
        let mut services = Vec::new();
        for (index, _) in &self.order {
            let service = &*self.spans[*index].service;
            if !services.contains(&service) {
                services.push(service);
            }
        }
        services
    }

    /// The pairs of caller and callee, or of producer and consumer.
    ///
    /// Each pair of services appears once, in the order of the tree.
    pub fn edges(&self) -> Vec<(&str, &str)> {
        let mut edges = Vec::new();
        for (index, _) in &self.order {
            let span = &self.spans[*index];
            let Some(parent) = span.parent.map(|parent| &self.spans[parent]) else { continue };
            let edge = (&*parent.service, &*span.service);
            if edge.0 != edge.1 && !edges.contains(&edge) {
                edges.push(edge);
            }
        }
        edges
    }

    /// The time when the first span started.
    pub fn start(&self) -> UnixNanos {
        self.spans.iter().map(|span| span.record.start_time).min().unwrap_or(UnixNanos(0))
    }

    /// The time from the first start to the last end.
    pub fn duration(&self) -> Duration {
        let end = self.spans.iter().map(|span| span.record.end_time).max().unwrap_or(UnixNanos(0));
        Duration::from_nanos(end.0.saturating_sub(self.start().0))
    }

    /// The tree as indented lines of services and names. Without times, for comparison in tests.
    pub fn outline(&self) -> String {
        let mut outline = String::new();
        for (index, depth) in &self.order {
            let span = &self.spans[*index];
            outline.extend(std::iter::repeat_n("  ", *depth));
            outline.extend([&*span.service, ": ", &span.record.name, "\n"]);
        }
        outline
    }

    /// The indexes and depths of all spans, a parent before its children.
    pub(crate) fn order(&self) -> &[(usize, usize)] {
        &self.order
    }
}

impl SpanView {
    /// Whether the span runs on its own: its parent does not wait for it.
    pub fn is_asynchronous(&self) -> bool {
        self.record.kind == SpanKind::Consumer
    }

    /// The sort key of a span in its trace.
    ///
    /// Ids come last because they are random. On a paused clock, where all times are equal, the
    /// order is then the same in every run.
    fn rank(&self) -> impl Ord + '_ {
        let record = &self.record;
        let id = record.span_context.span_id();
        (record.start_time, record.end_time, &*self.service, self.position, &*record.name, id)
    }

    /// The cause of the cancellation, if the span was cancelled.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.text("throughline.cancel.cause")
    }

    /// Whether a deadline or a cancellation ended the span.
    pub(crate) fn gave_up(&self) -> bool {
        let is_late = |kind| matches!(kind, "DEADLINE_EXCEEDED" | "CANCELLED");
        self.cause().is_some() || self.text("error.type").is_some_and(is_late)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.record.attributes.get(key).and_then(|value| value.as_str())
    }

    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        let value = self.record.attributes.get(key)?;
        value.as_f64().or_else(|| value.as_i64().map(|number| number as f64))
    }
}

/// Orders the spans, each once. A span that no root reaches is in a circle.
///
/// The first span of a circle loses its parent and becomes a root.
fn order(spans: &mut [SpanView]) -> Vec<(usize, usize)> {
    let mut order = Vec::with_capacity(spans.len());
    let mut is_seen = vec![false; spans.len()];
    let roots: Vec<_> = (0..spans.len()).filter(|index| spans[*index].parent.is_none()).collect();
    for start in roots.into_iter().chain(0..spans.len()) {
        if is_seen[start] {
            continue;
        }
        if let Some(parent) = spans[start].parent.take() {
            spans[parent].children.retain(|child| *child != start);
        }
        let mut pending = vec![(start, 0)];
        while let Some((index, depth)) = pending.pop() {
            is_seen[index] = true;
            order.push((index, depth));
            pending.extend(spans[index].children.iter().rev().map(|child| (*child, depth + 1)));
        }
    }
    order
}
