//! Jaeger: the header `uber-trace-id` (Jaeger, "Client Libraries: Propagation Format").
//!
//! Jaeger's baggage (`uberctx-*`) is neither read nor written.

use std::borrow::Cow;

use http::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode;

use super::field::{pad, padded_trace_id, parsed};
use crate::{Extractor, Injector, SpanContext, SpanId, TraceFlags, TraceState};

/// `uber-trace-id`.
pub static UBER_TRACE_ID: HeaderName = HeaderName::from_static("uber-trace-id");

/// A longer header is dropped before it is decoded.
const MAX_BYTES: usize = 8_192;

/// The flags of the header.
const SAMPLED: u8 = 1;
const DEBUG: u8 = 2;

/// The extracted data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The caller's span, remote.
    pub span: SpanContext,
    /// Whether every downstream service records the trace too.
    pub debug: bool,
}

/// Extracts the caller's span: `{trace id}:{span id}:{parent span id}:{flags}`.
///
/// - A colon may be encoded as `%3A`.
/// - Ids are lower-case hexadecimal. Leading zeros may be missing.
/// - The parent span id may have any value and is ignored.
///
/// # Examples
/// ```
/// use http::HeaderMap;
/// use throughline_core::propagation::jaeger;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("uber-trace-id", "abc:17:0:1".parse()?);
/// let span = jaeger::extract(&headers).expect("the header is valid").span;
/// assert_eq!(span.trace_id().to_string(), "00000000000000000000000000000abc");
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn extract<E: Extractor + ?Sized>(carrier: &E) -> Option<Received> {
    parsed(carrier, &UBER_TRACE_ID, parse)
}

/// Writes the header. Replaces an existing value.
///
/// The parent span id is written as `0`. Receivers ignore it.
pub fn inject<I: Injector + ?Sized>(span: &SpanContext, debug: bool, carrier: &mut I) {
    let flags = match (debug, span.is_sampled()) {
        (true, _) => SAMPLED | DEBUG,
        (false, true) => SAMPLED,
        (false, false) => 0,
    };
    let value = format!("{}:{}:0:{flags}", span.trace_id(), span.span_id());
    carrier.set(&UBER_TRACE_ID, HeaderValue::try_from(value).expect("hexadecimal digits and colons"));
}

fn parse(line: &[u8]) -> Option<Received> {
    if line.len() > MAX_BYTES {
        return None;
    }
    let line: Cow<'_, [u8]> = percent_decode(line).into();
    let mut fields = line.split(|byte| *byte == b':');
    let (trace_id, span_id) = (padded_trace_id(fields.next()?)?, SpanId::from_hex(&pad::<16>(fields.next()?)?)?);
    // "parent-span-id": deprecated, and ignored by receivers, so any value is accepted.
    fields.next()?;
    let flags = pad::<2>(fields.next()?)?;
    let flags = std::str::from_utf8(&flags).ok().filter(|digits| !digits.starts_with('+'))?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    if fields.next().is_some() {
        return None;
    }
    let debug = flags & DEBUG != 0;
    let trace_flags = TraceFlags::NONE.with_sampled(debug || flags & SAMPLED != 0);
    Some(Received { span: SpanContext::new(trace_id, span_id, trace_flags, TraceState::EMPTY, true), debug })
}
