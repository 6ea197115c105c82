//! The data of a finished span, which recorders and exporters take.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::attributes::Attributes;
use super::clock::UnixNanos;
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
    /// The id of the parent span; `None` for the root of a trace.
    pub parent_span_id: Option<SpanId>,
    /// Whether the parent span is in another process.
    pub parent_is_remote: bool,
    /// The operation, with few distinct values: `GET /cards/{id}`, not `GET /cards/7`.
    pub name: Cow<'static, str>,
    /// The role between processes.
    pub kind: SpanKind,
    /// The start of the span.
    pub start_time: UnixNanos,
    /// The end of the span; never before `start_time`.
    pub end_time: UnixNanos,
    /// Attributes of the span.
    pub attributes: Attributes,
    /// Events during the span.
    pub events: Vec<Event>,
    /// Related spans other than the parent.
    pub links: Vec<Link>,
    /// Whether the work succeeded.
    pub status: Status,
    /// The number of attributes dropped for the limit or for a bad key.
    pub dropped_attributes_count: u32,
    /// The number of events dropped for the limit.
    pub dropped_events_count: u32,
    /// The number of links dropped for the limit.
    pub dropped_links_count: u32,
}

impl SpanRecord {
    /// Returns a root span of kind [`Internal`](SpanKind::Internal) with nothing else set.
    ///
    /// An end before the start becomes the start. The other fields are public: set those that you
    /// need.
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

    /// Returns the time from start to end.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.end_time.0.saturating_sub(self.start_time.0))
    }
}

/// The role of a span between processes (OpenTelemetry trace API, SpanKind).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SpanKind {
    /// Work inside one process.
    #[default]
    Internal,
    /// Handles a request.
    Server,
    /// Sends a request and waits for the response.
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

/// Whether the work succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Status {
    /// Not set; it counts as success.
    #[default]
    Unset,
    /// The application says that the work succeeded. Final.
    Ok,
    /// The work failed, with this description.
    Error(Cow<'static, str>),
}

/// Something that happened at one point in time during a span.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// What happened.
    pub name: Cow<'static, str>,
    /// When it happened.
    pub time: UnixNanos,
    /// Attributes of the event.
    pub attributes: Attributes,
    /// The number of attributes dropped for the limit or for a bad key.
    pub dropped_attributes_count: u32,
}

impl Event {
    /// Returns the event `name` at `time`.
    pub fn new(name: impl Into<Cow<'static, str>>, time: UnixNanos, attributes: impl Into<Attributes>) -> Self {
        Self { name: name.into(), time, attributes: attributes.into(), dropped_attributes_count: 0 }
    }
}

/// A related span that is not the parent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Link {
    /// The linked span, often of another trace.
    pub span_context: SpanContext,
    /// Attributes of the link.
    pub attributes: Attributes,
    /// The number of attributes dropped for the limit or for a bad key.
    pub dropped_attributes_count: u32,
}

impl Link {
    /// Returns a link to `span_context`.
    pub fn new(span_context: SpanContext, attributes: impl Into<Attributes>) -> Self {
        Self { span_context, attributes: attributes.into(), dropped_attributes_count: 0 }
    }
}

impl From<SpanContext> for Link {
    fn from(span_context: SpanContext) -> Self {
        Self::new(span_context, Attributes::new())
    }
}

/// The process that creates the spans: `service.name` and other attributes.
///
/// It is the same for all spans of one [`Tracer`](super::Tracer).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Resource {
    /// Attributes of the process.
    pub attributes: Attributes,
}

impl Resource {
    /// Returns a resource with these attributes.
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

    /// Returns the value of `service.name`.
    pub fn service_name(&self) -> Option<&str> {
        self.attributes.get("service.name")?.as_str()
    }
}

/// Finished spans of one resource, to be exported together.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Batch {
    /// The process that created the spans.
    pub resource: Arc<Resource>,
    /// The spans, in the order in which they ended.
    pub spans: Vec<SpanRecord>,
}

impl Batch {
    /// Returns a batch of these spans.
    pub fn new(resource: Arc<Resource>, spans: Vec<SpanRecord>) -> Self {
        Self { resource, spans }
    }
}
