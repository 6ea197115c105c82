//! Parsing helpers that several formats share.

use http::header::HeaderName;

use crate::{Extractor, TraceId};

/// Parses a header that occurs exactly once, with the blanks around its value removed.
///
/// Reports a drop to the carrier if the header occurs more than once or `parse` returns `None`.
pub(super) fn parsed<'a, E: Extractor + ?Sized, T>(
    carrier: &'a E,
    name: &HeaderName,
    parse: impl FnOnce(&'a [u8]) -> Option<T>,
) -> Option<T> {
    carrier.get_all(name).next()?;
    let value = once(carrier, name).and_then(parse);
    if value.is_none() {
        carrier.record_dropped(name, 1);
    }
    value
}

/// Returns the value of a header that occurs exactly once, without the blanks around it.
pub(super) fn once<'a, E: Extractor + ?Sized>(carrier: &'a E, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = carrier.get_all(name);
    match (lines.next(), lines.next()) {
        (Some(line), None) => Some(line.trim_ascii()),
        _ => None,
    }
}

/// Parses a trace id of 1 to 32 digits, padded with zeros on the left.
pub(super) fn padded_trace_id(digits: &[u8]) -> Option<TraceId> {
    TraceId::from_hex(&pad::<32>(digits)?)
}

/// Pads digits with zeros on the left.
///
/// `None` for no digits, or more than `N`.
pub(super) fn pad<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut padded = [b'0'; N];
    let start = N.checked_sub(digits.len()).filter(|start| *start < N)?;
    padded[start..].copy_from_slice(digits);
    Some(padded)
}
