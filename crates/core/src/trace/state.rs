//! The state of a span in its context: its identity and its recording.

use std::borrow::Cow;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::attributes::Attributes;
use super::clock::{Epoch, UnixNanos};
use super::id::SpanId;
use super::limits::{SpanLimits, bound};
use super::record::{Event, Link, SpanKind, SpanRecord, Status};
use super::span_context::SpanContext;
use super::tracer::Tracer;
use super::value::Value;
use crate::{Context, Key};

/// The span that the context is in, or the remote parent. The nearest one counts.
pub(super) static SPAN: Key<SpanState> = Key::new("span");
/// The tracer of the spans below.
///
/// From the context of a recorded span it always leads to the span's own tracer, so a span need not
/// hold one.
pub(super) static TRACER: Key<Tracer> = Key::new("tracer");

#[inline]
pub(super) fn tracer(ctx: &Context) -> &Tracer {
    ctx.value(&TRACER).unwrap_or_else(|| Tracer::current_default())
}

/// Counts a write to the ended span of `ctx`, on the span's own tracer.
///
/// Another tracer may have been set below the span.
#[cold]
pub(super) fn count_late_write(ctx: &Context) {
    if let Some(own) = ctx.origin(&SPAN) {
        tracer(&own).count_late_write();
    }
}

pub(super) struct SpanState {
    pub(super) span_context: SpanContext,
    /// Whether the span is or was recorded. It stays true after the end.
    pub(super) is_recorded: bool,
    pub(super) is_local_root: bool,
    pub(super) limits: SpanLimits,
    /// The epoch of the local root.
    pub(super) epoch: Epoch,
    /// The context whose span takes the writes.
    ///
    /// It is set only in the parent of spawned work. It is an ancestor of the context that holds
    /// this, so dropping it frees nothing.
    pub(super) writes_to: Option<Context>,
    pub(super) recording: Mutex<Recording>,
}

/// The recorded data of a span that has not ended.
///
/// Most of its 500 bytes are inline space for attributes, and a copy of them costs as much as an
/// allocation. So it is built where the context keeps it, written there, and moved once, to the
/// recorder.
pub(super) struct Recording {
    pub(super) is_live: bool,
    /// Whether the cause of a cancellation has been recorded.
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

/// The fields that most spans do not use: events, links and status.
#[derive(Default)]
pub(super) struct RareFields {
    events: Vec<Event>,
    links: Vec<Link>,
    status: Status,
    dropped_events: u32,
    dropped_links: u32,
    /// The address of each recorded error, and the hash of its message.
    ///
    /// The message in the event may be cut by limits.
    errors: Vec<(usize, u64)>,
    /// The message of the last recorded error.
    last_error: Option<String>,
}

impl SpanState {
    /// The state of a span that is not recorded, or that is in another process.
    #[inline(always)]
    pub(super) fn unrecorded(span_context: SpanContext, is_local_root: bool) -> Self {
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

    /// The state of the parent of work that is spawned under `ctx`: the span `parent`.
    ///
    /// Writes go to the span of `ctx`. Whether it is recorded, and its epoch, are taken from
    /// `source`.
    pub(super) fn for_spawned_work(parent: SpanContext, source: &SpanState, ctx: &Context) -> Self {
        let writes_to = ctx.value(&SPAN).and_then(|state| state.writes_to.clone()).unwrap_or_else(|| ctx.clone());
        let unrecorded = Self::unrecorded(parent, false);
        Self { is_recorded: source.is_recorded, epoch: source.epoch, writes_to: Some(writes_to), ..unrecorded }
    }

    pub(super) fn is_recording(&self) -> bool {
        self.is_recorded && self.lock().is_live
    }

    /// Ends the recording and returns it. The second call returns `None`.
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

    /// Changes the recording with `write`.
    ///
    /// It runs under the lock, so it must not call user code.
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
        // Only an allocation failure can have panicked under the lock. The recording is valid after
        // it.
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recording {
    #[inline]
    pub(super) fn set_attribute(&mut self, key: Cow<'static, str>, value: Value, limits: &SpanLimits) {
        if !self.attributes.set_within(key, value, limits.attributes, limits) {
            add_count(&mut self.dropped_attributes, 1);
        }
    }

    /// Records a cancellation once.
    ///
    /// The first cause stays, also one that was set as an attribute.
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
            return add_count(&mut self.dropped_events, 1);
        }
        bound_name(&mut event.name);
        let excess = event.attributes.shrink_to(limits.event_attributes, limits);
        add_count(&mut event.dropped_attributes_count, excess);
        self.events.push(event);
    }

    pub(super) fn add_link(&mut self, mut link: Link, limits: &SpanLimits) {
        if is_full(&self.links, limits.links) {
            return add_count(&mut self.dropped_links, 1);
        }
        let excess = link.attributes.shrink_to(limits.link_attributes, limits);
        add_count(&mut link.dropped_attributes_count, excess);
        self.links.push(link);
    }

    pub(super) fn set_status(&mut self, mut status: Status) {
        if let Status::Error(description) = &mut status {
            bound(description);
        }
        match (&self.status, &status) {
            (Status::Ok, _) | (_, Status::Unset) => {}
            // An empty description adds nothing to the one that is set.
            (Status::Error(_), Status::Error(description)) if description.is_empty() => {}
            _ => self.status = status,
        }
    }

    /// Adds an `exception` event and sets the status, unless the same error is recorded already.
    ///
    /// The same error is recorded already if
    ///
    /// - `address` is known, and an error with this address and message is recorded,
    /// - or `address` is `None`, and the last message begins with this one.
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
        // One entry per possible event, and at least one: with a limit of zero events the error
        // must still be recognized.
        if !is_full(&self.errors, limits.events.max(1)) {
            self.errors.extend(error);
        }
        self.last_error = Some(message);
        self.add_event(event, limits);
        self.set_status(status);
    }

    /// Adds an `exception` event and sets the status, without looking for the same error.
    pub(super) fn add_new_exception(&mut self, message: String, event: Event, limits: &SpanLimits) {
        self.set_status(Status::Error(message.clone().into()));
        self.last_error = Some(message);
        self.add_event(event, limits);
    }
}

/// Replaces an empty name by `unknown` and cuts a long one.
#[inline]
pub(super) fn bound_name(name: &mut Cow<'static, str>) {
    if name.is_empty() {
        *name = Cow::Borrowed("unknown");
    }
    bound(name);
}

pub(super) fn add_count(counter: &mut u32, by: u32) {
    *counter = counter.saturating_add(by);
}

fn is_full<T>(list: &[T], limit: u32) -> bool {
    u32::try_from(list.len()).map_or(true, |len| len >= limit)
}
