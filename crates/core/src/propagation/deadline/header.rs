//! The other headers that carry a remaining time.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use super::{Expired, GRPC_TIMEOUT, ReplyReserve, parse_grpc_timeout, shortest};
use crate::{Extractor, Injector};

/// `connect-timeout-ms` (Connect protocol, "Unary-Request").
pub static CONNECT_TIMEOUT_MS: HeaderName = HeaderName::from_static("connect-timeout-ms");
/// `x-envoy-expected-rq-timeout-ms` (Envoy, "Router").
pub static X_ENVOY_EXPECTED_RQ_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// `request-timeout`.
pub static REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("request-timeout");

/// The most milliseconds that are written: 10 digits, the maximum of `connect-timeout-ms`.
const MAX_MS: u128 = 9_999_999_999;

/// A header that carries the callee's remaining time.
///
/// A service reads `grpc-timeout` by default. It opts into each of the others.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline_core::propagation::deadline::TimeoutHeader;
///
/// assert_eq!(TimeoutHeader::ConnectTimeoutMs.parse(b"250"), Some(Duration::from_millis(250)));
/// assert_eq!(TimeoutHeader::XEnvoyExpectedRqTimeoutMs.parse(b"0"), None);
/// assert_eq!(TimeoutHeader::RequestTimeout.parse(b"2"), Some(Duration::from_secs(2)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutHeader {
    /// `grpc-timeout`, as [`parse_grpc_timeout`] reads it.
    GrpcTimeout,
    /// `connect-timeout-ms`: 1 to 10 digits, milliseconds.
    ConnectTimeoutMs,
    /// `x-envoy-expected-rq-timeout-ms`: 1 to 10 digits, milliseconds. `0` means no timeout.
    XEnvoyExpectedRqTimeoutMs,
    /// `request-timeout`: 1 to 10 digits, seconds.
    RequestTimeout,
}

impl TimeoutHeader {
    /// Returns the name of the header.
    pub fn name(self) -> &'static HeaderName {
        match self {
            TimeoutHeader::GrpcTimeout => &GRPC_TIMEOUT,
            TimeoutHeader::ConnectTimeoutMs => &CONNECT_TIMEOUT_MS,
            TimeoutHeader::XEnvoyExpectedRqTimeoutMs => &X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
            TimeoutHeader::RequestTimeout => &REQUEST_TIMEOUT,
        }
    }

    /// Parses a value of this header; zero if the deadline has passed.
    ///
    /// Returns `None` if the value breaks the grammar or sets no limit.
    pub fn parse(self, line: &[u8]) -> Option<Duration> {
        self.try_parse(line).unwrap_or_default()
    }

    /// Parses a value of this header.
    ///
    /// `Ok(None)`: it sets no limit. `Err`: it breaks the grammar.
    fn try_parse(self, line: &[u8]) -> Result<Option<Duration>, ()> {
        let timeout = match self {
            TimeoutHeader::GrpcTimeout => parse_grpc_timeout(line),
            TimeoutHeader::ConnectTimeoutMs => digits(line).map(Duration::from_millis),
            TimeoutHeader::XEnvoyExpectedRqTimeoutMs => digits(line).map(Duration::from_millis),
            TimeoutHeader::RequestTimeout => digits(line).map(Duration::from_secs),
        };
        let is_limit = |timeout: &Duration| self != TimeoutHeader::XEnvoyExpectedRqTimeoutMs || !timeout.is_zero();
        timeout.map(|timeout| Some(timeout).filter(is_limit)).ok_or(())
    }
}

/// Extracts the shortest timeout of several headers; `None` if none of them has one.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use http::HeaderMap;
/// use throughline_core::propagation::deadline::{self, TimeoutHeader};
///
/// let mut headers = HeaderMap::new();
/// headers.insert("grpc-timeout", "2S".parse()?);
/// headers.insert("connect-timeout-ms", "500".parse()?);
/// let trusted = [TimeoutHeader::GrpcTimeout, TimeoutHeader::ConnectTimeoutMs];
/// assert_eq!(deadline::extract_shortest(&trusted, &headers), Some(Duration::from_millis(500)));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn extract_shortest<E: Extractor + ?Sized>(headers: &[TimeoutHeader], carrier: &E) -> Option<Duration> {
    let timeout = |header: &TimeoutHeader| shortest(header.name(), carrier, |line| header.try_parse(line));
    headers.iter().filter_map(timeout).min()
}

/// Writes `remaining` minus the reserve as `connect-timeout-ms`, rounded down.
///
/// Replaces existing values.
///
/// # Errors
/// The same as for [`inject_millis_as`].
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use http::HeaderMap;
/// use throughline_core::propagation::deadline::{self, ReplyReserve};
///
/// let mut headers = HeaderMap::new();
/// deadline::inject_connect(Duration::from_millis(100), &ReplyReserve::DEFAULT, &mut headers)?;
/// assert_eq!(headers["connect-timeout-ms"], "95");
/// # Ok::<(), deadline::Expired>(())
/// ```
pub fn inject_connect<I: Injector + ?Sized>(
    remaining: Duration,
    reserve: &ReplyReserve,
    carrier: &mut I,
) -> Result<(), Expired> {
    inject_millis_as(&CONNECT_TIMEOUT_MS, remaining, reserve, carrier)
}

/// Writes `remaining` minus the reserve in milliseconds, rounded down, as the header `name`.
///
/// The value has 1 to 10 digits. Replaces existing values.
///
/// # Errors
/// Returns [`Expired`] if less than a millisecond is left: the request is not worth sending. The
/// header is then removed.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use http::{HeaderMap, HeaderName};
/// use throughline_core::propagation::deadline::{self, ReplyReserve};
///
/// let name = HeaderName::from_static("x-timeout-ms");
/// let mut headers = HeaderMap::new();
/// deadline::inject_millis_as(&name, Duration::from_secs(2), &ReplyReserve::DEFAULT, &mut headers)?;
/// assert_eq!(headers["x-timeout-ms"], "1980");
/// # Ok::<(), deadline::Expired>(())
/// ```
pub fn inject_millis_as<I: Injector + ?Sized>(
    name: &HeaderName,
    remaining: Duration,
    reserve: &ReplyReserve,
    carrier: &mut I,
) -> Result<(), Expired> {
    match remaining.saturating_sub(reserve.of(remaining)).as_millis().min(MAX_MS) as u64 {
        0 => {
            carrier.remove(name);
            Err(Expired::NOW)
        }
        ms => {
            carrier.set(name, HeaderValue::from(ms));
            Ok(())
        }
    }
}

/// Extracts the shortest timeout of the header `name`: 1 to 10 digits, milliseconds.
///
/// Zero means that the deadline has passed. Returns `None` if there is no valid value.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use http::{HeaderMap, HeaderName};
/// use throughline_core::propagation::deadline;
///
/// let name = HeaderName::from_static("x-timeout-ms");
/// let mut headers = HeaderMap::new();
/// headers.insert("x-timeout-ms", "250".parse()?);
/// let timeout = deadline::extract_millis_from(&name, &headers);
/// assert_eq!(timeout, Some(Duration::from_millis(250)));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn extract_millis_from<E: Extractor + ?Sized>(name: &HeaderName, carrier: &E) -> Option<Duration> {
    shortest(name, carrier, |line| digits(line).map(|ms| Some(Duration::from_millis(ms))).ok_or(()))
}

/// Parses 1 to 10 digits; `None` for anything else.
fn digits(line: &[u8]) -> Option<u64> {
    let is_valid = (1..=10).contains(&line.len()) && line.iter().all(u8::is_ascii_digit);
    is_valid.then(|| line.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0')))
}
