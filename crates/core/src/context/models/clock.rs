//! The clock of the models: it moves only when a model moves it.
//!
//! It is one atomic number. Reads and moves are both read-modify-writes. So no thread reads an
//! older time after a newer one, and the checker knows that a read depends on the moves. A read
//! acquires, and neither a read nor a move releases. So a thread that reads a time sees only what
//! others had *fenced* before they read that time or an earlier one. Real clocks guarantee as much,
//! and invariant 7 of the tree needs no more.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::context::sync::{AtomicU64, Ordering};
use crate::context::timer;

#[cfg(throughline_loom)]
use loom::lazy_static;
#[cfg(throughline_shuttle)]
use shuttle::lazy_static;

#[cfg(not(throughline_tsan))]
lazy_static! {
    static ref SECONDS: AtomicU64 = AtomicU64::new(0);
}
#[cfg(throughline_tsan)]
static SECONDS: AtomicU64 = AtomicU64::new(0);

/// Resets the clock and the alarms before a scene: under ThreadSanitizer, scenes share their
/// statics.
#[cfg(throughline_tsan)]
pub(super) fn begin() {
    SECONDS.store(0, Ordering::Relaxed);
    timer::begin();
}

/// The instant `seconds` after the start of a model.
pub(super) fn at(seconds: u64) -> Instant {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    *BEGIN.get_or_init(Instant::now) + Duration::from_secs(seconds)
}

pub(in crate::context) fn now() -> Instant {
    at(SECONDS.fetch_add(0, Ordering::Acquire))
}

pub(in crate::context) fn now_and_kind() -> (Instant, bool) {
    (now(), false)
}

/// Moves the clock forward by one second, and fires the alarms that are due then.
pub(super) fn tick() {
    let before = SECONDS.fetch_add(1, Ordering::Relaxed);
    timer::fire_due(at(before + 1));
}
