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
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::subscriber::NoSubscriber;

use super::exporter::{ExportError, Exporter};
use super::queue::Queue;
use super::stats::{DropReason, Stats};

/// What the thread is asked to do, and whom it tells: whether it was done in time, and the counts.
pub(super) struct Command {
    pub(super) kind: Kind,
    /// The caller's own, so that what was asked before costs it no time.
    pub(super) until: Instant,
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

#[derive(Default)]
struct Progress {
    sending: Option<Sending>,
    /// Spans that have been dealt with, one way or the other.
    done: u64,
}

/// A command that waits until so many spans have been dealt with.
struct Asked {
    target: u64,
    command: Command,
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
        let mut progress = Progress::default();
        let mut asked: Vec<Asked> = Vec::new();
        loop {
            let until = asked.iter().map(|asked| asked.command.until).min();
            tokio::select! {
                biased;
                command = commands.recv() => {
                    let Some(command) = command else { return };
                    let on_its_way = progress.sending.as_ref().map_or(0, |batch| batch.spans);
                    let target = progress.done + on_its_way + self.queue.len() as u64;
                    asked.push(Asked { target, command });
                }
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                () = self.step(&mut progress, asked.is_empty()) => {}
            }
            let now = Instant::now();
            let is_due = |asked: &mut Asked| asked.target <= progress.done || asked.command.until <= now;
            let mut due: Vec<_> = asked.extract_if(.., is_due).collect();
            let is_last = due.iter().any(|asked| asked.command.kind == Kind::Shutdown);
            if is_last {
                due.append(&mut asked);
                self.give_up(progress.sending.take());
            }
            for Asked { target, command } in due {
                (command.reply)(target <= progress.done, self.queue.counters.read());
            }
            if is_last {
                return;
            }
        }
    }

    /// Sends the next batch on its way, or waits for the one that is. Dropped half-way it loses nothing.
    async fn step(self: &Arc<Self>, progress: &mut Progress, is_patient: bool) {
        if progress.sending.is_none() {
            if is_patient {
                self.wait_for_batch().await;
            }
            progress.sending = self.send_batch();
        }
        if let Some(batch) = &mut progress.sending {
            batch.future.as_mut().await;
            progress.done += batch.spans;
            progress.sending = None;
        }
    }

    async fn wait_for_batch(&self) {
        while self.queue.len() == 0 {
            self.queue.news.notified().await;
        }
        let scheduled = sleep(self.schedule_delay);
        tokio::pin!(scheduled);
        while !self.queue.has_batch() {
            tokio::select! {
                () = &mut scheduled => return,
                () = self.queue.news.notified() => {}
            }
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
                caught(|| (self.on_error)(&error));
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

/// What the future that `start` makes is ready with; `None` if it panics. A panic as it is dropped changes nothing.
async fn unwind_safe<'a, T>(start: impl FnOnce() -> BoxFuture<'a, T>) -> Option<T> {
    struct Guarded<'a, T>(Option<BoxFuture<'a, T>>);

    impl<T> Drop for Guarded<'_, T> {
        fn drop(&mut self) {
            caught(|| drop(self.0.take()));
        }
    }

    let mut guarded = Guarded(Some(caught(start)?));
    let future = guarded.0.as_mut().expect("it is taken as it is dropped");
    poll_fn(|cx| match caught(|| future.as_mut().poll(cx)) {
        Some(Poll::Pending) => Poll::Pending,
        Some(Poll::Ready(output)) => Poll::Ready(Some(output)),
        None => Poll::Ready(None),
    })
    .await
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What `run` returns; `None` if it panics.
fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    // The payload may panic again when it is dropped.
    catch_unwind(AssertUnwindSafe(run)).map_err(mem::forget).ok()
}

/// Keeps the exporters' own events on this thread from becoming spans and logs to export.
fn untraced() {
    mem::forget(tracing::subscriber::set_default(NoSubscriber::default()));
}
