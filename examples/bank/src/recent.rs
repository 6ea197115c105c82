//! Keeps the last spans in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use throughline::telemetry::{ExportFuture, Exporter};
use throughline::trace::Batch;

/// An exporter that keeps the last exported spans, for the terminal. Clones share them.
#[derive(Clone, Debug)]
pub struct Recent {
    kept: Arc<Mutex<Kept>>,
    max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    batches: VecDeque<Batch>,
    spans: usize,
}

impl Recent {
    /// Keeps at most `max` spans, or one batch if that has more.
    pub fn new(max: usize) -> Self {
        Recent { kept: Arc::default(), max }
    }

    /// The batches that are kept, oldest first.
    pub fn batches(&self) -> Vec<Batch> {
        self.lock().batches.iter().cloned().collect()
    }

    fn keep(&self, batch: Batch) {
        let mut dropped = Vec::new();
        let mut kept = self.lock();
        kept.spans += batch.spans.len();
        kept.batches.push_back(batch);
        while kept.spans > self.max && kept.batches.len() > 1 {
            let Some(oldest) = kept.batches.pop_front() else { break };
            kept.spans -= oldest.spans.len();
            dropped.push(oldest);
        }
        // Unlock before the batches are dropped.
        drop(kept);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exporter for Recent {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        Box::pin(async move {
            self.keep(batch.clone());
            Ok(())
        })
    }
}
