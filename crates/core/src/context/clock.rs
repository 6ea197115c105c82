//! The clock of contexts: tokio's, so that virtual time moves their deadlines.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[cfg(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan)))]
pub(super) use super::models::clock::{now, now as now_anywhere, now_and_kind};

/// Now, on the clock of the current runtime. Outside a runtime, on the real clock.
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan))))]
#[inline]
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// As [`now`], also on a thread that is ending.
///
/// There tokio's clock panics if it can be paused.
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan))))]
pub(super) fn now_anywhere() -> Instant {
    std::panic::catch_unwind(now).unwrap_or_else(|_| Instant::now())
}

/// Now, and whether the clock of the current runtime is virtual.
///
/// It is virtual if it is paused, or if it was paused and moved by hand.
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan))))]
#[inline]
pub(super) fn now_and_kind() -> (Instant, bool) {
    loop {
        let (before, real, after) = (now(), Instant::now(), now());
        if real < before || after < real {
            return (after, true);
        }
        // A paused clock may show the same time as the real one, but it does not move between two
        // readings.
        if before < after {
            return (after, false);
        }
        // A coarse real clock may not have moved either. Read again until the real clock has moved.
        std::hint::spin_loop();
    }
}

/// `at` as nanoseconds since long before the process began, so that it fits an atomic.
///
/// It is never 0. A value out of range is clamped.
pub(super) fn nanos(at: Instant) -> u64 {
    let nanos = at.checked_duration_since(base()).map_or(0, |since| since.as_nanos());
    u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
}

/// The instant that [`nanos`] was called with. `None` if that was out of range.
pub(super) fn instant(nanos: u64) -> Option<Instant> {
    base().checked_add(Duration::from_nanos(nanos))
}

/// An instant long before the process began.
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(|| {
        let now = Instant::now();
        let days = |days: u64| now.checked_sub(Duration::from_secs(days * 24 * 3600));
        days(10_000).or_else(|| days(30)).or_else(|| days(1)).unwrap_or(now)
    })
}
