//! Alarms: they wake a task when a deadline passes.
//!
//! On the real clock, a thread of the process fires the alarms, so a runtime that stalls or shuts
//! down does not stop them. The thread sleeps until the earliest alarm; only an earlier alarm wakes
//! it sooner. A virtual clock is moved only by its runtime, so there each alarm is a tokio timer.

mod thread;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::catch::catch_panic;
use super::clock;
use super::sync::{Mutex, lock};

/// Wakes a task at an instant, or shortly after it. Dropping the alarm cancels it.
pub(super) struct Alarm(Timer);

enum Timer {
    /// Fired by the timer's thread.
    ///
    /// `key`: in its shard. `fired`: the value of [`FIRED`] when the alarm was set.
    Thread { shard: &'static Shard, key: (Instant, u64), fired: u64 },
    /// Fired by the runtime: its clock is virtual, or the timer's thread cannot be started.
    Runtime { at: Instant, sleep: Pin<Box<Sleep>> },
}

type Shard = Mutex<BTreeMap<(Instant, u64), Waker>>;

static SHARDS: [Shard; 16] = [const { Mutex::new(BTreeMap::new()) }; 16];
/// How many times the thread has fired alarms.
static FIRED: AtomicU64 = AtomicU64::new(0);
static LAST_ID: AtomicU64 = AtomicU64::new(0);

impl Alarm {
    /// Wakes the task of `cx` at `at`.
    ///
    /// # Panics
    /// On the real clock, if the timer's thread cannot be started and there is no runtime with a
    /// timer either.
    pub(super) fn new(at: Instant, is_virtual: bool, cx: &mut TaskContext<'_>) -> Alarm {
        if is_virtual {
            return Alarm::by_runtime(at, cx);
        }
        let (id, shard) = next_id_and_shard();
        let fired = FIRED.load(Ordering::Acquire);
        let alarm = Alarm(Timer::Thread { shard, key: (at, id), fired });
        let waker = cx.waker().clone();
        let mut alarms = lock(shard);
        if alarms.is_empty() {
            alarms.insert((far_future(), 0), Waker::noop().clone());
        }
        alarms.insert((at, id), waker);
        drop(alarms);
        if thread::look_by(at).is_err() {
            // Take the alarm out of the shard. A later alarm tries to start the thread again.
            drop(alarm);
            return Alarm::by_runtime(at, cx);
        }
        alarm
    }

    fn by_runtime(at: Instant, cx: &mut TaskContext<'_>) -> Alarm {
        let mut alarm = Alarm(Timer::Runtime { at, sleep: Box::pin(tokio::time::sleep_until(at.into())) });
        alarm.rearm(cx);
        alarm
    }

    /// Whether the alarm may have fired. It reads no clock.
    #[inline]
    pub(super) fn may_have_fired(&self) -> bool {
        match &self.0 {
            Timer::Thread { fired, .. } => FIRED.load(Ordering::Acquire) != *fired,
            Timer::Runtime { .. } => true,
        }
    }

    /// The time on the alarm's clock, when the current runtime's clock reads `now`.
    ///
    /// The two clocks differ after a runtime with a virtual clock has shut down: its alarms then
    /// follow the real clock.
    pub(super) fn now(&self, now: Instant) -> Instant {
        match &self.0 {
            Timer::Thread { .. } => now.max(Instant::now()),
            Timer::Runtime { .. } => now,
        }
    }

    /// Wakes the task of `cx` instead, at the same instant.
    pub(super) fn rearm(&mut self, cx: &mut TaskContext<'_>) {
        match &mut self.0 {
            Timer::Thread { shard, key, fired } => {
                *fired = FIRED.load(Ordering::Acquire);
                let waker = cx.waker().clone();
                let before = lock(shard).insert(*key, waker);
                if before.is_none() {
                    // The alarm had fired, so a leader exists: the thread that fired it, or a later
                    // one.
                    let _ = thread::look_by(key.0);
                }
                drop(before);
            }
            Timer::Runtime { at, sleep } => {
                // A tokio timer panics after its runtime has shut down.
                match catch_unwind(AssertUnwindSafe(|| sleep.as_mut().poll(cx))) {
                    Ok(Poll::Pending) => {}
                    Ok(Poll::Ready(())) => {
                        sleep.as_mut().reset((*at).into());
                        cx.waker().wake_by_ref();
                    }
                    Err(_) => *self = Alarm::new(*at, false, cx),
                }
            }
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Timer::Thread { shard, key, .. } = &self.0 {
            let waker = lock(shard).remove(key);
            drop(waker);
        }
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alarm")
    }
}

/// A new id for an alarm, and the calling thread's shard.
fn next_id_and_shard() -> (u64, &'static Shard) {
    thread_local! {
        static IDS: std::cell::Cell<(u64, u64)> = const { std::cell::Cell::new((0, 0)) };
    }
    const RANGE: u64 = 1 << 12;
    // Ids are taken in ranges: one contended operation for thousands of alarms.
    let id = IDS.try_with(|ids| {
        let (mut next, mut end) = ids.get();
        if next == end {
            next = LAST_ID.fetch_add(RANGE, Ordering::Relaxed);
            end = next + RANGE;
        }
        ids.set((next + 1, end));
        next
    });
    let id = id.unwrap_or_else(|_| LAST_ID.fetch_add(RANGE, Ordering::Relaxed));
    (id, &SHARDS[(id / RANGE) as usize % SHARDS.len()])
}

/// The instant of an alarm that stays in every shard.
///
/// It keeps the map from becoming empty. Otherwise each alarm that is alone in its shard would
/// allocate a map.
fn far_future() -> Instant {
    static FAR_FUTURE: OnceLock<Instant> = OnceLock::new();
    *FAR_FUTURE.get_or_init(|| {
        let years = |years: u64| Instant::now().checked_add(Duration::from_secs(years * 365 * 24 * 3600));
        years(1000).or_else(|| years(30)).unwrap_or_else(Instant::now)
    })
}

/// Takes out the wakers that are due at `now`.
///
/// Returns the earliest instant that is left.
fn take_due(now: Instant, due: &mut VecDeque<Waker>) -> Option<Instant> {
    let mut next: Option<Instant> = None;
    for shard in &SHARDS {
        let mut alarms = lock(shard);
        while let Some(alarm) = alarms.first_entry() {
            let at = alarm.key().0;
            if at > now {
                next = Some(next.map_or(at, |next| next.min(at)));
                break;
            }
            due.push_back(alarm.remove());
        }
    }
    if !due.is_empty() {
        FIRED.fetch_add(1, Ordering::AcqRel);
    }
    next
}
