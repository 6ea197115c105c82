//! Times in the headers of messages: when a message was sent, and when it expires.
//!
//! A request carries its remaining time. A message may wait in a queue, where a remaining time
//! would not shrink. So a message carries two points in time instead: `creation-time` and
//! `absolute-expiry-time` of AMQP 1.0 (§3.2.4). Both are milliseconds since 1970, in decimal
//! digits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HeaderName, HeaderValue};

use super::deadline::Expired;
use super::field::parsed;
use crate::{Extractor, Injector};

/// `creation-time`: when the message was sent.
pub static CREATION_TIME: HeaderName = HeaderName::from_static("creation-time");
/// `absolute-expiry-time`: when the message expires.
pub static ABSOLUTE_EXPIRY_TIME: HeaderName = HeaderName::from_static("absolute-expiry-time");

/// When a message was sent and when it expires, by its sender's clock.
///
/// # Examples
/// ```
/// use std::collections::HashMap;
/// use std::time::{Duration, SystemTime};
/// use throughline_core::propagation::message;
///
/// let sent = SystemTime::now();
/// let mut headers: HashMap<String, String> = HashMap::new();
/// message::inject(sent, Some(Duration::from_secs(60)), &mut headers)?;
///
/// let received = sent + Duration::from_secs(20);
/// let left = message::extract(&headers).remaining(received).expect("the message has an expiry time");
/// assert_eq!(left.as_secs_f64().round(), 40.0);
/// # Ok::<(), throughline_core::propagation::deadline::Expired>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageTimes {
    /// When the message was sent; `None` if unknown.
    pub sent_at: Option<SystemTime>,
    /// When the message expires; `None` if it does not expire.
    pub expires_at: Option<SystemTime>,
}

impl MessageTimes {
    /// Returns the time left at `now`, zero if the message has expired.
    ///
    /// Returns `None` if the message does not expire.
    ///
    /// The clocks of sender and receiver may differ:
    /// - If the receiver's clock is behind, the time left is capped at the sender's remaining time.
    /// - If the receiver's clock is ahead, the time left is too short by the difference.
    pub fn remaining(&self, now: SystemTime) -> Option<Duration> {
        let until = |from| self.expires_at.map(|at: SystemTime| at.duration_since(from).unwrap_or_default());
        match self.sent_at {
            Some(sent_at) => until(now).min(until(sent_at)),
            None => until(now),
        }
    }

    /// Returns the time since the message was sent.
    ///
    /// Returns zero if the receiver's clock is behind the sender's, or if `sent_at` is `None`.
    pub fn age(&self, now: SystemTime) -> Duration {
        self.sent_at.and_then(|at| now.duration_since(at).ok()).unwrap_or_default()
    }
}

/// Extracts the times of a message.
///
/// A header that is not 1 to 16 digits, or that occurs twice, is dropped.
pub fn extract<E: Extractor + ?Sized>(carrier: &E) -> MessageTimes {
    MessageTimes {
        sent_at: extract_time(carrier, &CREATION_TIME),
        expires_at: extract_time(carrier, &ABSOLUTE_EXPIRY_TIME),
    }
}

/// Writes `now` as `creation-time` and `now + remaining` as `absolute-expiry-time`.
///
/// Both are rounded down to milliseconds, and replace existing values. If `remaining` is `None`,
/// `absolute-expiry-time` is removed.
///
/// # Errors
/// Returns [`Expired`] if less than a millisecond remains: the message is not worth sending. Both
/// headers are then removed.
pub fn inject<I: Injector + ?Sized>(
    now: SystemTime,
    remaining: Option<Duration>,
    carrier: &mut I,
) -> Result<(), Expired> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let expiry = remaining.map(|remaining| millis(now.saturating_add(remaining)));
    if expiry.is_some_and(|at| at <= millis(now)) {
        carrier.remove(&CREATION_TIME);
        carrier.remove(&ABSOLUTE_EXPIRY_TIME);
        return Err(Expired::NOW);
    }
    carrier.set(&CREATION_TIME, HeaderValue::from(millis(now)));
    match expiry {
        Some(at) => carrier.set(&ABSOLUTE_EXPIRY_TIME, HeaderValue::from(at)),
        None => carrier.remove(&ABSOLUTE_EXPIRY_TIME),
    }
    Ok(())
}

/// The largest number of 16 digits: 300,000 years.
const MAX_MILLIS: u64 = 9_999_999_999_999_999;

fn millis(since_1970: Duration) -> u64 {
    since_1970.as_millis().min(u128::from(MAX_MILLIS)) as u64
}

fn extract_time<E: Extractor + ?Sized>(carrier: &E, name: &'static HeaderName) -> Option<SystemTime> {
    parsed(carrier, name, parse)
}

fn parse(digits: &[u8]) -> Option<SystemTime> {
    if !(1..=16).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let ms = digits.iter().fold(0, |ms: u64, digit| ms * 10 + u64::from(digit - b'0'));
    UNIX_EPOCH.checked_add(Duration::from_millis(ms))
}
