//! AWS X-Ray: the header `X-Amzn-Trace-Id` (AWS X-Ray Developer Guide, "Tracing header").

use http::header::{HeaderName, HeaderValue};

use super::field::parsed;
use crate::{Extractor, Injector, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// `X-Amzn-Trace-Id`.
pub static X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// Extracts the caller's span, remote.
///
/// - `Root`, `Parent` and `Sampled` may be in any order. Other fields are ignored.
/// - Without `Root` or `Parent` the result is `None`. A load balancer sends such headers.
/// - Without `Sampled`, or with `Sampled=?`, the span is not sampled.
///
/// # Examples
/// ```
/// use http::HeaderMap;
/// use throughline_core::propagation::xray;
///
/// let mut headers = HeaderMap::new();
/// let line = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
/// headers.insert("X-Amzn-Trace-Id", line.parse()?);
/// let span = xray::extract(&headers).expect("the header is valid");
/// assert_eq!(span.trace_id().to_string(), "5759e988bd862e3fe1be46a994272793");
/// assert!(span.is_sampled());
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn extract<E: Extractor + ?Sized>(carrier: &E) -> Option<SpanContext> {
    parsed(carrier, &X_AMZN_TRACE_ID, parse)?
}

/// Writes the header. Replaces an existing value.
///
/// In X-Ray's own trace ids, the first 8 digits are the start time of the trace, in seconds. Here,
/// as in W3C trace ids, they are random.
pub fn inject<I: Injector + ?Sized>(span: &SpanContext, carrier: &mut I) {
    let trace_id = span.trace_id().to_string();
    let (epoch, unique) = trace_id.split_at(8);
    let sampled = u8::from(span.is_sampled());
    let value = format!("Root=1-{epoch}-{unique};Parent={};Sampled={sampled}", span.span_id());
    carrier.set(&X_AMZN_TRACE_ID, HeaderValue::try_from(value).expect("letters, digits and ASCII punctuation"));
}

/// Parses the header. `Some(None)`: the header is valid but has no span.
fn parse(line: &[u8]) -> Option<Option<SpanContext>> {
    let (mut root, mut parent, mut flags) = (None, None, TraceFlags::NONE);
    for field in line.split(|byte| *byte == b';') {
        let field = field.trim_ascii();
        if let Some(value) = field.strip_prefix(b"Root=") {
            root = Some(parse_root(value)?);
        } else if let Some(value) = field.strip_prefix(b"Parent=") {
            parent = Some(SpanId::from_hex(value)?);
        } else if let Some(value) = field.strip_prefix(b"Sampled=") {
            let sampled = matches!(value, b"0" | b"1" | b"?").then_some(value == b"1")?;
            flags = TraceFlags::NONE.with_sampled(sampled);
        }
    }
    let span = |(root, parent)| SpanContext::new(root, parent, flags, TraceState::EMPTY, true);
    Some(root.zip(parent).map(span))
}

/// Parses a trace id in the form `1-{8 digits}-{24 digits}`.
fn parse_root(root: &[u8]) -> Option<TraceId> {
    let root: &[u8; 35] = root.try_into().ok()?;
    if (&root[..2], root[10]) != (b"1-", b'-') {
        return None;
    }
    let mut digits = [0; 32];
    digits[..8].copy_from_slice(&root[2..10]);
    digits[8..].copy_from_slice(&root[11..]);
    TraceId::from_hex(&digits)
}
