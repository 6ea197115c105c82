//! Waits for the exporters, with a limit that holds whatever they do.
//!
//! The waiting thread keeps the limit. An export thread can't: its exporter may block it, or the
//! thread may not exist, as in a forked process.

use std::fmt;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::exporter::ExportError;
use super::queue::{Queue, State};
use super::stats::Stats;

/// 30 years: in practice unlimited, and adding it to the current time does not overflow.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Exports all spans that have ended. Blocks until that is done, or for `limit`.
pub(super) fn flush(queue: &Queue, limit: Duration) -> Result<(), FlushError> {
    let before = Before::new(queue);
    let tickets = queue.request_flush();
    let is_in_time = wait(queue, limit, |state| {
        let mut lanes = state.lanes.iter().zip(&tickets);
        lanes.all(|(lane, ticket)| lane.has_ended || lane.flushes_done >= *ticket)
    });
    before.compare(queue, is_in_time)
}

/// Exports all spans that have ended, and ends the export threads.
///
/// Blocks until that is done, or for `limit`.
pub(super) fn shutdown(queue: &Queue, limit: Duration) -> Result<(), FlushError> {
    let limit = limit.min(LONGEST);
    let before = Before::new(queue);
    let now = Instant::now();
    queue.request_end(now.checked_add(limit).unwrap_or(now));
    let is_in_time = wait(queue, limit, |state| state.lanes.iter().all(|lane| lane.has_ended));
    if !is_in_time {
        queue.abandon();
    }
    before.compare(queue, is_in_time)
}

/// Runs [`flush`] or [`shutdown`] on a new thread, which may block.
///
/// A timer of the runtime can't keep the limit: the clock may be paused, or the runtime may have no
/// timer.
pub(super) async fn on_own_thread(
    queue: &Arc<Queue>,
    limit: Duration,
    block: fn(&Queue, Duration) -> Result<(), FlushError>,
) -> Result<(), FlushError> {
    let (sender, receiver) = oneshot::channel();
    let shared = Arc::clone(queue);
    let waiting = thread::Builder::new().name("throughline-flush".into()).spawn(move || {
        // Fails if the caller has dropped the future. Then the result is not needed.
        let _ = sender.send(block(&shared, limit));
    });
    match waiting {
        Ok(_) => receiver.await.expect("the thread runs no user code and does not panic"),
        // If no thread can be started, the limit holds, but this thread is blocked.
        Err(_) => block(queue, limit),
    }
}

/// Waits until `is_done`, for at most `limit`. Returns whether it is done.
fn wait(queue: &Queue, limit: Duration, is_done: impl Fn(&State) -> bool) -> bool {
    let state: MutexGuard<'_, State> = queue.lock();
    let waited = queue.progress.wait_timeout_while(state, limit.min(LONGEST), |state| !is_done(state));
    let (_state, result) = waited.unwrap_or_else(PoisonError::into_inner);
    !result.timed_out()
}

/// The counts before a flush or a shutdown.
struct Before {
    stats: Stats,
    failures: Vec<u64>,
    failed_flushes: u64,
}

impl Before {
    fn new(queue: &Queue) -> Self {
        let state = queue.lock();
        let failures = state.lanes.iter().map(|lane| lane.failures).collect();
        let failed_flushes = state.failed_flushes;
        drop(state);
        Before { stats: queue.counters.read(), failures, failed_flushes }
    }

    fn compare(self, queue: &Queue, is_in_time: bool) -> Result<(), FlushError> {
        let state = queue.lock();
        let mut lanes = state.lanes.iter().zip(&self.failures);
        let failed = lanes.find(|(lane, before)| lane.is_failing || lane.failures > **before);
        let error = failed.and_then(|(lane, _)| lane.error.clone());
        let has_flushed = state.failed_flushes == self.failed_flushes;
        drop(state);
        let stats = queue.counters.read();
        let lost = stats.dropped().saturating_sub(self.stats.dropped());
        if is_in_time && has_flushed && lost == 0 {
            Ok(())
        } else {
            Err(FlushError { lost, stats, error: error.map(Box::new) })
        }
    }
}

/// A flush or a shutdown failed.
///
/// Spans were dropped, or are still queued, or an exporter failed to flush.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlushError {
    /// Spans that were dropped during the call.
    pub lost: u64,
    /// All counts at the end of the call.
    pub stats: Stats,
    /// The last error of an exporter, if an exporter failed.
    pub error: Option<Box<ExportError>>,
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lost == 0 && self.stats.queued == 0 {
            write!(f, "an exporter did not flush; in all {}", self.stats)?;
        } else {
            write!(f, "{} spans were lost, {} are still queued; in all {}", self.lost, self.stats.queued, self.stats)?;
        }
        self.error.iter().try_for_each(|error| write!(f, "; last error: {error}"))
    }
}

impl std::error::Error for FlushError {}
