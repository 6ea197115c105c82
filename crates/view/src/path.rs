//! The critical path: what the root waited for.

use crate::trace::Trace;

/// For each span of the trace whether its time was the root's: walking back from a span's end, the child that ended last is what it
/// waited for, then the one that ended last before that one started, and so on. What runs asynchronously nobody waited for.
pub(crate) fn critical(trace: &Trace) -> Vec<bool> {
    let spans = trace.spans();
    let mut is_critical = vec![false; spans.len()];
    let first = trace.order().first().map(|(index, _)| *index);
    let mut pending: Vec<_> = first.map(|root| (root, spans[root].record.end_time)).into_iter().collect();
    while let Some((index, mut until)) = pending.pop() {
        is_critical[index] = true;
        let end = until;
        let mut children: Vec<_> =
            spans[index].children.iter().copied().filter(|child| !spans[*child].is_asynchronous()).collect();
        // One that ended after its parent (a cancellation runs downwards) was waited for until that gave up.
        children.sort_by_key(|child| std::cmp::Reverse(spans[*child].record.end_time.min(end)));
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
