//! The threads that call the wakers of alarms: a leader and a standby.
//!
//! # Glossary
//! - **leader**: finds the alarms that are due, and calls their wakers. There is one.
//! - **standby**: becomes the leader once a waker has blocked the leader for a while. Another
//!   standby is then started.
//! - **stuck**: a former leader, still in that waker. Its thread ends when the waker returns.
//!
//! # Invariants
//! 1. Only the leader reads the alarms and overwrites [`NEXT`], and it does neither while a waker
//!    runs. A new leader starts by reading all alarms, so it finds those that were set meanwhile.
//! 2. Other threads only lower [`NEXT`], and only once there is a leader. If no thread can be
//!    started, `NEXT` stays as it is.
//! 3. Wakers run while no lock is held.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, PoisonError};
use std::task::Waker;
use std::thread::{self, Builder, Thread};
use std::time::{Duration, Instant};
use std::{io, mem};

use super::{Mutex, catch_panic, clock, lock, take_due};

/// When the leader reads the alarms next, in [`clock::nanos`]. 0: within [`SLACK`] in any case.
static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);
static THREADS: Mutex<Threads> = Mutex::new(Threads::NONE);
static STANDBY: Condvar = Condvar::new();

/// How long the leader pauses after it has called wakers.
///
/// Alarms that become due meanwhile fire together.
const SLACK: Duration = Duration::from_millis(1);
/// How often the standby checks the leader.
///
/// A waker counts as blocking if two checks find it running.
const PATIENCE: Duration = Duration::from_millis(25);

struct Threads {
    leader: Option<Thread>,
    /// Incremented with each new leader.
    term: u64,
    /// Wakers that the leader has yet to call.
    due: VecDeque<Waker>,
    /// How many wakers were called, including one that is running.
    calls: u64,
    is_calling: bool,
    standby: Standby,
}

#[derive(Clone, Copy, PartialEq)]
enum Standby {
    None,
    /// Sleeps until the leader calls a waker.
    Asleep,
    Awake,
}

impl Threads {
    const NONE: Threads =
        Threads { leader: None, term: 0, due: VecDeque::new(), calls: 0, is_calling: false, standby: Standby::None };

    /// Makes the calling thread the leader. Returns its term.
    fn lead(&mut self) -> u64 {
        self.leader = Some(thread::current());
        self.term += 1;
        self.is_calling = false;
        self.term
    }

    /// Makes sure that a standby checks the leader, which is about to call wakers.
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
        // If it cannot be started, the next call of a waker tries again.
        self.standby = start(stand_by).map_or(Standby::None, |_| Standby::Awake);
    }
}

/// Makes the leader read the alarms at `at`, where an alarm was set, or earlier.
///
/// # Errors
/// There is no leader, and the operating system cannot start a thread.
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
    let mut threads = lock(&THREADS);
    if let Some(leader) = &threads.leader {
        return Ok(leader.clone());
    }
    let leader = start(|| {
        let term = lock(&THREADS).lead();
        lead(term);
    })?;
    threads.leader = Some(leader.clone());
    Ok(leader)
}

fn start(run: fn()) -> io::Result<Thread> {
    Builder::new().name("throughline-timer".into()).spawn(run).map(|started| started.thread().clone())
}

/// Runs as the leader. Returns once the standby has taken over because a waker blocked.
fn lead(term: u64) {
    let (mut due, mut is_first) = (VecDeque::new(), true);
    loop {
        // This comes before the alarms are read. A thread that sets an alarm later lowers `NEXT`
        // again, and unparks this thread.
        NEXT.swap(u64::MAX, Ordering::SeqCst);
        let next = take_due(Instant::now(), &mut due);
        if !due.is_empty() {
            if mem::take(&mut is_first) && term == 1 {
                // Before a standby is started, since it inherits this thread's CPU affinity.
                leave_affinity();
            }
            if !call(term, &mut due) {
                return;
            }
            // The alarms are read again after the pause, so no thread needs to unpark this one.
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

/// Calls the wakers that are due. Returns whether this thread is still the leader.
fn call(term: u64, due: &mut VecDeque<Waker>) -> bool {
    let mut threads = lock(&THREADS);
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
        // If a waker panics, the thread goes on and calls the others.
        catch_panic(|| waker.wake());
        threads = lock(&THREADS);
    }
}

/// Runs as the standby, and then as the leader once the leader is stuck.
fn stand_by() {
    let mut threads = lock(&THREADS);
    let mut last_seen = (0, false);
    loop {
        let seen = (threads.calls, threads.is_calling);
        let is_same = mem::replace(&mut last_seen, seen) == seen;
        if is_same && threads.is_calling {
            break;
        }
        threads = if is_same {
            // No waker was called since the last check.
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

/// Gives this thread the CPU affinity of the main thread.
///
/// A thread inherits the affinity of its creator, here of a worker that happened to wait first. If
/// the main thread has the same affinity, it may be pinned itself. Then this thread runs on any CPU
/// that the system grants.
#[cfg(target_os = "linux")]
fn leave_affinity() {
    use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

    let main = i32::try_from(std::process::id()).ok().and_then(Pid::from_raw);
    let main_cpus = main.and_then(|main| sched_getaffinity(Some(main)).ok());
    let other = main_cpus.filter(|main_cpus| sched_getaffinity(None).is_ok_and(|own| own != *main_cpus));
    let cpus = other.unwrap_or_else(|| {
        let mut all = CpuSet::new();
        (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
        all
    });
    // If a sandbox refuses, the affinity does not change.
    let _ = sched_setaffinity(None, &cpus);
}

#[cfg(not(target_os = "linux"))]
fn leave_affinity() {}
