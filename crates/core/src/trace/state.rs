//! What a context keeps of its span: the identity, and the recording while it goes on.

use std::borrow::Cow;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::attributes::Attributes;
use super::clock::Epoch;
use super::id::SpanId;
use super::limits::{SpanLimits, bound};
use super::record::{Event, Link, SpanKind, SpanRecord, Status, UnixNanos};
use super::span_context::SpanContext;
use super::tracer::Tracer;
use super::value::Value;
use crate::{Context, Key};

/// The nearest one wins: the span that the context is in, or the remote parent.
pub(super) static SPAN: Key<SpanState> = Key::new("span");
/// Where the spans below go. A recorded span's own context always leads to its tracer, so spans need not hold one.
pub(super) static TRACER: Key<Tracer> = Key::new("tracer");

#[inline]
pub(super) fn tracer(ctx: &Context) -> &Tracer {
    ctx.value(&TRACER).unwrap_or_else(|| Tracer::current_default())
}

/// Counts a write to the span that `ctx` is in, which has ended, on its own tracer: another may have been named below it.
#[cold]
pub(super) fn count_late_write(ctx: &Context) {
    if let Some(own) = ctx.origin(&SPAN) {
        tracer(&own).count_late_write();
    }
}

pub(super) struct SpanState {
    pub(super) span_context: SpanContext,
    /// Whether there ever was a recording; it may be over.
    pub(super) is_recorded: bool,
    pub(super) is_local_root: bool,
    pub(super) limits: SpanLimits,
    /// Of the local root.
    pub(super) epoch: Epoch,
    /// The context whose span the writes go to, where this is the parent of spawned work only. It is an ancestor of the
    /// context that has this, so that dropping it frees nothing.
    pub(super) writes_to: Option<Context>,
    pub(super) recording: Mutex<Recording>,
}

/// What is known of a span that has not ended.
///
/// Most of its 500 bytes are room for attributes, and each copy of them costs as much as an allocation. So it is put
/// together where the context keeps it, written there, and moved once, to the recorder.
pub(super) struct Recording {
    pub(super) is_live: bool,
    /// The cause of a cancellation has been recorded.
    pub(super) is_cancelled: bool,
    pub(super) parent_is_remote: bool,
    pub(super) kind: SpanKind,
    pub(super) dropped_attributes: u32,
    pub(super) parent_span_id: Option<SpanId>,
    pub(super) start_time: UnixNanos,
    pub(super) name: Cow<'static, str>,
    pub(super) attributes: Attributes,
    pub(super) rare: Option<Box<RareFields>>,
}

/// What many spans never have.
#[derive(Default)]
pub(super) struct RareFields {
    events: Vec<Event>,
    links: Vec<Link>,
    status: Status,
    dropped_events: u32,
    dropped_links: u32,
    /// Where each error lay that has been recorded, with the hash of what it said: limits may leave less of it in its event.
    errors: Vec<(usize, u64)>,
    /// What the last one said.
    last_error: Option<String>,
}

impl SpanState {
    /// A span that is not recorded, or is one of another process.
    #[inline(always)]
    pub(super) fn identity(span_context: SpanContext, is_local_root: bool) -> Self {
        let recording = Recording {
            is_live: false,
            is_cancelled: false,
            parent_is_remote: false,
            kind: SpanKind::Internal,
            dropped_attributes: 0,
            parent_span_id: None,
            start_time: UnixNanos(0),
            name: Cow::Borrowed(""),
            attributes: Attributes::new(),
            rare: None,
        };
        let recording = Mutex::new(recording);
        Self {
            span_context,
            is_recorded: false,
            is_local_root,
            limits: SpanLimits::DEFAULT,
            epoch: Epoch::default(),
            writes_to: None,
            recording,
        }
    }

    /// The parent of work that is spawned under `ctx`: the span `parent`, which takes no writes, and stands where `like`
    /// stands.
    pub(super) fn spawner(parent: SpanContext, like: &SpanState, ctx: &Context) -> Self {
        let writes_to = ctx.value(&SPAN).and_then(|state| state.writes_to.clone()).unwrap_or_else(|| ctx.clone());
        let identity = Self::identity(parent, false);
        Self { is_recorded: like.is_recorded, epoch: like.epoch, writes_to: Some(writes_to), ..identity }
    }

    pub(super) fn is_recording(&self) -> bool {
        self.is_recorded && self.lock().is_live
    }

    /// Ends the recording and hands it over; `None` the second time.
    #[inline(always)]
    pub(super) fn end(&self, time: UnixNanos) -> Option<SpanRecord> {
        let mut recording = self.lock();
        if !std::mem::take(&mut recording.is_live) {
            return None;
        }
        let mut record = SpanRecord {
            span_context: self.span_context.clone(),
            parent_span_id: recording.parent_span_id,
            parent_is_remote: recording.parent_is_remote,
            name: std::mem::take(&mut recording.name),
            kind: recording.kind,
            start_time: recording.start_time,
            end_time: time.max(recording.start_time),
            attributes: recording.attributes.take(),
            events: Vec::new(),
            links: Vec::new(),
            status: Status::Unset,
            dropped_attributes_count: recording.dropped_attributes,
            dropped_events_count: 0,
            dropped_links_count: 0,
        };
        if let Some(rare) = recording.rare.take() {
            (*rare).move_into(&mut record);
        }
        Some(record)
    }

    /// Lets `write` change the recording. It runs under the lock: nothing of the user's may run in it.
    #[inline]
    pub(super) fn write(&self, ctx: &Context, write: impl FnOnce(&mut Recording, &SpanLimits)) {
        if !self.is_recorded {
            return;
        }
        let mut recording = self.lock();
        if recording.is_live {
            write(&mut recording, &self.limits);
        } else {
            drop(recording);
            count_late_write(ctx);
        }
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Recording> {
        // Only an allocation failure could have panicked under the lock; what is there is whole.
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recording {
    #[inline]
    pub(super) fn set_attribute(&mut self, key: Cow<'static, str>, value: Value, limits: &SpanLimits) {
        if !self.attributes.set_within(key, value, limits.attributes, limits) {
            count(&mut self.dropped_attributes, 1);
        }
    }

    /// Records a cancellation, once. The first cause stays, also one that was set as an attribute.
    pub(super) fn record_cancellation(
        &mut self,
        event: &'static str,
        cause: &'static str,
        message: Option<String>,
        time: UnixNanos,
        limits: &SpanLimits,
    ) {
        const CAUSE: &str = "throughline.cancel.cause";
        if std::mem::replace(&mut self.is_cancelled, true) || self.attributes.get(CAUSE).is_some() {
            return;
        }
        self.set_attribute(CAUSE.into(), cause.into(), limits);
        if let Some(message) = message {
            self.set_attribute("throughline.cancel.message".into(), message.into(), limits);
        }
        self.rare().add_event(Event::new(event, time, ()), limits);
    }

    pub(super) fn set_name(&mut self, mut name: Cow<'static, str>) {
        bound_name(&mut name);
        self.name = name;
    }

    pub(super) fn rare(&mut self) -> &mut RareFields {
        self.rare.get_or_insert_default()
    }
}

impl RareFields {
    fn move_into(self, record: &mut SpanRecord) {
        record.events = self.events;
        record.links = self.links;
        record.status = self.status;
        record.dropped_events_count = self.dropped_events;
        record.dropped_links_count = self.dropped_links;
    }

    pub(super) fn add_event(&mut self, mut event: Event, limits: &SpanLimits) {
        if is_full(&self.events, limits.events) {
            return count(&mut self.dropped_events, 1);
        }
        bound_name(&mut event.name);
        let excess = event.attributes.shrink_to(limits.event_attributes, limits);
        count(&mut event.dropped_attributes_count, excess);
        self.events.push(event);
    }

    pub(super) fn add_link(&mut self, mut link: Link, limits: &SpanLimits) {
        if is_full(&self.links, limits.links) {
            return count(&mut self.dropped_links, 1);
        }
        let excess = link.attributes.shrink_to(limits.link_attributes, limits);
        count(&mut link.dropped_attributes_count, excess);
        self.links.push(link);
    }

    pub(super) fn set_status(&mut self, mut status: Status) {
        if let Status::Error(description) = &mut status {
            bound(description);
        }
        match (&self.status, &status) {
            (Status::Ok, _) | (_, Status::Unset) => {}
            // It adds nothing to the description that is there.
            (Status::Error(_), Status::Error(description)) if description.is_empty() => {}
            _ => self.status = status,
        }
    }

    /// Adds an `exception` event and sets the status, unless the same error is there already: it lay at `address` and
    /// its `message` was the same, or lay at an unknown address (`None`) and said what the last one begins with.
    pub(super) fn add_exception(
        &mut self,
        address: Option<usize>,
        message: String,
        event: Event,
        status: Status,
        limits: &SpanLimits,
    ) {
        let error = address.map(|address| (address, BuildHasherDefault::<DefaultHasher>::default().hash_one(&message)));
        let seen = match &error {
            Some(error) => self.errors.contains(error),
            None => self.last_error.as_ref().is_some_and(|last| last.starts_with(&message)),
        };
        if seen {
            return;
        }
        // As many as there can be events; one where there can be none.
        if !is_full(&self.errors, limits.events.max(1)) {
            self.errors.extend(error);
        }
        self.last_error = Some(message);
        self.add_event(event, limits);
        self.set_status(status);
    }

    /// Adds an `exception` event and sets the status, whatever was recorded before.
    pub(super) fn add_new_exception(&mut self, message: String, event: Event, limits: &SpanLimits) {
        self.set_status(Status::Error(message.clone().into()));
        self.last_error = Some(message);
        self.add_event(event, limits);
    }
}

/// An empty name becomes `unknown`, a long one is cut.
#[inline]
pub(super) fn bound_name(name: &mut Cow<'static, str>) {
    if name.is_empty() {
        *name = Cow::Borrowed("unknown");
    }
    bound(name);
}

pub(super) fn count(counter: &mut u32, by: u32) {
    *counter = counter.saturating_add(by);
}

fn is_full<T>(list: &[T], limit: u32) -> bool {
    u32::try_from(list.len()).map_or(true, |len| len >= limit)
}
