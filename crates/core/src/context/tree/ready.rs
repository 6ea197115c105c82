//! Deadlines for work that never waits.
//!
//! A [`run`](crate::Context::run) whose work is ready at its first poll sets no alarm and reads no
//! clock. A loop of such calls must still end at the deadline, so the deadline's node counts them.
//! After a few, each call compares the deadline with the kept time: the time to within a few
//! milliseconds, which the timer's thread keeps up to date while such calls come.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Wake, Waker};
use std::time::{Duration, Instant};

use crate::context::catch::catch_panic;
use crate::context::timer::Alarm;
use crate::context::{clock, sync};

/// The deadline has not been compared with the clock since the node was made.
const UNCHECKED: u8 = 0;
const CHECKED: u8 = 1;
/// Enough calls were ready at once: the next ones compare deadline and kept time.
const WATCHED: u8 = CHECKED + 4;
/// As `WATCHED`, on a virtual clock.
///
/// Nothing here may move that clock, so each call reads it.
const VIRTUAL: u8 = WATCHED + 1;

/// How many calls were ready at once, or one of the constants above.
///
/// It is a hint: a caller that acts on it reads the clock.
pub(super) struct Ready(AtomicU8);

impl Ready {
    /// `is_checked`: whether the deadline is known to be in the future at birth.
    #[inline]
    pub(super) fn new(is_checked: bool) -> Self {
        Ready(AtomicU8::new(if is_checked { CHECKED } else { UNCHECKED }))
    }

    /// Whether the clock has to be read before any work is polled under `deadline`.
    #[inline]
    pub(super) fn may_be_done(&self, deadline: Option<Instant>) -> bool {
        match self.0.load(Ordering::Relaxed) {
            UNCHECKED => {
                self.0.store(CHECKED, Ordering::Relaxed);
                true
            }
            VIRTUAL => true,
            WATCHED => deadline.is_some_and(|at| clock::nanos(at) <= KEPT_TIME.load(Ordering::Relaxed)),
            _ => false,
        }
    }

    /// Counts one more call that was ready at once. Racing threads may lose counts.
    ///
    /// `is_real`: whether the clock is known to be the real one.
    #[inline]
    pub(super) fn count(&self, is_real: &sync::AtomicBool) {
        let count = self.0.load(Ordering::Relaxed);
        if count < WATCHED {
            self.count_to(count + 1, is_real);
        } else if count == WATCHED {
            keep_time();
        }
    }

    #[cold]
    fn count_to(&self, mut count: u8, is_real: &sync::AtomicBool) {
        if count == WATCHED {
            let is_virtual = !is_real.load(Ordering::Relaxed) && clock::now_and_kind().1;
            if is_virtual {
                count = VIRTUAL;
            } else {
                keep_time();
            }
        }
        self.0.store(count, Ordering::Relaxed);
    }
}

/// The kept time, in [`clock::nanos`]: when the timer's thread updated it last.
static KEPT_TIME: AtomicU64 = AtomicU64::new(0);
/// Whether a call has requested another update since then.
static IS_REQUESTED: AtomicBool = AtomicBool::new(false);
/// Whether an alarm for the next update is set, or about to be set.
static IS_ALARM_SET: AtomicBool = AtomicBool::new(false);
/// The alarm that was set last, and its number.
static ALARM: Mutex<(u64, Option<Alarm>)> = Mutex::new((0, None));
static ALARMS: AtomicU64 = AtomicU64::new(0);

const PERIOD: Duration = Duration::from_millis(2);

/// Requests another update of the kept time.
#[inline]
fn keep_time() {
    if !IS_REQUESTED.load(Ordering::Relaxed) {
        request_time();
    }
}

#[cold]
fn request_time() {
    IS_REQUESTED.store(true, Ordering::SeqCst);
    if !IS_ALARM_SET.swap(true, Ordering::SeqCst) {
        set_alarm();
    }
}

/// Called by the thread that has set [`IS_ALARM_SET`].
fn set_alarm() {
    let number = ALARMS.fetch_add(1, Ordering::Relaxed) + 1;
    let waker = Waker::from(Arc::new(Keeper));
    let mut alarm = None;
    catch_panic(|| alarm = Some(Alarm::new(Instant::now() + PERIOD, false, &mut TaskContext::from_waker(&waker))));
    if alarm.is_none() {
        // No thread can be started: the next request tries again.
        IS_REQUESTED.store(false, Ordering::SeqCst);
        IS_ALARM_SET.store(false, Ordering::SeqCst);
    }
    let mut last = ALARM.lock().unwrap_or_else(PoisonError::into_inner);
    // It may have fired by now, and a later alarm may have been set.
    let unneeded = if last.0 < number { mem::replace(&mut *last, (number, alarm)).1 } else { alarm };
    drop(last);
    drop(unneeded);
}

struct Keeper;

impl Wake for Keeper {
    fn wake(self: Arc<Self>) {
        KEPT_TIME.fetch_max(clock::nanos(Instant::now()), Ordering::Relaxed);
        if IS_REQUESTED.swap(false, Ordering::SeqCst) {
            return set_alarm();
        }
        IS_ALARM_SET.store(false, Ordering::SeqCst);
        // A call may have requested an update in between, and found an alarm set.
        if IS_REQUESTED.load(Ordering::SeqCst) && !IS_ALARM_SET.swap(true, Ordering::SeqCst) {
            set_alarm();
        }
    }
}
