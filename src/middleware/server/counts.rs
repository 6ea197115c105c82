use std::sync::atomic::{AtomicU64, Ordering};

use throughline_core::propagation::Dropped;

/// The counters of a layer and its clones.
#[derive(Default)]
pub(super) struct Counts {
    shed: AtomicU64,
    dropped: [AtomicU64; 5],
}

impl Counts {
    pub(super) fn add_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// Adds what was dropped of one request. Nearly always that is nothing.
    pub(super) fn add_dropped(&self, dropped: Dropped) {
        if dropped == Dropped::default() {
            return;
        }
        let Dropped { spans, trace_states, baggage_members, deadlines, values, .. } = dropped;
        for (sum, count) in self.dropped.iter().zip([spans, trace_states, baggage_members, deadlines, values]) {
            sum.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(super) fn dropped(&self) -> Dropped {
        let mut dropped = Dropped::default();
        let Dropped { spans, trace_states, baggage_members, deadlines, values, .. } = &mut dropped;
        for (sum, count) in self.dropped.iter().zip([spans, trace_states, baggage_members, deadlines, values]) {
            *count = sum.load(Ordering::Relaxed);
        }
        dropped
    }
}
