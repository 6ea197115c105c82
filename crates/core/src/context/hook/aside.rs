//! The process's own threads for callbacks.
//!
//! One thread calls them in the order they come. While a callback blocks it, others take its place: none waits for another one.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::Callback;
use crate::context::shield::shielded;
use crate::context::timer::Alarm;

static THREADS: Mutex<Threads> = Mutex::new(Threads::NONE);
static QUEUED: Condvar = Condvar::new();

/// How long a callback waits while all threads are in others.
const PATIENCE: Duration = Duration::from_millis(25);

struct Threads {
    queue: VecDeque<Callback>,
    count: usize,
    /// Those that wait for a callback: one at most, but for moments.
    idle: usize,
    /// Callbacks that were started.
    started: u64,
    /// Goes off when the queue may have waited for too long.
    watchdog: Option<Alarm>,
}

/// Runs `f` on a thread of the process's own.
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
    // What can panic under the lock, for want of memory or threads, leaves it whole.
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Threads {
    const NONE: Threads = Threads { queue: VecDeque::new(), count: 0, idle: 0, started: 0, watchdog: None };

    /// Where the system starts none, the watchdog tries again.
    fn start(&mut self, threads: usize) {
        for _ in 0..threads {
            let started = thread::Builder::new().name("throughline-hooks".into()).spawn(call_queued);
            self.count += usize::from(started.is_ok());
        }
    }

    /// Looks after the queue, unless somebody does.
    fn start_watchdog(&mut self) {
        if self.watchdog.is_none() && !self.queue.is_empty() {
            let waker = Waker::from(Arc::new(Watchdog { started: self.started }));
            // Real time: it is threads that are missing. Without a timer the queue waits as it would without a thread.
            shielded(|| {
                let at = Instant::now() + PATIENCE;
                self.watchdog = Some(Alarm::new(at, false, &mut TaskContext::from_waker(&waker)));
            });
        }
    }
}

/// What a thread does: it ends when there is nothing to call and another one waits already.
fn call_queued() {
    let mut threads = lock();
    loop {
        if let Some(f) = threads.queue.pop_front() {
            threads.started += 1;
            threads.start_watchdog();
            drop(threads);
            shielded(f);
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
    /// As of when it began.
    started: u64,
}

impl Wake for Watchdog {
    fn wake(self: Arc<Self>) {
        let mut threads = lock();
        let fired = threads.watchdog.take();
        if threads.started == self.started && !threads.queue.is_empty() {
            // Each thread is in a callback that blocks. Twice as many, so that it does not take as long as there are such callbacks.
            let more = threads.count.max(1).min(threads.queue.len());
            threads.start(more);
        }
        threads.start_watchdog();
        drop(threads);
        drop(fired);
    }
}
