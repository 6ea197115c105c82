//! The clock that contexts live by: tokio's, so that virtual time moves their deadlines.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[cfg(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan)))]
pub(super) use super::models::clock::{now, now as now_anywhere, now_and_kind};

/// Now, on the clock of the current runtime; outside of one, on the real clock.
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan))))]
#[inline]
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// [`now`], also on a thread that is ending: there tokio's clock panics where it can be paused.
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan))))]
pub(super) fn now_anywhere() -> Instant {
    std::panic::catch_unwind(now).unwrap_or_else(|_| Instant::now())
}

/// Now, and whether the current runtime's clock is virtual: paused, or moved by hand at some time.
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan))))]
#[inline]
pub(super) fn now_and_kind() -> (Instant, bool) {
    loop {
        let (before, real, after) = (now(), Instant::now(), now());
        if real < before || after < real {
            return (after, true);
        }
        // A paused clock that stands where the real one is has not moved between two readings.
        if before < after {
            return (after, false);
        }
        // Neither has a coarse one: look again once the real clock has moved on.
        std::hint::spin_loop();
    }
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
