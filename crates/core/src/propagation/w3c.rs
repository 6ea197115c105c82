//! W3C Trace Context, Level 2: the headers `traceparent` and `tracestate`.

use http::header::{HeaderName, HeaderValue};

use crate::trace::hex::Decoder;
use crate::{Extractor, Injector, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// `traceparent` (§3.2).
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate` (§3.3).
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of a version 00 `traceparent`, and the minimum length of later versions.
const LENGTH: usize = 55;

/// Extracts the identity of the caller's span, remote; `None` if there is no valid one.
///
/// The rules:
/// - `traceparent` must occur exactly once.
/// - It must be `00-<32 lower-case hex>-<16>-<2>`, with ids that are not zero. Blanks around it are
///   allowed.
/// - Of a higher version, the part that version 00 defines is read (§4.3.1). Version `ff` is
///   invalid (§3.2.2.1).
/// - A `tracestate` that is invalid, or larger than 8,192 bytes or 32 members, is dropped. The
///   `traceparent` is kept (§3.3.1.1).
///
/// Without a `tracestate`, nothing is allocated.
///
/// # Examples
/// ```
/// use http::HeaderMap;
/// use throughline_core::propagation::w3c;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?);
/// let parent = w3c::extract(&headers).expect("the header is valid");
/// assert!(parent.is_sampled() && parent.is_remote());
///
/// headers.insert("traceparent", "00-4BF92F35".parse()?);
/// assert_eq!(w3c::extract(&headers), None);
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn extract<E: Extractor + ?Sized>(carrier: &E) -> Option<SpanContext> {
    let mut lines = carrier.get_all(&TRACEPARENT);
    let line = lines.next()?;
    // §3.2: a header that is sent twice is invalid.
    let is_alone = lines.next().is_none();
    let Some((trace_id, span_id, flags)) = parse_traceparent(line).filter(|_| is_alone) else {
        carrier.record_dropped(&TRACEPARENT, 1);
        return None;
    };
    Some(SpanContext::new(trace_id, span_id, flags, extract_tracestate(carrier), true))
}

/// Writes the identity of `span`, the span of an outgoing request. Replaces existing values.
///
/// A span that is not sampled is written too: the callee's spans belong to the same trace.
///
/// # Examples
/// ```
/// use http::HeaderMap;
/// use throughline_core::propagation::w3c;
/// use throughline_core::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
///
/// let span = SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, false);
/// let mut headers = HeaderMap::new();
/// w3c::inject(&span, &mut headers);
/// assert_eq!(w3c::extract(&headers).map(|parent| parent.span_id()), Some(span.span_id()));
/// ```
pub fn inject<I: Injector + ?Sized>(span: &SpanContext, carrier: &mut I) {
    let traceparent = HeaderValue::from_bytes(&format_traceparent(span)).expect("hexadecimal digits and dashes");
    carrier.set(&TRACEPARENT, traceparent);
    match HeaderValue::from_str(span.trace_state().as_str()) {
        Ok(state) if !state.is_empty() => carrier.set(&TRACESTATE, state),
        _ => carrier.remove(&TRACESTATE),
    }
}

/// Parses a `traceparent`; `None` if it breaks the grammar of §3.2.2.
///
/// # Examples
/// ```
/// use throughline_core::propagation::w3c::parse_traceparent;
///
/// assert!(parse_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").is_some());
/// assert!(parse_traceparent(b"00-00000000000000000000000000000000-00f067aa0ba902b7-00").is_none());
/// ```
pub fn parse_traceparent(line: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    // With this length there are no blanks to trim: a line with blanks would be too short.
    let line = if line.len() == LENGTH { line } else { line.trim_ascii() };
    let (fields, rest) = line.split_first_chunk::<LENGTH>()?;
    let digits = |at: usize| -> [u8; 16] { std::array::from_fn(|i| fields[at + i]) };
    let mut decoder = Decoder::new();
    let trace_id = TraceId::from_u64s(decoder.decode_u64(digits(3)), decoder.decode_u64(digits(19)));
    let span_id = SpanId::from_u64(decoder.decode_u64(digits(36)));
    let others = decoder.decode([b'0', b'0', b'0', b'0', fields[0], fields[1], fields[53], fields[54]]);
    let [_, _, version, flags] = others.to_be_bytes();
    let has_dashes = (fields[2] ^ b'-') | (fields[35] ^ b'-') | (fields[52] ^ b'-') == 0;
    // §3.2.2.1: `ff` is invalid. §3.2.2.2: version 00 ends here. §4.3.1: additions of later
    // versions follow a dash.
    let ends_well = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.first().is_none_or(|byte| *byte == b'-'),
    };
    if !decoder.is_good() || !has_dashes || !ends_well {
        return None;
    }
    Some((trace_id?, span_id?, TraceFlags::from_byte(flags)))
}

/// Formats a span as a version 00 `traceparent`, in ASCII.
///
/// # Examples
/// ```
/// use throughline_core::propagation::w3c::{format_traceparent, parse_traceparent};
/// use throughline_core::{SpanContext, TraceState};
///
/// let line = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let (trace_id, span_id, flags) = parse_traceparent(line).expect("the header is valid");
/// let span = SpanContext::new(trace_id, span_id, flags, TraceState::EMPTY, true);
/// assert_eq!(&format_traceparent(&span), line);
/// ```
pub fn format_traceparent(span: &SpanContext) -> [u8; LENGTH] {
    let mut line = [b'-'; LENGTH];
    line[..2].copy_from_slice(b"00");
    line[3..35].copy_from_slice(&span.trace_id().to_hex());
    line[36..52].copy_from_slice(&span.span_id().to_hex());
    // §3.2.2.4: undefined bits are sent as zero, so the high digit is `0`.
    line[53] = b'0';
    line[54] = b'0' + (span.flags().to_byte() & 3);
    line
}

/// Extracts `tracestate`. An invalid part drops the whole list (§3.3.1.1).
fn extract_tracestate<E: Extractor + ?Sized>(carrier: &E) -> TraceState {
    let mut lines = carrier.get_all(&TRACESTATE);
    let state = match (lines.next(), lines.next()) {
        (None, _) => return TraceState::EMPTY,
        (Some(line), None) => TraceState::from_lines([line]),
        (Some(_), Some(_)) => TraceState::combined(|| carrier.get_all(&TRACESTATE)),
    };
    state.unwrap_or_else(|_| {
        carrier.record_dropped(&TRACESTATE, 1);
        TraceState::EMPTY
    })
}
