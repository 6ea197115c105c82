//! The threads that call the wakers of alarms: one leads, one stands by.
//!
//! # Glossary
//! - **leader**: looks for alarms that are due, and calls their wakers. There is one.
//! - **standby**: sleeps until a waker has blocked the leader for a while. Then it leads, and another one stands by.
//! - **stuck**: a former leader, still in that waker. When the waker returns the thread ends.
//!
//! # Invariants
//! 1. Only the leader looks at the alarms and writes [`NEXT`], and it does neither while a waker runs. So a new leader, which starts by
//!    looking at all alarms, finds whatever was set meanwhile.
//! 2. [`NEXT`] is lowered by others only once a thread leads: a thread that could not be started leaves it as it is.
//! 3. Wakers run with no lock held.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, Builder, Thread};
use std::time::{Duration, Instant};
use std::{io, mem};

use super::{clock, shielded, take_due};

/// When the leader will look next, in [`clock::nanos`]. 0: it looks within [`SLACK`] anyway.
static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);
static THREADS: Mutex<Threads> = Mutex::new(Threads::NONE);
static STANDBY: Condvar = Condvar::new();

/// The leader calls no wakers for so long after it has called some: alarms that are due meanwhile go off together.
const SLACK: Duration = Duration::from_millis(1);
/// How often the standby looks after the leader. A waker has blocked when two looks find it running.
const PATIENCE: Duration = Duration::from_millis(25);

struct Threads {
    leader: Option<Thread>,
    /// Goes up with each new leader.
    term: u64,
    /// Wakers that the leader has yet to call.
    due: VecDeque<Waker>,
    /// How many wakers were called, the one that runs included.
    calls: u64,
    is_calling: bool,
    standby: Standby,
}

#[derive(Clone, Copy, PartialEq)]
enum Standby {
    None,
    /// Until the leader calls a waker.
    Asleep,
    Awake,
}

impl Threads {
    const NONE: Threads =
        Threads { leader: None, term: 0, due: VecDeque::new(), calls: 0, is_calling: false, standby: Standby::None };

    /// The calling thread leads from here on.
    fn lead(&mut self) -> u64 {
        self.leader = Some(thread::current());
        self.term += 1;
        self.is_calling = false;
        self.term
    }

    /// Sees to it that somebody looks after the leader, who is about to call wakers.
    fn wake_standby(&mut self) {
        match self.standby {
            Standby::None => self.start_standby(),
            Standby::Asleep => {
                self.standby = Standby::Awake;
                STANDBY.notify_one();
            }
            Standby::Awake => {}
        }
    }

    fn start_standby(&mut self) {
        // Without one the next call of a waker tries again.
        self.standby = start(stand_by).map_or(Standby::None, |_| Standby::Awake);
    }
}

fn lock() -> MutexGuard<'static, Threads> {
    // Nothing that can panic runs under the lock.
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the leader look at `at`, for which an alarm was set, or earlier.
///
/// # Errors
/// There is no leader, and the operating system starts no thread.
#[inline]
pub(super) fn look_by(at: Instant) -> io::Result<()> {
    let at = clock::nanos(at);
    if at < NEXT.load(Ordering::SeqCst) { lower(at) } else { Ok(()) }
}

fn lower(at: u64) -> io::Result<()> {
    let leader = leader()?;
    if at < NEXT.fetch_min(at, Ordering::SeqCst) {
        leader.unpark();
    }
    Ok(())
}

fn leader() -> io::Result<Thread> {
    let mut threads = lock();
    if let Some(leader) = &threads.leader {
        return Ok(leader.clone());
    }
    let leader = start(|| {
        let term = lock().lead();
        lead(term);
    })?;
    threads.leader = Some(leader.clone());
    Ok(leader)
}

fn start(run: fn()) -> io::Result<Thread> {
    Builder::new().name("throughline-timer".into()).spawn(run).map(|started| started.thread().clone())
}

/// Until a waker has blocked for so long that the standby leads.
fn lead(term: u64) {
    let (mut due, mut is_first) = (VecDeque::new(), true);
    loop {
        // Before the alarms are looked at: whoever sets one after that lowers it again, and unparks this thread.
        NEXT.swap(u64::MAX, Ordering::SeqCst);
        let next = take_due(Instant::now(), &mut due);
        if !due.is_empty() {
            if mem::take(&mut is_first) && term == 1 {
                // Before a standby is started, which inherits what this thread may run on.
                leave_affinity();
            }
            if !call(term, &mut due) {
                return;
            }
            // Nobody needs to disturb this.
            NEXT.store(0, Ordering::SeqCst);
            thread::sleep(SLACK);
            continue;
        }
        match next {
            Some(at) => {
                NEXT.fetch_min(clock::nanos(at), Ordering::SeqCst);
                thread::park_timeout(at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)));
            }
            None => thread::park(),
        }
    }
}

/// Calls the wakers that are due. Whether this thread leads on.
fn call(term: u64, due: &mut VecDeque<Waker>) -> bool {
    let mut threads = lock();
    threads.due.append(due);
    threads.wake_standby();
    loop {
        if threads.term != term {
            return false;
        }
        let Some(waker) = threads.due.pop_front() else {
            threads.is_calling = false;
            return true;
        };
        threads.is_calling = true;
        threads.calls += 1;
        drop(threads);
        // A panicking waker stops neither the thread nor the others.
        shielded(|| waker.wake());
        threads = lock();
    }
}

/// Leads once the leader is stuck.
fn stand_by() {
    let mut threads = lock();
    let mut last_seen = (0, false);
    loop {
        let seen = (threads.calls, threads.is_calling);
        let is_same = mem::replace(&mut last_seen, seen) == seen;
        if is_same && threads.is_calling {
            break;
        }
        threads = if is_same {
            // No waker was called for a while.
            threads.standby = Standby::Asleep;
            STANDBY
                .wait_while(threads, |threads| threads.standby == Standby::Asleep)
                .unwrap_or_else(PoisonError::into_inner)
        } else {
            let waited = STANDBY.wait_timeout(threads, PATIENCE);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
    }
    let term = threads.lead();
    threads.start_standby();
    drop(threads);
    if call(term, &mut VecDeque::new()) {
        lead(term);
    }
}

/// Threads inherit the CPUs that they may run on. This one runs on those of the main thread, not on those of a worker that was the
/// first to wait. If both are the same, the main thread may be pinned itself: then any CPU will do that the system grants.
#[cfg(target_os = "linux")]
fn leave_affinity() {
    use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

    let main = i32::try_from(std::process::id()).ok().and_then(Pid::from_raw);
    let of_main = main.and_then(|main| sched_getaffinity(Some(main)).ok());
    let other = of_main.filter(|of_main| sched_getaffinity(None).is_ok_and(|own| own != *of_main));
    let cpus = other.unwrap_or_else(|| {
        let mut all = CpuSet::new();
        (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
        all
    });
    // Where it is refused, by a sandbox, the thread stays where it is.
    let _ = sched_setaffinity(None, &cpus);
}

#[cfg(not(target_os = "linux"))]
fn leave_affinity() {}
