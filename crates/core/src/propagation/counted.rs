//! Counts of the input that was dropped.

use std::cell::Cell;

use http::header::{HeaderName, HeaderValue};

use super::{b3, baggage, deadline, jaeger, message, w3c, xray};
use crate::Extractor;

/// Counts of the input that was dropped: malformed, or beyond a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// Malformed headers of the caller's span or its sampling decision (`traceparent`, `b3`, …).
    pub spans: u64,
    /// Invalid `tracestate` lists.
    pub trace_states: u64,
    /// Members of the baggage.
    ///
    /// They were malformed, beyond its limits, or not decodable by the key that reads them.
    pub baggage_members: u64,
    /// Malformed lines of deadline headers, and malformed times of messages.
    pub deadlines: u64,
    /// Values of keys with a header of their own that could not be decoded.
    pub values: u64,
}

impl Dropped {
    fn add(&mut self, name: &HeaderName, count: usize) {
        let is = |names: &[&HeaderName]| names.contains(&name);
        let field = if is(&[
            &w3c::TRACEPARENT,
            &b3::B3,
            &b3::TRACE_ID,
            &b3::SAMPLED,
            &jaeger::UBER_TRACE_ID,
            &xray::X_AMZN_TRACE_ID,
        ]) {
            &mut self.spans
        } else if is(&[&w3c::TRACESTATE]) {
            &mut self.trace_states
        } else if is(&[&baggage::BAGGAGE]) {
            &mut self.baggage_members
        } else if is(&[&deadline::GRPC_TIMEOUT, &message::CREATION_TIME, &message::ABSOLUTE_EXPIRY_TIME]) {
            &mut self.deadlines
        } else {
            &mut self.values
        };
        *field = field.saturating_add(count as u64);
    }
}

/// A carrier that counts the input dropped from it.
///
/// Counting costs nothing as long as nothing is dropped.
///
/// # Examples
/// ```
/// use http::HeaderMap;
/// use throughline_core::propagation::Counted;
/// use throughline_core::{Context, Propagator};
///
/// let mut headers = HeaderMap::new();
/// headers.insert("traceparent", "00-0-0-0".parse()?);
/// let carrier = Counted::new(&headers);
/// let ctx = Propagator::default().extract(&Context::background(), &carrier);
/// assert!(ctx.span_context().is_none());
/// assert_eq!(carrier.dropped().spans, 1);
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Debug)]
pub struct Counted<'a, E: ?Sized> {
    carrier: &'a E,
    dropped: Cell<Dropped>,
}

impl<'a, E: Extractor + ?Sized> Counted<'a, E> {
    /// Wraps `carrier` with all counts at zero.
    pub fn new(carrier: &'a E) -> Self {
        Counted { carrier, dropped: Cell::default() }
    }

    /// Returns the counts so far. Input that is extracted twice is counted twice.
    pub fn dropped(&self) -> Dropped {
        self.dropped.get()
    }
}

impl<E: Extractor + ?Sized> Extractor for Counted<'_, E> {
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.carrier.get_all(name)
    }

    fn header_value(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.carrier.header_value(name)
    }

    #[cold]
    fn record_dropped(&self, name: &HeaderName, count: usize) {
        let mut dropped = self.dropped.get();
        dropped.add(name, count);
        self.dropped.set(dropped);
        self.carrier.record_dropped(name, count);
    }
}
