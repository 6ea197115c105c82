//! A batch on its way to several exporters, counted once.

use std::sync::{Mutex, PoisonError};

use throughline_core::trace::Batch;

use super::stats::{Counters, DropReason};

/// A batch on its way to all lanes.
pub(super) struct QueuedBatch {
    pub(super) batch: Batch,
    /// The number of spans that came before it.
    pub(super) start: u64,
    pub(super) bytes: usize,
    outcome: Mutex<Outcome>,
}

struct Outcome {
    /// Lanes that have not finished it.
    lanes: usize,
    loss: Loss,
}

impl QueuedBatch {
    /// A batch for so many lanes. `loss` is what the other lanes have lost of it already.
    pub(super) fn new(batch: Batch, start: u64, bytes: usize, lanes: usize, loss: Loss) -> Self {
        QueuedBatch { batch, start, bytes, outcome: Mutex::new(Outcome { lanes, loss }) }
    }

    /// A lane has finished it, but for the `loss`. The last lane counts.
    pub(super) fn settle(&self, counters: &Counters, loss: Loss) {
        let count = self.batch.spans.len() as u64;
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.loss = outcome.loss.with(loss, count);
        outcome.lanes -= 1;
        if outcome.lanes == 0 {
            let Loss { reason, spans } = outcome.loss;
            counters.exported(count - spans);
            counters.dropped(reason, spans);
        }
    }
}

/// What a lane has lost of a batch.
#[derive(Clone, Copy)]
pub(super) struct Loss {
    pub(super) reason: DropReason,
    pub(super) spans: u64,
}

impl Loss {
    pub(super) const NONE: Loss = Loss { reason: DropReason::ExportFailed, spans: 0 };

    /// What two lanes have lost together, of `count` spans: each span counts once, for the reason that has cost the most.
    ///
    /// A receiver does not say which spans it has rejected. Two receivers are taken to have rejected different ones, so
    /// that no span counts as exported which is not.
    fn with(self, other: Loss, count: u64) -> Loss {
        match (self.reason, other.reason) {
            (DropReason::Rejected, DropReason::Rejected) => {
                Loss { spans: self.spans.saturating_add(other.spans).min(count), ..self }
            }
            _ if other.spans > self.spans => other,
            _ => self,
        }
    }
}
