//! Finished spans on their way from the tasks that ended them to the export thread.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use throughline_core::trace::{Attributes, Recorder, Status, Value};
use throughline_core::{SpanContext, SpanRecord};
use tokio::sync::Notify;

use super::stats::{Counters, DropReason};

/// How much may wait. What comes on top is dropped, and counted; whoever ends a span never waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) spans: usize,
    pub(super) bytes: usize,
    /// As many are worth an export at once.
    pub(super) batch: usize,
}

pub(super) struct Queue {
    bounds: Bounds,
    pub(super) counters: Counters,
    waiting: Mutex<Waiting>,
    /// Set under the lock of `waiting`.
    is_closed: AtomicBool,
    /// Something has come to the empty queue, or enough for a batch.
    pub(super) news: Notify,
}

struct Waiting {
    spans: VecDeque<SpanRecord>,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Queue {
            bounds,
            counters: Counters::default(),
            waiting: Mutex::new(Waiting { spans: VecDeque::new(), bytes: 0 }),
            is_closed: AtomicBool::new(false),
            news: Notify::new(),
        }
    }

    /// Takes no more spans from here on.
    pub(super) fn close(&self) {
        let _waiting = self.lock();
        self.is_closed.store(true, Ordering::Release);
    }

    pub(super) fn len(&self) -> usize {
        self.lock().spans.len()
    }

    pub(super) fn has_batch(&self) -> bool {
        self.len() >= self.bounds.batch
    }

    /// The oldest, as many as make a batch at most.
    pub(super) fn take_batch(&self) -> Vec<SpanRecord> {
        let mut waiting = self.lock();
        if waiting.spans.len() <= self.bounds.batch {
            waiting.bytes = 0;
            // A new one, so that a burst's room is not kept for ever.
            let all = mem::take(&mut waiting.spans);
            drop(waiting);
            return all.into();
        }
        let batch: Vec<_> = waiting.spans.drain(..self.bounds.batch).collect();
        drop(waiting);
        let bytes: usize = batch.iter().map(size).sum();
        self.lock().bytes -= bytes;
        batch
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Only an allocation failure could have panicked under the lock; what is there is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Queue {
    fn record(&self, span: SpanRecord) {
        self.counters.emitted();
        let size = size(&span);
        let mut waiting = self.lock();
        let is_closed = self.is_closed.load(Ordering::Relaxed);
        if is_closed || waiting.spans.len() >= self.bounds.spans || waiting.bytes + size > self.bounds.bytes {
            drop(waiting);
            let reason = if is_closed { DropReason::AfterShutdown } else { DropReason::QueueFull };
            return self.counters.dropped(reason, 1);
        }
        waiting.bytes += size;
        waiting.spans.push_back(span);
        let len = waiting.spans.len();
        drop(waiting);
        if len == 1 || len == self.bounds.batch {
            self.news.notify_one();
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

/// About what a span takes up, in bytes.
fn size(span: &SpanRecord) -> usize {
    let events = span.events.iter().map(|event| mem::size_of_val(event) + event.name.len() + heap(&event.attributes));
    let links =
        span.links.iter().map(|link| mem::size_of_val(link) + identity(&link.span_context) + heap(&link.attributes));
    let status = if let Status::Error(description) = &span.status { description.len() } else { 0 };
    let parts = span.name.len() + status + heap(&span.attributes) + identity(&span.span_context);
    mem::size_of::<SpanRecord>() + parts + events.sum::<usize>() + links.sum::<usize>()
}

fn identity(context: &SpanContext) -> usize {
    context.trace_state().as_str().len()
}

fn heap(attributes: &Attributes) -> usize {
    let value = |value: &Value| match value {
        Value::Str(text) => text.len(),
        Value::BoolArray(items) => items.len(),
        Value::I64Array(items) => items.len() * 8,
        Value::F64Array(items) => items.len() * 8,
        Value::StrArray(items) => items.iter().map(|item| item.len() + mem::size_of_val(item)).sum(),
        _ => 0,
    };
    // The pair itself counts again, though the first ones lie inline: those that do not are the ones that could be many.
    attributes.iter().map(|(key, content)| mem::size_of_val(content) + key.len() + value(content)).sum()
}
