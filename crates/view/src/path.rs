//! Finds the critical path: the spans that each root waited for.

use throughline_core::trace::SpanKind;

use crate::trace::{SpanView, Trace};

/// For each span of the trace: whether its root waited for it.
///
/// The search goes back from the end of a span:
/// 1. The span waited for the child that ended last.
/// 2. Before that child started, the span waited for the child that had ended last by then.
/// 3. And so on, until the start of the span.
///
/// A span never waits for asynchronous work.
pub(crate) fn critical(trace: &Trace) -> Vec<bool> {
    let spans = trace.spans();
    let mut is_critical = vec![false; spans.len()];
    let roots = trace.order().iter().filter(|(_, depth)| *depth == 0);
    let mut pending: Vec<_> = roots.map(|(root, _)| (*root, spans[*root].record.end_time)).collect();
    while let Some((index, mut until)) = pending.pop() {
        is_critical[index] = true;
        let end = until;
        let waited = |child: &usize| is_waited_for(&spans[index], &spans[*child]);
        let mut children: Vec<_> = spans[index].children.iter().copied().filter(waited).collect();
        // A child that ended after its parent counts until the parent gave up. If there are
        // several, the last one to start comes first: a parent that waits starts nothing else.
        children.sort_by_key(|child| {
            let record = &spans[*child].record;
            let order = if record.end_time > end { record.start_time.0 } else { u64::MAX };
            std::cmp::Reverse((record.end_time.min(end), order))
        });
        for child in children {
            let record = &spans[child].record;
            // A child that ended after the next wait began was not waited for.
            let ended = record.end_time.min(end);
            if ended <= until && record.start_time <= until {
                pending.push((child, ended));
                until = record.start_time;
            }
        }
    }
    is_critical
}

/// Whether `parent` may have waited for `child`.
///
/// A child that ended after its parent was spawned and ran on its own. There are two exceptions:
/// - A caller waits for its callee, even if their clocks differ.
/// - A parent that gave up waited for the work that its cancellation ended.
fn is_waited_for(parent: &SpanView, child: &SpanView) -> bool {
    if child.is_asynchronous() {
        return false;
    }
    let is_call = parent.record.kind == SpanKind::Client && child.record.kind == SpanKind::Server;
    child.record.end_time <= parent.record.end_time || is_call || (parent.gave_up() && child.gave_up())
}
