//! The export thread.
//!
//! It has a runtime of its own, so it depends neither on the user's nor on the order in which things shut down. Nothing that happens
//! on it is traced.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;
use std::{io, mem, thread};

use throughline_core::SpanRecord;
use throughline_core::trace::{Batch, Resource};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::subscriber::NoSubscriber;

use super::exporter::{ExportError, Exporter};
use super::queue::Queue;
use super::stats::{DropReason, Stats};

/// What the thread is asked to do, and whom it tells: whether it was done in time, and the counts.
pub(super) struct Command {
    pub(super) kind: Kind,
    pub(super) limit: Duration,
    pub(super) reply: Box<dyn FnOnce(bool, Stats) + Send>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Export what has ended by now.
    Flush,
    /// That, and end.
    Shutdown,
}

pub(super) struct Worker {
    pub(super) queue: Arc<Queue>,
    pub(super) resource: Arc<Resource>,
    pub(super) exporters: Vec<Box<dyn Exporter>>,
    pub(super) schedule_delay: Duration,
    pub(super) export_timeout: Duration,
    pub(super) on_error: Box<dyn Fn(&ExportError) + Send + Sync>,
    /// Whether the last batch did not arrive: an outage is told once.
    pub(super) is_failing: AtomicBool,
}

/// A batch on its way.
struct Sending {
    spans: u64,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Worker {
    pub(super) fn spawn(self) -> io::Result<UnboundedSender<Command>> {
        let (sender, commands) = unbounded_channel();
        // Made here, so that what can fail does so where somebody is told.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().on_thread_start(untraced).build()?;
        thread::Builder::new().name("throughline-export".into()).spawn(move || {
            untraced();
            runtime.block_on(Arc::new(self).work(commands));
            // A look-up of a host that hangs on the blocking pool keeps nobody.
            runtime.shutdown_background();
        })?;
        Ok(sender)
    }

    async fn work(self: Arc<Self>, mut commands: UnboundedReceiver<Command>) {
        let mut sending = None;
        loop {
            let command = tokio::select! {
                biased;
                command = commands.recv() => command,
                () = self.step(&mut sending) => continue,
            };
            let Some(Command { kind, limit, reply }) = command else { return };
            let until =
                Instant::now().checked_add(limit).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            let in_time = timeout_at(until, self.drain(&mut sending)).await.is_ok();
            if kind == Kind::Shutdown {
                self.give_up(sending);
                return reply(in_time, self.queue.counters.read());
            }
            reply(in_time, self.queue.counters.read());
        }
    }

    /// Sends the next batch on its way, or waits for the one that is. Dropped half-way it loses nothing.
    async fn step(self: &Arc<Self>, sending: &mut Option<Sending>) {
        if sending.is_none() {
            self.wait_for_batch().await;
            *sending = self.send_batch();
        }
        if let Some(batch) = sending {
            batch.future.as_mut().await;
            *sending = None;
        }
    }

    async fn wait_for_batch(&self) {
        while self.queue.len() == 0 {
            self.queue.news.notified().await;
        }
        let until = Instant::now() + self.schedule_delay;
        while !self.queue.has_batch() {
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.queue.news.notified() => {}
            }
        }
    }

    /// Exports what is queued by now.
    async fn drain(self: &Arc<Self>, sending: &mut Option<Sending>) {
        let mut left = self.queue.len();
        loop {
            if let Some(batch) = sending {
                batch.future.as_mut().await;
                *sending = None;
            }
            if left == 0 {
                return;
            }
            *sending = self.send_batch();
            let spans = sending.as_ref().map_or(left, |batch| batch.spans as usize);
            left = left.saturating_sub(spans);
        }
    }

    fn send_batch(self: &Arc<Self>) -> Option<Sending> {
        let spans = self.queue.take_batch();
        let count = spans.len() as u64;
        let future = Box::pin(Arc::clone(self).send(spans));
        (count > 0).then_some(Sending { spans: count, future })
    }

    async fn send(self: Arc<Self>, spans: Vec<SpanRecord>) {
        let count = spans.len() as u64;
        let batch = Batch::new(Arc::clone(&self.resource), spans);
        let mut lost = None;
        for exporter in &self.exporters {
            let error = match timeout(self.export_timeout, unwind_safe(|| exporter.export(&batch))).await {
                Ok(Some(Ok(()))) => continue,
                Ok(Some(Err(error))) => error,
                Ok(None) => {
                    lost.get_or_insert((DropReason::ExporterPanicked, count));
                    ExportError::failed("the exporter panicked")
                }
                Err(_) => ExportError::failed(format!("the exporter took longer than {:?}", self.export_timeout)),
            };
            lost.get_or_insert(match &error {
                ExportError::Rejected { spans, .. } => (DropReason::Rejected, (*spans).min(count)),
                ExportError::Failed { .. } => (DropReason::ExportFailed, count),
            });
            if !self.is_failing.swap(true, Ordering::Relaxed) {
                // A panic in it is not worth more than the batch.
                let _ = catch_unwind(AssertUnwindSafe(|| (self.on_error)(&error)));
            }
        }
        let (reason, lost) = lost.unwrap_or_else(|| {
            self.is_failing.store(false, Ordering::Relaxed);
            (DropReason::ExportFailed, 0)
        });
        self.queue.counters.exported(count - lost);
        self.queue.counters.dropped(reason, lost);
    }

    /// Counts what is left as lost.
    fn give_up(&self, sending: Option<Sending>) {
        let mut lost = sending.map_or(0, |batch| batch.spans);
        loop {
            let left = self.queue.take_batch();
            if left.is_empty() {
                return self.queue.counters.dropped(DropReason::ShutdownTimeout, lost);
            }
            lost += left.len() as u64;
        }
    }
}

/// What the future that `start` makes is ready with; `None` if it panics.
async fn unwind_safe<'a, T>(start: impl FnOnce() -> Pin<Box<dyn Future<Output = T> + Send + 'a>>) -> Option<T> {
    let mut future = catch_unwind(AssertUnwindSafe(start)).ok()?;
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Err(payload) => {
            // It may panic again when it is dropped.
            mem::forget(payload);
            Poll::Ready(None)
        }
    })
    .await
}

/// Keeps the exporters' own events on this thread from becoming spans and logs to export.
fn untraced() {
    mem::forget(tracing::subscriber::set_default(NoSubscriber::default()));
}
