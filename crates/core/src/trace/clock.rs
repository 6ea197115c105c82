//! Times of spans.
//!
//! A local root reads the wall clock, and the spans below it add monotonic time.
//!
//! - Tick: a nanosecond of the monotonic clock, counted from the first call in this process.
//! - Epoch: the wall-clock time at tick zero.
//! - Anchor: the instant of tick zero, and the epoch of the last local root.
//!
//! The spans below a local root keep its [`Epoch`]. So a step of the wall clock (by NTP, an
//! operator or a suspend) never makes a span end before it starts, nor a child start before its
//! parent. The next local root has the right time again. The monotonic clock is tokio's: paused
//! time in a test moves spans as it moves deadlines.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time: nanoseconds since the Unix epoch, up to the year 2554.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UnixNanos(pub u64);

impl From<SystemTime> for UnixNanos {
    /// Times before 1970 become zero. Times after 2554 become the greatest value.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<UnixNanos> for SystemTime {
    fn from(time: UnixNanos) -> Self {
        // A time that `SystemTime` cannot hold becomes the Unix epoch.
        UNIX_EPOCH.checked_add(Duration::from_nanos(time.0)).unwrap_or(UNIX_EPOCH)
    }
}

/// The clocks may differ by this many nanoseconds before the wall clock counts as stepped.
///
/// Local roots in quick succession, such as those of several services in one process, then share
/// one epoch.
const TOLERANCE: u64 = 1_000_000;

/// Converts ticks to times.
///
/// It holds the nanoseconds since the Unix epoch at tick zero, read from the wall clock once.
#[derive(Clone, Copy, Default)]
pub(super) struct Epoch(u64);

impl Epoch {
    #[inline]
    pub(super) fn now(self) -> UnixNanos {
        self.at(ticks())
    }

    #[inline]
    pub(super) fn at(self, ticks: u64) -> UnixNanos {
        UnixNanos(self.0.wrapping_add(ticks))
    }
}

struct Anchor {
    /// The instant of tick zero.
    instant: Instant,
    /// The epoch of the last local root.
    epoch: AtomicU64,
}

static ANCHOR: OnceLock<Anchor> = OnceLock::new();

#[inline]
fn anchor() -> &'static Anchor {
    ANCHOR.get_or_init(|| Anchor { instant: Instant::now(), epoch: AtomicU64::new(wall()) })
}

fn wall() -> u64 {
    UnixNanos::from(SystemTime::now()).0
}

/// Returns the epoch, by the wall clock of now.
pub(super) fn epoch() -> Epoch {
    let anchor = anchor();
    let epoch = anchor.epoch.load(Ordering::Relaxed);
    let wall = wall();
    // This is the real clock, not tokio's: paused time is no step of the wall clock.
    let expected = epoch.wrapping_add(nanos_between(anchor.instant, Instant::now()));
    if wall.abs_diff(expected) <= TOLERANCE { Epoch(epoch) } else { remeasure(anchor, epoch) }
}

#[cold]
fn remeasure(anchor: &Anchor, old: u64) -> Epoch {
    // A thread that is preempted between the two reads sees a step where there is none. The fastest
    // of four measurements is the best one.
    let measurements = (0..4).map(|_| {
        let before = Instant::now();
        let wall = wall();
        (before.elapsed(), wall.wrapping_sub(nanos_between(anchor.instant, before)))
    });
    let epoch = measurements.min().map_or(old, |(_, epoch)| epoch);
    if epoch.abs_diff(old) <= TOLERANCE {
        return Epoch(old);
    }
    anchor.epoch.store(epoch, Ordering::Relaxed);
    Epoch(epoch)
}

/// Returns the nanoseconds since the first call in this process.
#[inline]
pub(super) fn ticks() -> u64 {
    nanos_between(anchor().instant, tokio::time::Instant::now().into_std())
}

#[inline]
fn nanos_between(from: Instant, to: Instant) -> u64 {
    let elapsed = to.saturating_duration_since(from);
    elapsed.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(elapsed.subsec_nanos()))
}
