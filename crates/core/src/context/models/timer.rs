//! The alarms of the models: they fire when a model moves its clock.

use std::collections::BTreeMap;
use std::fmt;
use std::task::{Context as TaskContext, Waker};
use std::time::Instant;

#[cfg(throughline_loom)]
use loom::lazy_static;
#[cfg(throughline_shuttle)]
use shuttle::lazy_static;

use super::catch::catch_panic;
use super::sync::{Mutex, MutexGuard};

#[cfg(not(throughline_tsan))]
lazy_static! {
    static ref ALARMS: Mutex<Alarms> = Mutex::new(Alarms::NONE);
}
#[cfg(throughline_tsan)]
static ALARMS: Mutex<Alarms> = Mutex::new(Alarms::NONE);

struct Alarms {
    reached: Option<Instant>,
    last_id: u64,
    waiting: BTreeMap<(Instant, u64), Waker>,
}

impl Alarms {
    const NONE: Alarms = Alarms { reached: None, last_id: 0, waiting: BTreeMap::new() };
}

/// Resets the alarms before a scene: under ThreadSanitizer, scenes share their statics.
#[cfg(throughline_tsan)]
pub(super) fn begin() {
    *lock() = Alarms::NONE;
}

/// Wakes a task at an instant, or shortly after it. Dropping the alarm cancels it.
pub(super) struct Alarm {
    key: (Instant, u64),
}

impl Alarm {
    pub(super) fn new(at: Instant, _is_virtual: bool, cx: &mut TaskContext<'_>) -> Alarm {
        let mut alarms = lock();
        alarms.last_id += 1;
        let mut alarm = Alarm { key: (at, alarms.last_id) };
        drop(alarms);
        alarm.rearm(cx);
        alarm
    }

    pub(super) fn may_have_fired(&self) -> bool {
        !lock().waiting.contains_key(&self.key)
    }

    /// Models have one clock only.
    pub(super) fn now(&self, now: Instant) -> Instant {
        now
    }

    pub(super) fn rearm(&mut self, cx: &mut TaskContext<'_>) {
        let waker = cx.waker().clone();
        let mut alarms = lock();
        let unneeded = if alarms.reached >= Some(self.key.0) {
            // The thread would find it due.
            Some(waker)
        } else {
            alarms.waiting.insert(self.key, waker)
        };
        let is_due = alarms.reached >= Some(self.key.0);
        drop(alarms);
        match unneeded {
            Some(waker) if is_due => wake(waker),
            unneeded => drop(unneeded),
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let waker = lock().waiting.remove(&self.key);
        drop(waker);
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alarm")
    }
}

/// Fires the alarms that are due at `now`.
pub(super) fn fire_due(now: Instant) {
    let mut alarms = lock();
    alarms.reached = alarms.reached.max(Some(now));
    let later = alarms.waiting.split_off(&(now, u64::MAX));
    let due = std::mem::replace(&mut alarms.waiting, later);
    drop(alarms);
    due.into_values().for_each(wake);
}

/// Calls a waker as the timer's thread does: a panic does not stop it.
fn wake(waker: Waker) {
    catch_panic(|| waker.wake());
}

fn lock() -> MutexGuard<'static, Alarms> {
    ALARMS.lock().expect("no code panics under this lock")
}
