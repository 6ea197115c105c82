//! Deadlines on the wire: a remaining time, never an instant, in the header `grpc-timeout` (gRPC over HTTP/2, "Requests").

mod header;

use std::error::Error;
use std::fmt;
use std::time::Duration;

pub use header::{
    CONNECT_TIMEOUT_MS, REQUEST_TIMEOUT, TimeoutHeader, X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, extract_shortest,
    inject_connect,
};
use http::header::{HeaderName, HeaderValue};

use crate::{Extractor, Injector};

/// `grpc-timeout`: also on plain HTTP, since it has a grammar and units below the millisecond.
pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How much of the remaining time a caller keeps for the way of the response.
///
/// A caller and a callee with the same deadline race: the caller hangs up while the callee is sending the reason. So the callee gets
/// less: the caller's remaining time, less the reserve. The reserve is `percent` of the remaining time, at least `min` and at most
/// `max`, and never more than half of the remaining time.
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
    /// The least, of a remaining time that is at least twice as long.
    pub min: Duration,
    /// Of the remaining time, in hundredths; more than 50 is 50.
    pub percent: u8,
    /// The most. A `min` that is larger is cut to it.
    pub max: Duration,
}

impl ReplyReserve {
    /// 5 ms or 1 %, whichever is more, and at most 50 ms.
    pub const DEFAULT: ReplyReserve =
        ReplyReserve { min: Duration::from_millis(5), percent: 1, max: Duration::from_millis(50) };
    /// Nothing is kept back.
    pub const NONE: ReplyReserve = ReplyReserve { min: Duration::ZERO, percent: 0, max: Duration::ZERO };

    /// The part of `remaining` that is kept back.
    pub fn of(&self, remaining: Duration) -> Duration {
        // First divided: it can't overflow, and 100 ns do not matter.
        let share = (remaining / 100) * u32::from(self.percent.min(50));
        share.max(self.min).min(self.max).min(remaining / 2)
    }
}

impl Default for ReplyReserve {
    fn default() -> Self {
        ReplyReserve::DEFAULT
    }
}

/// The time that the caller grants, or `None`: no header, or none that is valid. Zero: its deadline has passed.
///
/// The least of several. The grammar is that of [`parse_grpc_timeout`].
///
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

/// [`extract`], of a header with another name and the same grammar.
pub fn extract_from<E: Extractor + ?Sized>(name: &HeaderName, carrier: &E) -> Option<Duration> {
    least(name, carrier, |line| parse_grpc_timeout(line).ok_or(()).map(Some))
}

/// The least of what the lines of `name` grant; the carrier is told of those that are no timeout.
fn least<E: Extractor + ?Sized>(
    name: &HeaderName,
    carrier: &E,
    parse: impl Fn(&[u8]) -> Result<Option<Duration>, ()>,
) -> Option<Duration> {
    let mut least: Option<Duration> = None;
    for line in carrier.get_all(name) {
        match parse(line) {
            Ok(Some(timeout)) => least = Some(least.map_or(timeout, |least| least.min(timeout))),
            Ok(None) => {}
            // Whatever its name, it is a deadline.
            Err(()) => carrier.record_dropped(&GRPC_TIMEOUT, 1),
        }
    }
    least
}

/// Writes what is left of `remaining` for the callee, in place of whatever was there.
///
/// # Errors
/// Nothing is left that could be expressed: the request is not worth sending. The header is then removed.
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

/// [`inject`] under another name, in the same grammar: for plain HTTP where `grpc-timeout` can't be had.
///
/// # Errors
/// As of `inject`.
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

/// A `grpc-timeout`: 1 to 8 digits and one of `H M S m u n`. Anything else, also a sign or a blank, is `None`.
///
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

/// A `grpc-timeout` as text, in the smallest unit that takes 8 digits at most, rounded down.
///
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
    /// Of `timeout`; `None` for zero, which would be no time at all. Longer than 99,999,999 hours is as long as that.
    pub fn new(timeout: Duration) -> Option<Self> {
        const UNITS: [(u128, u8); 6] = [
            (1, b'n'),
            (1_000, b'u'),
            (1_000_000, b'm'),
            (1_000_000_000, b'S'),
            (60_000_000_000, b'M'),
            (3_600_000_000_000, b'H'),
        ];
        const MOST: u128 = 99_999_999;
        let nanos = timeout.as_nanos();
        let (per, letter) = UNITS.into_iter().find(|(per, _)| nanos / per <= MOST).unwrap_or(UNITS[5]);
        let mut count = (nanos / per).min(MOST) as u32;
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

    /// The digits and the unit.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[self.start..]).expect("digits and a letter")
    }
}

impl fmt::Debug for GrpcTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no time left to send: a request would be dead on arrival.
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
