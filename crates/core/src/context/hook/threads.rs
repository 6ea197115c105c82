//! The threads of this library that run callbacks.
//!
//! One thread runs the callbacks in order. If a callback blocks it, further threads are started, so
//! no callback waits for another one to end.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::Callback;
use crate::context::catch::catch_panic;
use crate::context::timer::Alarm;

static THREADS: Mutex<Threads> = Mutex::new(Threads::NONE);
static QUEUED: Condvar = Condvar::new();

/// How long a callback waits while all threads are running other callbacks.
const PATIENCE: Duration = Duration::from_millis(25);

struct Threads {
    queue: VecDeque<Callback>,
    count: usize,
    /// Threads that wait for a callback. More than one is possible only for a moment.
    idle: usize,
    /// The number of callbacks started so far.
    started: u64,
    /// Fires when the queue may have waited for too long.
    watchdog: Option<Alarm>,
}

/// Runs `f` on one of these threads.
pub(super) fn run_on_own_thread(f: Callback) {
    let mut threads = lock();
    threads.queue.push_back(f);
    if threads.idle > 0 {
        QUEUED.notify_one();
    } else if threads.count == 0 {
        threads.start(1);
        if threads.count == 0 {
            threads.start_watchdog();
        }
    } else {
        threads.start_watchdog();
    }
}

fn lock() -> MutexGuard<'static, Threads> {
    // A panic under the lock, for lack of memory or threads, leaves the state consistent.
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Threads {
    const NONE: Threads = Threads { queue: VecDeque::new(), count: 0, idle: 0, started: 0, watchdog: None };

    /// If the system cannot start a thread, the watchdog tries again.
    fn start(&mut self, threads: usize) {
        for _ in 0..threads {
            let started = thread::Builder::new().name("throughline-hooks".into()).spawn(call_queued);
            self.count += usize::from(started.is_ok());
        }
    }

    /// Starts the watchdog for a queue that is not empty, unless it is running.
    fn start_watchdog(&mut self) {
        if self.watchdog.is_none() && !self.queue.is_empty() {
            let waker = Waker::from(Arc::new(Watchdog { started: self.started }));
            // Real time, as threads are missing. If no timer can be set, the queue waits as it
            // would without a thread.
            catch_panic(|| {
                let at = Instant::now() + PATIENCE;
                self.watchdog = Some(Alarm::new(at, false, &mut TaskContext::from_waker(&waker)));
            });
        }
    }
}

/// The loop of a thread.
///
/// It ends if the queue is empty and another thread waits.
fn call_queued() {
    let mut threads = lock();
    loop {
        if let Some(f) = threads.queue.pop_front() {
            threads.started += 1;
            threads.start_watchdog();
            drop(threads);
            catch_panic(f);
            threads = lock();
        } else if threads.idle > 0 {
            threads.count -= 1;
            return;
        } else {
            threads.idle += 1;
            threads = QUEUED.wait_while(threads, |it| it.queue.is_empty()).unwrap_or_else(PoisonError::into_inner);
            threads.idle -= 1;
        }
    }
}

struct Watchdog {
    /// The number of callbacks that had been started when it was set.
    started: u64,
}

impl Wake for Watchdog {
    fn wake(self: Arc<Self>) {
        let mut threads = lock();
        let fired = threads.watchdog.take();
        if threads.started == self.started && !threads.queue.is_empty() {
            // All threads are blocked in callbacks. Double their number, so that many blocking
            // callbacks need few rounds.
            let more = threads.count.max(1).min(threads.queue.len());
            threads.start(more);
        }
        threads.start_watchdog();
        drop(threads);
        drop(fired);
    }
}
