use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use throughline_core::trace::{Batch, Resource, SpanKind, UnixNanos};
use throughline_core::{SpanId, SpanRecord, TraceId};

/// The spans of one trace, as a tree.
///
/// A span whose parent is not among them is a root; so is one of a circle, which no honest program makes. Nothing about the records is
/// trusted.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use throughline_core::trace::{Batch, Resource, UnixNanos};
/// use throughline_core::{SpanContext, SpanId, SpanRecord, TraceFlags, TraceId, TraceState};
/// use throughline_view::{Options, Trace};
///
/// let context = SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, false);
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
    /// All spans, each parent before its children, children by their start; with how deep they are.
    order: Vec<(usize, usize)>,
}

/// A span, and where it stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpanView {
    /// The span.
    pub record: SpanRecord,
    /// `service.name` of what made it.
    pub service: Arc<str>,
    /// What made it. Equal ones are shared.
    pub resource: Arc<Resource>,
    /// Which of the spans of its resource it is, in the order in which they ended.
    position: usize,
    /// The index of its parent among the trace's spans.
    pub parent: Option<usize>,
    /// The indexes of its children, by their start.
    pub children: Vec<usize>,
}

impl Trace {
    /// The traces that the batches hold, the one that began first in front.
    ///
    /// Spans with equal times are ordered by service, and within one by the order in which they
    /// ended. So on a paused clock the same program gives the same trees.
    pub fn from_batches(batches: &[Batch]) -> Vec<Trace> {
        let mut traces: HashMap<TraceId, Vec<SpanView>> = HashMap::new();
        // By their text, as NaN is not equal to itself; with the number of spans so far.
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
            // Of several with one id, the first one has the children.
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

    /// The id of all its spans.
    pub fn trace_id(&self) -> TraceId {
        self.spans[0].record.span_context.trace_id()
    }

    /// All spans, by their start. There is at least one.
    pub fn spans(&self) -> &[SpanView] {
        &self.spans
    }

    /// The spans without a parent here.
    pub fn roots(&self) -> impl Iterator<Item = &SpanView> {
        self.spans.iter().filter(|span| span.parent.is_none())
    }

    /// The services that have made spans, each once, in the order they appear in the tree.
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

    /// Which service has called or informed which, each pair once, in the order of the tree.
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

    /// When the first span started.
    pub fn start(&self) -> UnixNanos {
        self.spans.iter().map(|span| span.record.start_time).min().unwrap_or(UnixNanos(0))
    }

    /// From the first start to the last end.
    pub fn duration(&self) -> Duration {
        let end = self.spans.iter().map(|span| span.record.end_time).max().unwrap_or(UnixNanos(0));
        Duration::from_nanos(end.0.saturating_sub(self.start().0))
    }

    /// The tree as indented lines of services and names, without times: for tests to compare.
    pub fn outline(&self) -> String {
        let mut outline = String::new();
        for (index, depth) in &self.order {
            let span = &self.spans[*index];
            outline.extend(std::iter::repeat_n("  ", *depth));
            outline.extend([&*span.service, ": ", &span.record.name, "\n"]);
        }
        outline
    }

    /// The indexes of all spans with their depths, each parent before its children.
    pub(crate) fn order(&self) -> &[(usize, usize)] {
        &self.order
    }
}

impl SpanView {
    /// Whether it goes on by itself: what made it does not wait for it.
    pub fn is_asynchronous(&self) -> bool {
        self.record.kind == SpanKind::Consumer
    }

    /// What spans of one trace are ordered by. Ids are random, so they come last: on a paused clock
    /// all times are equal, and the order is the same in every run.
    fn rank(&self) -> impl Ord + '_ {
        let record = &self.record;
        let id = record.span_context.span_id();
        (record.start_time, record.end_time, &*self.service, self.position, &*record.name, id)
    }

    /// Why it was cancelled, if it was.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.text("throughline.cancel.cause")
    }

    /// Whether a deadline or a cancellation ended it.
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

/// Each span once. What the roots do not reach lies in circles; those are cut where they begin.
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
