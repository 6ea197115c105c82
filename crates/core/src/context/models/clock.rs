//! The clock of the models: it moves when a model says so.
//!
//! It is one atomic number that is only ever read and moved by read-modify-writes. So nobody reads an older time after a newer one, and
//! the checker knows that reading depends on moving. A reading acquires, and neither reading nor moving releases: who reads a time sees
//! what others had *fenced* before they read that time or an earlier one, and no more. Real clocks promise as much, and invariant 7 of
//! the tree needs no more.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::context::timer;
use crate::context::tree::sync::{AtomicU64, Ordering};

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

/// Before a scene whose statics are not its own.
#[cfg(throughline_tsan)]
pub(super) fn begin() {
    SECONDS.store(0, Ordering::Relaxed);
    timer::begin();
}

/// The instant `seconds` after a model has begun.
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

/// Moves the clock on by one second, and lets the alarms go off that are due then.
pub(super) fn tick() {
    let before = SECONDS.fetch_add(1, Ordering::Relaxed);
    timer::fire_due(at(before + 1));
}
