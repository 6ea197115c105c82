//! What a finished span is: the data that recorders and exporters see.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::attributes::Attributes;
use super::id::SpanId;
use super::span_context::SpanContext;

/// A finished span.
///
/// # Examples
/// ```
/// use throughline_core::{SpanContext, SpanId, SpanRecord, TraceFlags, TraceId, TraceState};
/// use throughline_core::trace::UnixNanos;
///
/// let id = SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, false);
/// let mut record = SpanRecord::new(id, "reserve", UnixNanos(1_000), UnixNanos(1_500));
/// record.attributes.set("card", 7);
/// assert_eq!(record.duration().as_nanos(), 500);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SpanRecord {
    /// The span's identity.
    pub span_context: SpanContext,
    /// The span above it; `None` for the root of a trace.
    pub parent_span_id: Option<SpanId>,
    /// Whether the span above it is in another process.
    pub parent_is_remote: bool,
    /// What the span is about, of low cardinality.
    pub name: Cow<'static, str>,
    /// Its part in a conversation between processes.
    pub kind: SpanKind,
    /// When it started.
    pub start_time: UnixNanos,
    /// When it ended; never before `start_time`.
    pub end_time: UnixNanos,
    /// What is known about it.
    pub attributes: Attributes,
    /// What happened during it.
    pub events: Vec<Event>,
    /// Spans that it has to do with, other than its parent.
    pub links: Vec<Link>,
    /// Whether it went well.
    pub status: Status,
    /// Attributes beyond the limit, or with a bad key.
    pub dropped_attributes_count: u32,
    /// Events beyond the limit.
    pub dropped_events_count: u32,
    /// Links beyond the limit.
    pub dropped_links_count: u32,
}

impl SpanRecord {
    /// A root span of kind [`Internal`](SpanKind::Internal) with nothing else on it; an end before the start becomes the
    /// start. Set what else there is: the fields are public.
    #[inline]
    pub fn new(
        span_context: SpanContext,
        name: impl Into<Cow<'static, str>>,
        start: UnixNanos,
        end: UnixNanos,
    ) -> Self {
        Self {
            span_context,
            parent_span_id: None,
            parent_is_remote: false,
            name: name.into(),
            kind: SpanKind::Internal,
            start_time: start,
            end_time: end.max(start),
            attributes: Attributes::new(),
            events: Vec::new(),
            links: Vec::new(),
            status: Status::Unset,
            dropped_attributes_count: 0,
            dropped_events_count: 0,
            dropped_links_count: 0,
        }
    }

    /// The time from start to end.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.end_time.0.saturating_sub(self.start_time.0))
    }
}

/// A point in time: nanoseconds since the Unix epoch, good until the year 2554.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UnixNanos(pub u64);

impl From<SystemTime> for UnixNanos {
    /// Times before 1970 become zero, those past the year 2554 the greatest value.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<UnixNanos> for SystemTime {
    fn from(time: UnixNanos) -> Self {
        // Where SystemTime cannot hold a time this far off, its epoch stands for it.
        UNIX_EPOCH.checked_add(Duration::from_nanos(time.0)).unwrap_or(UNIX_EPOCH)
    }
}

/// A span's part in a conversation between processes (OpenTelemetry trace API, SpanKind).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SpanKind {
    /// Work inside one process.
    #[default]
    Internal,
    /// Answers a request.
    Server,
    /// Makes a request and waits for the answer.
    Client,
    /// Sends a message.
    Producer,
    /// Handles a message.
    Consumer,
}

impl fmt::Display for SpanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        })
    }
}

/// Whether the work went well.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Status {
    /// Nothing was said: taken as well.
    #[default]
    Unset,
    /// It went well, said the application; final.
    Ok,
    /// It failed, with this description.
    Error(Cow<'static, str>),
}

/// Something that happened at one time during a span.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// What happened.
    pub name: Cow<'static, str>,
    /// When.
    pub time: UnixNanos,
    /// What is known about it.
    pub attributes: Attributes,
    /// Attributes beyond the limit, or with a bad key.
    pub dropped_attributes_count: u32,
}

impl Event {
    /// The event `name` at `time`.
    pub fn new(name: impl Into<Cow<'static, str>>, time: UnixNanos, attributes: impl Into<Attributes>) -> Self {
        Self { name: name.into(), time, attributes: attributes.into(), dropped_attributes_count: 0 }
    }
}

/// A span that another has to do with without being its child.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Link {
    /// The span pointed to, often of another trace.
    pub span_context: SpanContext,
    /// What is known about the connection.
    pub attributes: Attributes,
    /// Attributes beyond the limit, or with a bad key.
    pub dropped_attributes_count: u32,
}

impl Link {
    /// A link to `span_context`.
    pub fn new(span_context: SpanContext, attributes: impl Into<Attributes>) -> Self {
        Self { span_context, attributes: attributes.into(), dropped_attributes_count: 0 }
    }
}

impl From<SpanContext> for Link {
    fn from(span_context: SpanContext) -> Self {
        Self::new(span_context, Attributes::new())
    }
}

/// What made the spans: `service.name` and the like, the same for all of one [`Tracer`](super::Tracer).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Resource {
    /// What is known about it.
    pub attributes: Attributes,
}

impl Resource {
    /// The resource with these attributes.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::trace::Resource;
    ///
    /// let resource = Resource::new([("service.name", "card-api")]);
    /// assert_eq!(resource.service_name(), Some("card-api"));
    /// ```
    pub fn new(attributes: impl Into<Attributes>) -> Self {
        Self { attributes: attributes.into() }
    }

    /// The value of `service.name`.
    pub fn service_name(&self) -> Option<&str> {
        self.attributes.get("service.name")?.as_str()
    }
}

/// Finished spans of one resource, on their way out.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Batch {
    /// What made them.
    pub resource: Arc<Resource>,
    /// The spans, in the order in which they ended.
    pub spans: Vec<SpanRecord>,
}

impl Batch {
    /// These spans of this resource.
    pub fn new(resource: Arc<Resource>, spans: Vec<SpanRecord>) -> Self {
        Self { resource, spans }
    }
}
