//! Deadlines on the wire, as a remaining time in the header `grpc-timeout`.
//!
//! The header carries a duration, never a point in time, so the clocks of caller and callee may
//! differ (gRPC over HTTP/2, "Requests").

mod header;

use std::error::Error;
use std::fmt;
use std::time::Duration;

pub use header::{
    CONNECT_TIMEOUT_MS, REQUEST_TIMEOUT, TimeoutHeader, X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, extract_millis_from,
    extract_shortest, inject_connect, inject_millis_as,
};
use http::header::{HeaderName, HeaderValue};

use crate::{Extractor, Injector};

/// `grpc-timeout`.
///
/// Plain HTTP uses it too: its grammar is specified, and its units go below the millisecond.
pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The part of the remaining time that a caller keeps for the response.
///
/// If caller and callee had the same deadline, they would race: the caller would give up while the
/// callee is still sending its error. So the callee gets the caller's remaining time minus the
/// reserve.
///
/// The reserve is `percent` of the remaining time, at least `min` and at most `max`, and never more
/// than half of the remaining time.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline_core::propagation::deadline::ReplyReserve;
///
/// let ms = Duration::from_millis;
/// assert_eq!(ReplyReserve::DEFAULT.of(ms(60_000)), ms(50));
/// assert_eq!(ReplyReserve::DEFAULT.of(ms(1000)), ms(10));
/// assert_eq!(ReplyReserve::DEFAULT.of(ms(40)), ms(5));
/// assert_eq!(ReplyReserve::DEFAULT.of(ms(6)), ms(3));
/// assert_eq!(ReplyReserve::NONE.of(ms(1000)), ms(0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyReserve {
    /// The minimum, for a remaining time of at least twice this value.
    pub min: Duration,
    /// Percent of the remaining time; values above 50 count as 50.
    pub percent: u8,
    /// The maximum. A larger `min` is reduced to it.
    pub max: Duration,
}

impl ReplyReserve {
    /// 1 % of the remaining time, at least 5 ms and at most 50 ms.
    pub const DEFAULT: ReplyReserve =
        ReplyReserve { min: Duration::from_millis(5), percent: 1, max: Duration::from_millis(50) };
    /// No reserve: the callee gets the whole remaining time.
    pub const NONE: ReplyReserve = ReplyReserve { min: Duration::ZERO, percent: 0, max: Duration::ZERO };

    /// Returns the part of `remaining` that is kept back.
    pub fn of(&self, remaining: Duration) -> Duration {
        // Divide first, so that it cannot overflow. The rounding error is below 100 ns.
        let share = (remaining / 100) * u32::from(self.percent.min(50));
        share.max(self.min).min(self.max).min(remaining / 2)
    }
}

impl Default for ReplyReserve {
    fn default() -> Self {
        ReplyReserve::DEFAULT
    }
}

/// Extracts the caller's remaining time; zero if its deadline has passed.
///
/// Returns `None` if there is no valid header. If there are several, the shortest time counts.
/// [`parse_grpc_timeout`] describes the grammar.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use http::HeaderMap;
/// use throughline_core::propagation::deadline;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("grpc-timeout", "250m".parse()?);
/// assert_eq!(deadline::extract(&headers), Some(Duration::from_millis(250)));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn extract<E: Extractor + ?Sized>(carrier: &E) -> Option<Duration> {
    extract_from(&GRPC_TIMEOUT, carrier)
}

/// Like [`extract`], from a header with another name and the same grammar.
pub fn extract_from<E: Extractor + ?Sized>(name: &HeaderName, carrier: &E) -> Option<Duration> {
    shortest(name, carrier, |line| parse_grpc_timeout(line).ok_or(()).map(Some))
}

/// Returns the shortest timeout of the lines of `name`. Reports malformed lines to the carrier.
fn shortest<E: Extractor + ?Sized>(
    name: &HeaderName,
    carrier: &E,
    parse: impl Fn(&[u8]) -> Result<Option<Duration>, ()>,
) -> Option<Duration> {
    let mut shortest: Option<Duration> = None;
    for line in carrier.get_all(name) {
        match parse(line) {
            Ok(Some(timeout)) => shortest = Some(shortest.map_or(timeout, |it| it.min(timeout))),
            Ok(None) => {}
            // All deadline headers are counted under one name.
            Err(()) => carrier.record_dropped(&GRPC_TIMEOUT, 1),
        }
    }
    shortest
}

/// Writes `remaining` minus the reserve as the timeout for the callee. Replaces existing values.
///
/// # Errors
/// Returns [`Expired`] if no time is left that the header can express: the request is not worth
/// sending. The header is then removed.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use http::HeaderMap;
/// use throughline_core::propagation::deadline::{self, ReplyReserve};
///
/// let mut headers = HeaderMap::new();
/// deadline::inject(Duration::from_secs(1), &ReplyReserve::DEFAULT, &mut headers)?;
/// assert_eq!(headers["grpc-timeout"], "990000u");
/// assert!(deadline::inject(Duration::ZERO, &ReplyReserve::DEFAULT, &mut headers).is_err());
/// # Ok::<(), deadline::Expired>(())
/// ```
pub fn inject<I: Injector + ?Sized>(
    remaining: Duration,
    reserve: &ReplyReserve,
    carrier: &mut I,
) -> Result<(), Expired> {
    inject_as(&GRPC_TIMEOUT, remaining, reserve, carrier)
}

/// Like [`inject`], in a header with another name and the same grammar.
///
/// Use it for plain HTTP where `grpc-timeout` cannot be used.
///
/// # Errors
/// The same as for `inject`.
pub fn inject_as<I: Injector + ?Sized>(
    name: &HeaderName,
    remaining: Duration,
    reserve: &ReplyReserve,
    carrier: &mut I,
) -> Result<(), Expired> {
    match GrpcTimeout::new(remaining.saturating_sub(reserve.of(remaining))) {
        Some(timeout) => {
            let value = HeaderValue::from_str(timeout.as_str()).expect("digits and a letter");
            carrier.set(name, value);
            Ok(())
        }
        None => {
            carrier.remove(name);
            Err(Expired::NOW)
        }
    }
}

/// Parses a `grpc-timeout`.
///
/// It has 1 to 8 digits and one of the units `H M S m u n`.
///
/// Returns `None` for anything else, including a sign or a blank.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline_core::propagation::deadline::parse_grpc_timeout;
///
/// assert_eq!(parse_grpc_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
/// assert_eq!(parse_grpc_timeout(b"0n"), Some(Duration::ZERO));
/// assert_eq!(parse_grpc_timeout(b"100000000n"), None);
/// ```
pub fn parse_grpc_timeout(line: &[u8]) -> Option<Duration> {
    let (unit, digits) = line.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count: u64, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A `grpc-timeout` as text.
///
/// It uses the smallest unit that needs at most 8 digits, rounded down.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline_core::propagation::deadline::GrpcTimeout;
///
/// let text = |timeout| GrpcTimeout::new(timeout).map(|timeout| timeout.as_str().to_owned());
/// assert_eq!(text(Duration::from_nanos(99_999_999)).as_deref(), Some("99999999n"));
/// assert_eq!(text(Duration::from_nanos(100_000_999)).as_deref(), Some("100000u"));
/// assert_eq!(text(Duration::ZERO), None);
/// ```
#[derive(Clone, Copy)]
pub struct GrpcTimeout {
    text: [u8; 9],
    start: usize,
}

impl GrpcTimeout {
    /// Formats `timeout`; `None` if it is zero.
    ///
    /// A timeout longer than 99,999,999 hours becomes 99,999,999 hours.
    pub fn new(timeout: Duration) -> Option<Self> {
        const UNITS: [(u128, u8); 6] = [
            (1, b'n'),
            (1_000, b'u'),
            (1_000_000, b'm'),
            (1_000_000_000, b'S'),
            (60_000_000_000, b'M'),
            (3_600_000_000_000, b'H'),
        ];
        const MAX: u128 = 99_999_999;
        let nanos = timeout.as_nanos();
        let (per, letter) = UNITS.into_iter().find(|(per, _)| nanos / per <= MAX).unwrap_or(UNITS[5]);
        let mut count = (nanos / per).min(MAX) as u32;
        if count == 0 {
            return None;
        }
        let (mut text, mut start) = ([letter; 9], 8);
        while count > 0 {
            start -= 1;
            text[start] = b'0' + (count % 10) as u8;
            count /= 10;
        }
        Some(GrpcTimeout { text, start })
    }

    /// Returns the digits and the unit.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[self.start..]).expect("digits and a letter")
    }
}

impl fmt::Debug for GrpcTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error when no time is left to send a request.
///
/// Its deadline would pass on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired(());

impl Expired {
    pub(super) const NOW: Self = Expired(());
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no time is left to send the request")
    }
}

impl Error for Expired {}
