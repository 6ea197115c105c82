//! A batch that several exporters export, and that is counted once.

use std::sync::{Mutex, PoisonError};

use throughline_core::trace::Batch;

use super::stats::{Counters, DropReason};

/// A batch in the backlogs of the lanes.
pub(super) struct QueuedBatch {
    pub(super) batch: Batch,
    /// The number of spans in earlier batches.
    pub(super) start: u64,
    pub(super) bytes: usize,
    outcome: Mutex<Outcome>,
}

struct Outcome {
    /// The number of lanes that have not settled the batch.
    lanes: usize,
    loss: Loss,
}

impl QueuedBatch {
    /// Makes a batch for `lanes` lanes.
    ///
    /// `loss` is the loss of the lanes that have no room for it.
    pub(super) fn new(batch: Batch, start: u64, bytes: usize, lanes: usize, loss: Loss) -> Self {
        QueuedBatch { batch, start, bytes, outcome: Mutex::new(Outcome { lanes, loss }) }
    }

    /// Settles the batch for one lane. The last lane counts the spans.
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

/// The spans of a batch that were lost, with the reason.
#[derive(Clone, Copy)]
pub(super) struct Loss {
    pub(super) reason: DropReason,
    pub(super) spans: u64,
}

impl Loss {
    pub(super) const NONE: Loss = Loss { reason: DropReason::ExportFailed, spans: 0 };

    /// Combines the losses of two lanes, for a batch of `count` spans.
    ///
    /// Each span counts once, for the reason that lost the most spans. A receiver does not report
    /// which spans it rejected. Two receivers are assumed to have rejected different spans, so that
    /// no rejected span counts as exported.
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
