//! The critical path: what each root waited for.

use throughline_core::trace::SpanKind;

use crate::trace::{SpanView, Trace};

/// For each span of the trace whether its time was its root's: walking back from a span's end, the
/// child that ended last is what it waited for, then the one that ended last before that one
/// started, and so on. What runs asynchronously nobody waited for.
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
        // A child that ended after its parent counts until the parent gave up. Of several such
        // children, the last to start comes first: a parent that waits starts nothing else.
        children.sort_by_key(|child| {
            let record = &spans[*child].record;
            let order = if record.end_time > end { record.start_time.0 } else { u64::MAX };
            std::cmp::Reverse((record.end_time.min(end), order))
        });
        for child in children {
            let record = &spans[child].record;
            // One that outlived what came after it was not what was waited for.
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
/// A child that ended later was not waited for: it was spawned, and went on by itself. There are
/// two exceptions. A caller waits for its callee whatever their clocks say. And a parent that gave
/// up has waited for the work that its cancellation ended.
fn is_waited_for(parent: &SpanView, child: &SpanView) -> bool {
    if child.is_asynchronous() {
        return false;
    }
    let is_call = parent.record.kind == SpanKind::Client && child.record.kind == SpanKind::Server;
    child.record.end_time <= parent.record.end_time || is_call || (parent.gave_up() && child.gave_up())
}
