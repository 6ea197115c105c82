//! Time for spans: the wall clock, read once per process, carried forward by the monotonic clock.
//!
//! A step of the wall clock (NTP, an operator) so never makes a span end before it starts, nor a child start before its
//! parent. The monotonic clock is tokio's, so that a test's paused time moves spans as it moves deadlines.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

use super::record::UnixNanos;

struct Anchor {
    instant: Instant,
    wall: u64,
}

static ANCHOR: OnceLock<Anchor> = OnceLock::new();

fn anchor() -> &'static Anchor {
    ANCHOR.get_or_init(|| Anchor { instant: Instant::now(), wall: UnixNanos::from(SystemTime::now()).0 })
}

/// Nanoseconds since the Unix epoch.
#[inline]
pub(super) fn now() -> UnixNanos {
    UnixNanos(anchor().wall.saturating_add(ticks()))
}

/// Nanoseconds since the first call in this process.
#[inline]
pub(super) fn ticks() -> u64 {
    let elapsed = tokio::time::Instant::now().into_std().saturating_duration_since(anchor().instant);
    elapsed.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(elapsed.subsec_nanos()))
}
