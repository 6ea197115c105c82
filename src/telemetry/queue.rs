//! The queue of ended spans between the tasks and the export threads.
//!
//! - **batch**: spans that are exported together. All lanes get the same batches.
//! - **lane**: an exporter with its thread. Each lane exports at its own speed.
//! - **backlog**: the batches that a lane has not finished, oldest first. The first one is being
//!   exported.
//! - **position**: the number of spans, in queue order, that a lane has finished.
//! - **settled**: a lane has exported a batch or has given it up.
//!
//! Invariants, all under the lock of `state`:
//! 1. A lane forms a batch only if its backlog is empty. So with a single lane, at most one batch
//!    is unfinished.
//! 2. A lane that lags behind keeps at most [`Bounds`] in its backlog. It loses the batches beyond
//!    that. The other lanes do not lose them.
//! 3. A batch is counted once, when every lane has settled it.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use throughline_core::SpanRecord;
use throughline_core::trace::{Batch, Recorder, Resource};
use tokio::sync::Notify;

use super::batch::{Loss, QueuedBatch};
use super::exporter::ExportError;
use super::size::size;
use super::stats::{Counters, DropReason};

/// The limits of the queue.
///
/// Spans beyond a limit are dropped and counted. Ending a span never waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) spans: usize,
    pub(super) bytes: usize,
    /// The largest batch. When this many spans are queued, they are exported at once.
    pub(super) batch: usize,
}

pub(super) struct Queue {
    bounds: Bounds,
    resource: Arc<Resource>,
    pub(super) counters: Counters,
    state: Mutex<State>,
    /// Set under the lock of `state`.
    is_closed: AtomicBool,
    /// One for each lane.
    ///
    /// It is notified when the lane may have work, or when a shutdown starts.
    wake: Box<[Notify]>,
    /// Notified when the limit of a shutdown has passed: lanes stop at once.
    abandoned: Notify,
    /// Notified when a lane has flushed or has ended.
    pub(super) progress: Condvar,
}

pub(super) struct State {
    spans: VecDeque<SpanRecord>,
    /// The size of each span in `spans`.
    sizes: VecDeque<usize>,
    bytes: usize,
    /// Total number of spans that were put into batches.
    formed: u64,
    pub(super) lanes: Box<[LaneState]>,
    /// The end of the limit of a shutdown; `None` before a shutdown.
    shutdown_deadline: Option<Instant>,
    is_abandoned: bool,
    /// Total number of failed flushes of exporters.
    pub(super) failed_flushes: u64,
}

#[derive(Default)]
pub(super) struct LaneState {
    pub(super) has_ended: bool,
    backlog: VecDeque<Arc<QueuedBatch>>,
    spans: usize,
    bytes: usize,
    /// The positions that flushes wait for, in the order of the requests.
    flush_targets: VecDeque<u64>,
    /// Total number of finished flushes.
    pub(super) flushes_done: u64,
    /// Total number of failed attempts.
    pub(super) failures: u64,
    /// Whether the last attempt failed.
    pub(super) is_failing: bool,
    pub(super) error: Option<ExportError>,
}

/// The next action of a lane.
pub(super) enum Step {
    Send(Arc<QueuedBatch>),
    /// Flush the exporter, for this number of requests.
    Flush(usize),
    /// Wait until the batch is full or due.
    Fill,
    /// Wait for a span.
    Idle,
    End,
}

impl Queue {
    pub(super) fn new(bounds: Bounds, resource: Arc<Resource>, lanes: usize) -> Self {
        Queue {
            bounds,
            resource,
            counters: Counters::default(),
            state: Mutex::new(State {
                spans: VecDeque::new(),
                sizes: VecDeque::new(),
                bytes: 0,
                formed: 0,
                lanes: (0..lanes).map(|_| LaneState::default()).collect(),
                shutdown_deadline: None,
                is_abandoned: false,
                failed_flushes: 0,
            }),
            is_closed: AtomicBool::new(false),
            wake: (0..lanes).map(|_| Notify::new()).collect(),
            abandoned: Notify::new(),
            progress: Condvar::new(),
        }
    }

    /// Returns the next action of `lane`. `is_scheduled`: the schedule delay has passed.
    pub(super) fn step(&self, lane: usize, is_scheduled: bool) -> Step {
        let mut state = self.lock();
        let lane_state = &state.lanes[lane];
        let position = lane_state.backlog.front().map_or(state.formed, |batch| batch.start);
        let due = lane_state.flush_targets.iter().take_while(|target| **target <= position).count();
        if due > 0 {
            return Step::Flush(due);
        }
        if let Some(batch) = lane_state.backlog.front() {
            return Step::Send(Arc::clone(batch));
        }
        let is_flush_requested = !lane_state.flush_targets.is_empty() || state.shutdown_deadline.is_some();
        match state.spans.len() {
            0 if state.shutdown_deadline.is_some() => Step::End,
            0 => Step::Idle,
            len if is_flush_requested || is_scheduled || len >= self.bounds.batch => {
                Step::Send(self.form_batch(&mut state))
            }
            _ => Step::Fill,
        }
    }

    /// Puts the oldest spans into a batch, for the backlogs of all lanes.
    fn form_batch(&self, state: &mut State) -> Arc<QueuedBatch> {
        let (spans, bytes): (Vec<_>, usize) = if state.spans.len() <= self.bounds.batch {
            // A new deque, so that the memory of a burst is freed.
            state.sizes = VecDeque::new();
            (mem::take(&mut state.spans).into(), state.bytes)
        } else {
            let bytes = state.sizes.drain(..self.bounds.batch).sum();
            (state.spans.drain(..self.bounds.batch).collect(), bytes)
        };
        state.bytes -= bytes;
        let (start, count) = (state.formed, spans.len());
        state.formed += count as u64;
        let has_room = |lane: &LaneState| {
            let fits = lane.spans + count <= self.bounds.spans && lane.bytes + bytes <= self.bounds.bytes;
            lane.backlog.is_empty() || fits
        };
        let lanes = state.lanes.iter().filter(|lane| !lane.has_ended);
        let is_lost = lanes.clone().any(|lane| !has_room(lane));
        let loss = if is_lost { Loss { reason: DropReason::QueueFull, spans: count as u64 } } else { Loss::NONE };
        let receivers = lanes.filter(|lane| has_room(lane)).count();
        let batch = Batch::new(Arc::clone(&self.resource), spans);
        let batch = Arc::new(QueuedBatch::new(batch, start, bytes, receivers, loss));
        for (lane, wake) in state.lanes.iter_mut().zip(&self.wake).filter(|(lane, _)| !lane.has_ended && has_room(lane))
        {
            lane.spans += count;
            lane.bytes += bytes;
            lane.backlog.push_back(Arc::clone(&batch));
            wake.notify_one();
        }
        batch
    }

    /// Settles a batch for `lane`, which has exported all of it except the `loss`.
    ///
    /// A batch that was given up in the meantime is counted already and is not counted again.
    pub(super) fn finished(&self, lane: usize, batch: &Arc<QueuedBatch>, loss: Loss) {
        let mut state = self.lock();
        let lane_state = &mut state.lanes[lane];
        if lane_state.backlog.front().is_some_and(|first| Arc::ptr_eq(first, batch)) {
            lane_state.backlog.pop_front();
            lane_state.spans -= batch.batch.spans.len();
            lane_state.bytes -= batch.bytes;
            batch.settle(&self.counters, loss);
        }
    }

    /// Records that `lane` has flushed its exporter, for `count` requests.
    pub(super) fn flushed(&self, lane: usize, count: usize, error: Option<ExportError>) {
        let mut state = self.lock();
        let lane_state = &mut state.lanes[lane];
        lane_state.flush_targets.drain(..count);
        lane_state.flushes_done += count as u64;
        if let Some(error) = error {
            lane_state.record_failure(error);
            state.failed_flushes += 1;
        }
        drop(state);
        self.progress.notify_all();
    }

    /// Records the result of the last attempt of `lane`.
    pub(super) fn record_attempt(&self, lane: usize, error: Option<&ExportError>) {
        let lane_state = &mut self.lock().lanes[lane];
        match error {
            Some(error) => lane_state.record_failure(error.clone()),
            None => lane_state.is_failing = false,
        }
    }

    /// Records that `lane` has ended, and counts its unfinished batches as dropped.
    pub(super) fn ended(&self, lane: usize) {
        let mut state = self.lock();
        state.lanes[lane].has_ended = true;
        let backlog = self.give_up_backlog(&mut state.lanes[lane], DropReason::ExporterPanicked);
        let is_last = state.lanes.iter().all(|lane| lane.has_ended);
        let spans = is_last.then(|| {
            self.is_closed.store(true, Ordering::Release);
            self.give_up_spans(&mut state, DropReason::ExporterPanicked)
        });
        drop(state);
        // Freed after the lock is released.
        drop((backlog, spans));
        self.progress.notify_all();
    }

    /// Requests all lanes to export the spans that have ended, and to flush.
    ///
    /// Returns for each lane the value of `flushes_done` at which this request is finished.
    pub(super) fn request_flush(&self) -> Vec<u64> {
        let mut state = self.lock();
        let target = state.formed + state.spans.len() as u64;
        let request = |lane: &mut LaneState| {
            // A lane that has ended would never finish the request.
            lane.flush_targets.extend((!lane.has_ended).then_some(target));
            lane.flushes_done + lane.flush_targets.len() as u64
        };
        let tickets = state.lanes.iter_mut().map(request).collect();
        drop(state);
        self.wake.iter().for_each(Notify::notify_one);
        tickets
    }

    /// Closes the queue: later spans are dropped.
    pub(super) fn close(&self) {
        let _state = self.lock();
        self.is_closed.store(true, Ordering::Release);
    }

    /// Requests all lanes to export the queued spans and to end.
    pub(super) fn request_end(&self, until: Instant) {
        self.close();
        self.lock().shutdown_deadline = Some(until);
        self.wake.iter().for_each(Notify::notify_one);
    }

    /// Returns the end of the limit of a shutdown; `None` before a shutdown.
    pub(super) fn shutdown_deadline(&self) -> Option<Instant> {
        self.lock().shutdown_deadline
    }

    /// Counts all queued spans as dropped. The lanes end as soon as they can.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.is_abandoned = true;
        let spans = self.give_up_spans(&mut state, DropReason::ShutdownTimeout);
        let give_up = |lane| self.give_up_backlog(lane, DropReason::ShutdownTimeout);
        let backlogs: Vec<_> = state.lanes.iter_mut().map(give_up).collect();
        drop(state);
        // Freed after the lock is released.
        drop((spans, backlogs));
        self.abandoned.notify_waiters();
    }

    fn give_up_spans(&self, state: &mut State, reason: DropReason) -> VecDeque<SpanRecord> {
        (state.sizes, state.bytes) = (VecDeque::new(), 0);
        let spans = mem::take(&mut state.spans);
        self.counters.dropped(reason, spans.len() as u64);
        spans
    }

    fn give_up_backlog(&self, lane: &mut LaneState, reason: DropReason) -> VecDeque<Arc<QueuedBatch>> {
        (lane.spans, lane.bytes) = (0, 0);
        let backlog = mem::take(&mut lane.backlog);
        for batch in &backlog {
            batch.settle(&self.counters, Loss { reason, spans: batch.batch.spans.len() as u64 });
        }
        backlog
    }

    /// Waits until `lane` may have another [`step`](Self::step).
    pub(super) async fn wait_for_work(&self, lane: usize) {
        self.wake[lane].notified().await;
    }

    /// Waits until the limit of a shutdown has passed.
    pub(super) async fn abandoned(&self) {
        let abandoned = self.abandoned.notified();
        tokio::pin!(abandoned);
        // After this line a notification is not missed. An earlier one is visible in the state.
        abandoned.as_mut().enable();
        if !self.lock().is_abandoned {
            abandoned.await;
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Only a failed allocation can panic under the lock, and the state stays consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LaneState {
    fn record_failure(&mut self, error: ExportError) {
        self.failures += 1;
        self.is_failing = true;
        self.error = Some(error);
    }
}

impl Recorder for Queue {
    fn record(&self, span: SpanRecord) {
        self.counters.emitted();
        let size = size(&span);
        let mut state = self.lock();
        let is_closed = self.is_closed.load(Ordering::Relaxed);
        if is_closed || state.spans.len() >= self.bounds.spans || state.bytes + size > self.bounds.bytes {
            drop(state);
            let reason = if is_closed { DropReason::AfterShutdown } else { DropReason::QueueFull };
            return self.counters.dropped(reason, 1);
        }
        if state.lanes.is_empty() {
            return self.counters.exported(1);
        }
        state.bytes += size;
        state.sizes.push_back(size);
        state.spans.push_back(span);
        let len = state.spans.len();
        drop(state);
        if len == 1 || len == self.bounds.batch {
            self.wake.iter().for_each(Notify::notify_one);
        }
    }

    fn admit(&self) -> bool {
        let is_open = !self.is_closed.load(Ordering::Acquire);
        if !is_open {
            self.counters.emitted();
            self.counters.dropped(DropReason::AfterShutdown, 1);
        }
        is_open
    }
}
