//! Time for spans: each local root reads the wall clock, and the monotonic clock carries it on.
//!
//! A step of the wall clock (NTP, an operator, a suspend) never makes a span end before it starts,
//! nor a child start before its parent: the spans below a local root keep its [`Epoch`]. The next
//! local root is dated right. The monotonic clock is tokio's, so that a test's paused time moves
//! spans as it moves deadlines.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use super::record::UnixNanos;

/// The clocks may part by so many nanoseconds before the wall clock counts as stepped. Local roots
/// that follow each other closely, as those of several services in one process do, so share one
/// epoch.
const TOLERANCE: u64 = 1_000_000;

/// What turns ticks into dates: nanoseconds since the Unix epoch at tick zero, by the wall clock of
/// one moment.
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
    /// Tick zero.
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

/// The epoch by the wall clock of now.
pub(super) fn epoch() -> Epoch {
    let anchor = anchor();
    let epoch = anchor.epoch.load(Ordering::Relaxed);
    let wall = wall();
    // The real clock, not tokio's: paused time is no step of the wall clock.
    let expected = epoch.wrapping_add(nanos_between(anchor.instant, Instant::now()));
    if wall.abs_diff(expected) <= TOLERANCE { Epoch(epoch) } else { stepped(anchor, epoch) }
}

#[cold]
fn stepped(anchor: &Anchor, old: u64) -> Epoch {
    // A thread that is preempted between two clocks sees a step that is none. The quickest of a few
    // looks is the best one.
    let looks = (0..4).map(|_| {
        let before = Instant::now();
        let wall = wall();
        (before.elapsed(), wall.wrapping_sub(nanos_between(anchor.instant, before)))
    });
    let epoch = looks.min().map_or(old, |(_, epoch)| epoch);
    if epoch.abs_diff(old) <= TOLERANCE {
        return Epoch(old);
    }
    anchor.epoch.store(epoch, Ordering::Relaxed);
    Epoch(epoch)
}

/// Nanoseconds since the first call in this process.
#[inline]
pub(super) fn ticks() -> u64 {
    nanos_between(anchor().instant, tokio::time::Instant::now().into_std())
}

#[inline]
fn nanos_between(from: Instant, to: Instant) -> u64 {
    let elapsed = to.saturating_duration_since(from);
    elapsed.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(elapsed.subsec_nanos()))
}
