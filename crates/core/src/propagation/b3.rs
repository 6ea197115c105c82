//! B3 (Zipkin): one header `b3`, or several headers `X-B3-*` (openzipkin/b3-propagation).
//!
//! - Hexadecimal digits are lower-case.
//! - A trace id of 16 digits is padded with zeros on the left.
//! - A parent span id is validated but not kept. It is never written, because the callee creates
//!   its own spans.
//! - A caller may leave out the sampling decision. Then the callee decides:
//!   [`ParentBased`](crate::trace::ParentBased) calls its root sampler. A process without a sampler
//!   propagates the request without a decision.

use http::header::{HeaderName, HeaderValue};

use super::field::{once, padded_trace_id, parsed};
use crate::{Extractor, Injector, SpanContext, SpanId, TraceFlags, TraceState};

/// `b3`: the ids and the decision in one header.
pub static B3: HeaderName = HeaderName::from_static("b3");
/// `X-B3-TraceId`: 16 or 32 digits.
pub static TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
/// `X-B3-SpanId`: 16 digits.
pub static SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
/// `X-B3-ParentSpanId`: never written.
pub static PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
/// `X-B3-Sampled`: `1` or `0`; `true` and `false` are read too.
pub static SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
/// `X-B3-Flags`: `1` is debug.
pub static FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The caller's sampling decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampling {
    /// No decision: the callee decides.
    #[default]
    Deferred,
    /// Do not record the trace.
    Denied,
    /// Record the trace.
    Accepted,
    /// Record the trace, in every downstream service too.
    Debug,
}

impl Sampling {
    pub(super) fn is_sampled(self) -> bool {
        matches!(self, Sampling::Accepted | Sampling::Debug)
    }

    fn of(span: &SpanContext, debug: bool) -> Self {
        match (debug, span.is_sampled()) {
            (true, _) => Sampling::Debug,
            (false, true) => Sampling::Accepted,
            (false, false) if span.is_undecided() => Sampling::Deferred,
            (false, false) => Sampling::Denied,
        }
    }
}

/// The extracted data: the caller's span, a sampling decision, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The caller's span, remote, and sampled if the decision is to record.
    ///
    /// `None` if the headers hold only a decision (`b3: 0`).
    pub span: Option<SpanContext>,
    /// The sampling decision.
    pub sampling: Sampling,
}

/// Extracts from `b3`, or from the `X-B3-*` headers if `b3` is absent or invalid.
///
/// # Examples
/// ```
/// use http::HeaderMap;
/// use throughline_core::propagation::b3::{self, Sampling};
///
/// let mut headers = HeaderMap::new();
/// headers.insert("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90".parse()?);
/// let span = b3::extract(&headers).and_then(|received| received.span).expect("the header is valid");
/// assert!(span.is_sampled());
///
/// headers.insert("b3", "0".parse()?);
/// let received = b3::extract(&headers).expect("the header is valid");
/// assert_eq!((received.span, received.sampling), (None, Sampling::Denied));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn extract<E: Extractor + ?Sized>(carrier: &E) -> Option<Received> {
    parsed(carrier, &B3, parse_single).or_else(|| extract_multi(carrier))
}

/// Writes the header `b3`. Replaces an existing value.
pub fn inject<I: Injector + ?Sized>(span: &SpanContext, debug: bool, carrier: &mut I) {
    let state = match Sampling::of(span, debug) {
        Sampling::Debug => "-d",
        Sampling::Accepted => "-1",
        Sampling::Denied => "-0",
        Sampling::Deferred => "",
    };
    let value = format!("{}-{}{state}", span.trace_id(), span.span_id());
    carrier.set(&B3, HeaderValue::try_from(value).expect("hexadecimal digits and dashes"));
}

/// Writes the `X-B3-*` headers. Replaces existing values.
///
/// # Examples
/// ```
/// use http::HeaderMap;
/// use throughline_core::propagation::b3;
/// use throughline_core::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
///
/// let span = SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, false);
/// let mut headers = HeaderMap::new();
/// b3::inject_multi(&span, false, &mut headers);
/// assert_eq!((&headers["x-b3-sampled"], headers.len()), (&"1".parse()?, 3));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn inject_multi<I: Injector + ?Sized>(span: &SpanContext, debug: bool, carrier: &mut I) {
    let hex = |digits: &[u8]| HeaderValue::from_bytes(digits).expect("hexadecimal digits");
    carrier.set(&TRACE_ID, hex(&span.trace_id().to_hex()));
    carrier.set(&SPAN_ID, hex(&span.span_id().to_hex()));
    carrier.remove(&PARENT_SPAN_ID);
    // Debug implies the decision, so `X-B3-Sampled` is not sent with it.
    let (state, flags) = match Sampling::of(span, debug) {
        Sampling::Debug => (None, Some("1")),
        Sampling::Accepted => (Some("1"), None),
        Sampling::Denied => (Some("0"), None),
        Sampling::Deferred => (None, None),
    };
    for (name, value) in [(&SAMPLED, state), (&FLAGS, flags)] {
        match value {
            Some(value) => carrier.set(name, HeaderValue::from_static(value)),
            None => carrier.remove(name),
        }
    }
}

/// `{trace id}-{span id}[-{state}[-{parent's span id}]]`, or the state alone.
fn parse_single(line: &[u8]) -> Option<Received> {
    let mut fields = line.split(|byte| *byte == b'-');
    let first = fields.next()?;
    let Some(second) = fields.next() else {
        return Some(Received { span: None, sampling: parse_state(first)? });
    };
    let sampling = fields.next().map_or(Some(Sampling::Deferred), parse_state)?;
    let is_parent = fields.next().is_none_or(|parent| SpanId::from_hex(parent).is_some());
    if !is_parent || fields.next().is_some() {
        return None;
    }
    Some(Received { span: Some(span(first, second, sampling)?), sampling })
}

fn parse_state(field: &[u8]) -> Option<Sampling> {
    match field {
        b"0" => Some(Sampling::Denied),
        b"1" => Some(Sampling::Accepted),
        b"d" => Some(Sampling::Debug),
        _ => None,
    }
}

fn extract_multi<E: Extractor + ?Sized>(carrier: &E) -> Option<Received> {
    let has = |name| carrier.get_all(name).next().is_some();
    let decision = match once(carrier, &SAMPLED) {
        Some(b"1" | b"true") => Sampling::Accepted,
        Some(b"0" | b"false") => Sampling::Denied,
        None if !has(&SAMPLED) => Sampling::Deferred,
        _ => {
            carrier.record_dropped(&SAMPLED, 1);
            return None;
        }
    };
    // "Sampling State": `1` means debug; ignore any other value.
    let sampling = if once(carrier, &FLAGS) == Some(b"1") { Sampling::Debug } else { decision };
    if has(&TRACE_ID) || has(&SPAN_ID) {
        let is_parent = !has(&PARENT_SPAN_ID) || once(carrier, &PARENT_SPAN_ID).and_then(SpanId::from_hex).is_some();
        let ids = once(carrier, &TRACE_ID).zip(once(carrier, &SPAN_ID)).filter(|_| is_parent);
        let span = ids.and_then(|(trace_id, span_id)| span(trace_id, span_id, sampling));
        if span.is_none() {
            carrier.record_dropped(&TRACE_ID, 1);
        }
        Some(Received { span: Some(span?), sampling })
    } else {
        (sampling != Sampling::Deferred).then_some(Received { span: None, sampling })
    }
}

fn span(trace_id: &[u8], span_id: &[u8], sampling: Sampling) -> Option<SpanContext> {
    // B3 allows these two lengths only. Jaeger allows shorter ids.
    let trace_id = if let 16 | 32 = trace_id.len() { padded_trace_id(trace_id)? } else { return None };
    let flags = TraceFlags::NONE.with_sampled(sampling.is_sampled());
    let span = SpanContext::new(trace_id, SpanId::from_hex(span_id)?, flags, TraceState::EMPTY, true);
    Some(if sampling == Sampling::Deferred { span.into_undecided() } else { span })
}
