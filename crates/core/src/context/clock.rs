//! The clock that contexts live by: tokio's, so that virtual time moves their deadlines.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[cfg(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan)))]
pub(super) use super::models::clock::{now, now_and_kind};

/// Now, on the clock of the current runtime; outside of one, on the real clock.
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan))))]
#[inline]
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Now, and whether the current runtime's clock is virtual: paused, or moved by hand at some time.
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan))))]
#[inline]
pub(super) fn now_and_kind() -> (Instant, bool) {
    let real = Instant::now();
    let now = now();
    // A paused clock stands at or before the instant it was paused at, unless it was moved on. Only one that was moved by as much as
    // has really passed, to the microsecond, is taken for a real one; until then it is as good as one.
    let is_real = now.checked_duration_since(real).is_some_and(|late| late < Duration::from_micros(1))
        || (real <= now && now <= Instant::now());
    (now, !is_real)
}

/// `at` as a number that fits an atomic: nanoseconds since long before the process began, never 0. What is out of range is cut off.
pub(super) fn nanos(at: Instant) -> u64 {
    static BASE: OnceLock<Instant> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        let now = Instant::now();
        let days = |days: u64| now.checked_sub(Duration::from_secs(days * 24 * 3600));
        days(10_000).or_else(|| days(30)).or_else(|| days(1)).unwrap_or(now)
    });
    let nanos = at.checked_duration_since(*base).map_or(0, |since| since.as_nanos());
    u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
}
