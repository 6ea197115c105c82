//! The export threads.
//!
//! Each exporter has its own thread with its own runtime. The thread does not depend on the user's
//! runtime, and a slow exporter does not delay the others. Nothing on an export thread is traced.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use std::{io, mem, thread};

use throughline_core::trace::Batch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::dispatcher::{self, DefaultGuard, Dispatch};

use super::batch::Loss;
use super::exporter::{ExportError, ExportFuture, Exporter};
use super::queue::{Queue, Step};
use super::stats::DropReason;

/// The longest first pause between two attempts. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause that a receiver can request.
///
/// Without a limit, a receiver with a wrong clock, or a malicious one, could stop the export.
const LONGEST_REQUESTED_PAUSE: Duration = Duration::from_secs(600);

pub(super) type OnError = Arc<dyn Fn(&ExportError) + Send + Sync>;

/// An exporter with its thread.
pub(super) struct Worker {
    pub(super) queue: Arc<Queue>,
    /// The index of its lane in the queue.
    pub(super) lane: usize,
    pub(super) exporter: Box<dyn Exporter>,
    pub(super) schedule_delay: Duration,
    pub(super) export_timeout: Duration,
    pub(super) on_error: OnError,
}

/// The state of the receiver, kept from one batch to the next.
#[derive(Default)]
struct ReceiverState {
    /// Whether the last batch was lost. An outage is reported once.
    is_failing: bool,
    /// The end of the pause that the receiver has requested, with its error.
    paused: Option<(Instant, ExportError)>,
}

/// Reports to the queue that the thread ends, also when it panics.
struct EndGuard(Arc<Queue>, usize);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.ended(self.1);
    }
}

impl Worker {
    pub(super) fn spawn(self) -> io::Result<()> {
        let end_guard = EndGuard(Arc::clone(&self.queue), self.lane);
        // Built on the caller's thread, so that `build` can return the error.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().on_thread_start(disable_tracing).build()?;
        thread::Builder::new().name("throughline-export".into()).spawn(move || {
            disable_tracing();
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = self.queue.abandoned() => {}
                    () = self.work() => {}
                }
            });
            // Dropped before the lane ends: an exporter may write when it is dropped, and a
            // shutdown waits for that.
            catch_panic(|| drop(self.exporter));
            drop(end_guard);
            // Does not wait for a host look-up that hangs on the blocking pool.
            runtime.shutdown_background();
        })?;
        Ok(())
    }

    /// Exports batches until a shutdown has started and the queue is empty.
    async fn work(&self) {
        let mut receiver = ReceiverState::default();
        let mut scheduled = None;
        loop {
            let is_scheduled = scheduled.is_some_and(|at| at <= Instant::now());
            match self.queue.step(self.lane, is_scheduled) {
                Step::Send(batch) => {
                    scheduled = None;
                    let loss = self.export(&batch.batch, &mut receiver).await;
                    self.queue.finished(self.lane, &batch, loss);
                }
                Step::Flush(count) => {
                    let error = self.flush(|| self.exporter.flush()).await;
                    self.queue.flushed(self.lane, count, error);
                }
                Step::Idle => {
                    scheduled = None;
                    self.queue.wait_for_work(self.lane).await;
                }
                Step::Fill => {
                    let at = *scheduled.get_or_insert_with(|| after(self.schedule_delay));
                    tokio::select! {
                        () = sleep_until(at) => {}
                        () = self.queue.wait_for_work(self.lane) => {}
                    }
                }
                Step::End => break,
            }
        }
        let error = self.flush(|| self.exporter.shutdown()).await;
        self.queue.flushed(self.lane, 0, error);
    }

    /// Exports a batch, with retries. Returns the spans that were lost.
    async fn export(&self, batch: &Batch, receiver: &mut ReceiverState) -> Loss {
        let count = batch.spans.len() as u64;
        let lost = |reason, spans, error: ExportError, receiver: &mut ReceiverState| {
            self.queue.record_attempt(self.lane, Some(&error));
            if !mem::replace(&mut receiver.is_failing, true) {
                // A panic of the callback must not end the thread.
                catch_panic(|| (self.on_error)(&error));
            }
            Loss { reason, spans }
        };
        let mut batch_deadline = None;
        let mut pause = FIRST_PAUSE;
        let mut last = None;
        loop {
            if let Some((at, error)) = receiver.paused.clone() {
                if !self.pause(at, true).await {
                    return lost(DropReason::ExportFailed, count, error, receiver);
                }
                receiver.paused = None;
            }
            let batch_deadline = batch_deadline.get_or_insert_with(|| after(self.export_timeout));
            let error = match timeout_at(*batch_deadline, catch_panic_in(|| self.exporter.export(batch))).await {
                Ok(Some(Ok(()))) => {
                    self.queue.record_attempt(self.lane, None);
                    receiver.is_failing = false;
                    return Loss::NONE;
                }
                Ok(Some(Err(error))) => error,
                Ok(None) => {
                    let error = ExportError::failed("the exporter panicked");
                    return lost(DropReason::ExporterPanicked, count, error, receiver);
                }
                Err(_) => match last {
                    Some(error) => error,
                    None => return lost(DropReason::ExportTimeout, count, self.timeout_error(), receiver),
                },
            };
            let (is_unreachable, requested) = match &error {
                ExportError::Failed { .. } => return lost(DropReason::ExportFailed, count, error, receiver),
                ExportError::Rejected { spans, .. } => {
                    let spans = (*spans).min(count);
                    return lost(DropReason::Rejected, spans, error, receiver);
                }
                ExportError::Unreachable { .. } => (true, None),
                ExportError::Unavailable { after, .. } => {
                    (false, after.map(|after| after.min(LONGEST_REQUESTED_PAUSE)))
                }
            };
            // A part of the pause is random, so that a thousand processes do not retry together. It
            // also prevents a tight loop with a receiver that always requests a pause of 0.
            let random = pause.mul_f64(fastrand::f64() / 2.0);
            let wait = requested.unwrap_or(pause / 2) + random;
            pause = (pause * 2).min(LONGEST_PAUSE);
            if requested.is_some_and(|requested| !requested.is_zero()) {
                // A requested pause does not count towards the export timeout.
                *batch_deadline += wait;
            }
            let next = Instant::now() + wait;
            if requested.is_some() {
                receiver.paused = Some((next, error.clone()));
            }
            if next >= *batch_deadline {
                return lost(DropReason::ExportTimeout, count, error, receiver);
            }
            if is_unreachable && self.queue.shutdown_deadline().is_some() {
                return lost(DropReason::ExportFailed, count, error, receiver);
            }
            self.queue.record_attempt(self.lane, Some(&error));
            if requested.is_none() {
                self.pause(next, false).await;
            }
            last = Some(error);
        }
    }

    /// Waits for the next attempt. Returns `false` if there is no next attempt.
    ///
    /// - A pause that the receiver has requested is kept. If it would end after the limit of a
    ///   shutdown, the batch is given up.
    /// - Any other pause ends when a shutdown starts, so that there is one more attempt.
    async fn pause(&self, until: Instant, is_requested: bool) -> bool {
        let was_closing = self.queue.shutdown_deadline().is_some();
        loop {
            if let Some(end) = self.queue.shutdown_deadline() {
                if is_requested && until.into_std() >= end {
                    return false;
                }
                if !is_requested && !was_closing {
                    return true;
                }
            }
            tokio::select! {
                () = sleep_until(until) => return true,
                () = self.queue.wait_for_work(self.lane) => {}
            }
        }
    }

    /// Flushes or shuts down the exporter. Returns the error, if any.
    async fn flush<'a>(&self, flush: impl FnOnce() -> ExportFuture<'a>) -> Option<ExportError> {
        let error = match timeout_at(after(self.export_timeout), catch_panic_in(flush)).await {
            Ok(Some(Ok(()))) => return None,
            Ok(Some(Err(error))) => error,
            Ok(None) => ExportError::failed("the exporter panicked"),
            Err(_) => self.timeout_error(),
        };
        catch_panic(|| (self.on_error)(&error));
        Some(error)
    }

    fn timeout_error(&self) -> ExportError {
        ExportError::failed(format!("the exporter took longer than {:?}", self.export_timeout))
    }
}

/// Returns the time `limit` from now, at most 30 years from now.
fn after(limit: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    let now = Instant::now();
    now.checked_add(limit.min(FAR)).unwrap_or(now + FAR)
}

/// Runs the future that `start` makes. Returns `None` if it panics.
///
/// A panic in the drop of the future is caught and ignored.
async fn catch_panic_in<'a, T>(start: impl FnOnce() -> BoxFuture<'a, T>) -> Option<T> {
    struct Guarded<'a, T>(Option<BoxFuture<'a, T>>);

    impl<T> Drop for Guarded<'_, T> {
        fn drop(&mut self) {
            catch_panic(|| drop(self.0.take()));
        }
    }

    let mut guarded = Guarded(Some(catch_panic(start)?));
    let future = guarded.0.as_mut().expect("it is taken only in drop");
    poll_fn(|cx| match catch_panic(|| future.as_mut().poll(cx)) {
        Some(Poll::Pending) => Poll::Pending,
        Some(Poll::Ready(output)) => Poll::Ready(Some(output)),
        None => Poll::Ready(None),
    })
    .await
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Returns the result of `run`, or `None` if it panics.
fn catch_panic<T>(run: impl FnOnce() -> T) -> Option<T> {
    // Dropping the panic payload may panic again, so it is leaked.
    catch_unwind(AssertUnwindSafe(run)).map_err(mem::forget).ok()
}

thread_local! {
    /// Keeps the default subscriber of the thread until the thread ends.
    static NO_SUBSCRIBER: Cell<Option<DefaultGuard>> = const { Cell::new(None) };
}

/// Disables `tracing` on this thread.
///
/// Otherwise the events of an exporter would become spans and logs to export. `Dispatch::none` is
/// used because any other subscriber is registered with `tracing`. With two registered subscribers
/// in a process, each callsite checks both at each event.
fn disable_tracing() {
    NO_SUBSCRIBER.set(Some(dispatcher::set_default(&Dispatch::none())));
}
