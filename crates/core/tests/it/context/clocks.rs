//! C0 and C28: clocks, runtimes that end, and deadlines outside a runtime.

use std::future::pending;
use std::panic::panic_any;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant as RealInstant};

use throughline_core::{Context, ContextError, Key};
use tokio::runtime::{Builder, Runtime};

use super::{Named, ReportsDrop, SECOND, Wakes, block_on, is_ready, poll_once, poll_with, verdict};

/// Long enough to be pending at first, short enough for a test to wait.
pub(super) const SOON: Duration = Duration::from_millis(20);

pub(super) fn soon() -> Context {
    Context::background().with_timeout(SOON)
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(super) fn paused() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn c00_done_waits_for_a_deadline_outside_a_runtime() {
    let ctx = soon();
    let below = ctx.with_cancel();
    assert_eq!(block_on(below.run(pending::<()>())), Err(ContextError::DeadlineExceeded));
    block_on(ctx.done());
    block_on(ctx.done_owned());
    assert_eq!([verdict(&ctx), verdict(&below)], ["D/D", "D/D"]);
}

#[test]
fn c00_done_waits_for_a_deadline_in_a_runtime_without_timers() {
    let runtime = Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(soon().run(pending::<()>())), Err(ContextError::DeadlineExceeded));
}

#[test]
fn c00_deadline_never_fires_early() {
    for millis in [1, 3, 7] {
        let ctx = Context::background().with_timeout(Duration::from_millis(millis));
        let at = ctx.deadline().unwrap();
        block_on(ctx.done());
        assert!(RealInstant::now() >= at);
    }
}

#[test]
fn c00_several_runtimes_can_wait_for_one_context() {
    let handle = Context::background().with_cancel();
    let (timed, start) = (soon(), Barrier::new(6));
    thread::scope(|scope| {
        for n in 0..6 {
            let (timed, ctx, start) = (&timed, handle.context(), &start);
            scope.spawn(move || {
                let runtime = match n % 3 {
                    0 => current_thread(),
                    1 => Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
                    _ => Builder::new_current_thread().build().unwrap(),
                };
                start.wait();
                runtime.block_on(timed.done());
                runtime.block_on(ctx.done());
            });
        }
        block_on(timed.done());
        handle.cancel();
    });
}

#[test]
fn c00_runtime_that_ends_while_others_wait_does_not_affect_them() {
    let (ctx, is_waiting) = (soon(), Barrier::new(2));
    thread::scope(|scope| {
        let living = scope.spawn(|| {
            current_thread().block_on(async {
                let tasks: Vec<_> = (0..100).map(|_| ctx.spawn(pending::<()>())).collect();
                tokio::task::yield_now().await;
                is_waiting.wait();
                for task in tasks {
                    assert_eq!(task.await.unwrap(), Err(ContextError::DeadlineExceeded));
                }
            });
        });
        is_waiting.wait();
        for ending in [current_thread(), paused(), Builder::new_multi_thread().worker_threads(1).build().unwrap()] {
            let tasks = ending.block_on(async {
                let tasks: Vec<_> = (0..100).map(|_| ctx.spawn(pending::<()>())).collect();
                tokio::task::yield_now().await;
                tasks
            });
            drop(ending);
            for task in tasks {
                // Stopped before its runtime ended, or dropped with it.
                let is_cancelled = block_on(task).map_or_else(|error| error.is_cancelled(), |result| result.is_err());
                assert!(is_cancelled);
            }
        }
        living.join().unwrap();
    });
    assert_eq!(verdict(&ctx), "D/D");
}

/// A future that was polled in one runtime works in another, or without one.
#[test]
fn c00_future_polled_in_a_runtime_that_ended_can_wait_elsewhere() {
    for is_paused in [false, true] {
        let ending = if is_paused { paused() } else { current_thread() };
        let (ctx, mut in_task, mut outside) = ending.block_on(async {
            let ctx = soon();
            let task = ctx.spawn(pending::<()>());
            let (mut first, mut second) = (Box::pin(ctx.done_owned()), Box::pin(ctx.done_owned()));
            // Pending, unless this thread was suspended for that long.
            let _ = (poll_once(first.as_mut()), poll_once(second.as_mut()));
            drop(task);
            (ctx, first, second)
        });
        drop(ending);
        let other = current_thread();
        other.block_on(in_task.as_mut());
        block_on(outside.as_mut());
        assert_eq!(verdict(&ctx), "D/D", "paused: {is_paused}");
    }
}

#[test]
fn c00_runtime_that_ends_wakes_the_waiters_on_its_virtual_clock() {
    let ending = paused();
    let ctx = ending.block_on(async { soon() });
    let (wakes, waker) = Wakes::new();
    let mut done = pin!(ctx.done());
    assert!(ending.block_on(async { poll_with(done.as_mut(), &waker) }).is_pending());
    drop(ending);
    assert_eq!(wakes.count(), 1, "its timer is gone, so it has to set another");
    block_on(done);
    assert_eq!(verdict(&ctx), "D/D");
}

#[test]
fn c00_hook_runs_though_its_runtime_ended_before_the_deadline() {
    for is_paused in [false, true] {
        let ending = if is_paused { paused() } else { current_thread() };
        let (sender, receiver) = channel();
        ending.block_on(async {
            let ctx = soon();
            ctx.clone().after_func(move || sender.send(ctx.err()).unwrap());
        });
        drop(ending);
        assert_eq!(receiver.recv(), Ok(Some(ContextError::DeadlineExceeded)), "paused: {is_paused}");
    }
}

#[test]
fn c00_idle_runtime_does_not_delay_other_waiters() {
    let idle = current_thread();
    let (ctx, mut done) = idle.block_on(async {
        let ctx = soon();
        let mut done = Box::pin(ctx.done_owned());
        let _ = poll_once(done.as_mut());
        (ctx, done)
    });
    block_on(done.as_mut());
    assert_eq!(verdict(&ctx), "D/D");
    drop(idle);
}

#[test]
fn c00_blocked_runtime_does_not_delay_other_waiters() {
    let ctx = soon();
    let (blocked, may_end) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            current_thread().block_on(async {
                let waiting = ctx.spawn(pending::<()>());
                tokio::task::yield_now().await;
                blocked.wait();
                may_end.wait();
                assert_eq!(waiting.await.unwrap(), Err(ContextError::DeadlineExceeded));
            });
        });
        blocked.wait();
        block_on(ctx.done());
        may_end.wait();
    });
}

#[test]
fn c00_values_scopes_and_cancellation_work_outside_a_runtime() {
    static KEY: Key<u8> = Key::new("key");
    let handle = Context::background().with_value(&KEY, 1).with_cancel();
    let ctx = handle.with_timeout(60 * SECOND);
    assert_eq!(
        (ctx.value(&KEY), ctx.err(), ctx.enter(|| Context::current().deadline())),
        (Some(&1), None, ctx.deadline())
    );
    let merged = Context::merge(&ctx, &handle);
    thread::scope(|scope| {
        scope.spawn(|| block_on(merged.done()));
        handle.cancel_with(Named("P"));
    });
    assert_eq!([verdict(&ctx), verdict(&merged)], ["C/P", "C/P"]);
}

#[test]
fn r05_deadline_wakes_every_waiter_though_other_wakers_panic() {
    /// Reports that it was woken. Some of them then panic.
    struct Reporting(Sender<bool>, bool);
    impl Wake for Reporting {
        fn wake(self: Arc<Self>) {
            self.0.send(self.1).unwrap();
            assert!(!self.1, "a waker that panics");
        }
    }
    let (woken, wakes) = channel();
    let [quiet, panicking] = [false, true].map(|panics| Waker::from(Arc::new(Reporting(woken.clone(), panics))));
    let ctx = soon();
    let mut waiting: Vec<_> = (0..9).map(|_| Box::pin(ctx.done())).collect();
    let polls = waiting.iter_mut().enumerate();
    // All of them, unless this thread was suspended until the deadline.
    let pending = polls
        .filter_map(|(n, done)| {
            let waker = if n % 3 == 0 { &panicking } else { &quiet };
            poll_with(done.as_mut(), waker).is_pending().then_some(n % 3 == 0)
        })
        .collect::<Vec<_>>();
    // It hangs if one is not woken.
    let reported: Vec<_> = wakes.iter().take(pending.len()).collect();
    assert_eq!(reported.iter().filter(|panics| **panics).count(), pending.iter().filter(|panics| **panics).count());
    block_on(soon().done());
    assert!(wakes.try_recv().is_err(), "each is woken once, and the timer thread still runs");
}

#[test]
fn r05_payload_of_a_wakers_panic_is_dropped() {
    struct Carrying(Mutex<Option<ReportsDrop>>);
    impl Wake for Carrying {
        fn wake(self: Arc<Self>) {
            let payload = self.0.lock().unwrap().take();
            panic_any(payload);
        }
    }
    let (payload, dropped) = ReportsDrop::new();
    // Kept until the end: its own drop would report, too.
    let waker = Waker::from(Arc::new(Carrying(Mutex::new(Some(payload)))));
    let ctx = soon();
    let mut done = Box::pin(ctx.done());
    // Ready at once only if this thread was suspended until the deadline.
    if poll_with(done.as_mut(), &waker).is_pending() {
        // It hangs if the payload is never dropped.
        dropped.recv().unwrap();
    }
}

#[test]
fn c32_waker_that_blocks_does_not_delay_other_deadlines() {
    /// Blocks the waking thread until the sender is dropped.
    struct Blocking(Mutex<Receiver<()>>);
    impl Wake for Blocking {
        fn wake(self: Arc<Self>) {
            assert!(self.0.lock().unwrap().recv().is_err());
        }
    }
    let (release, blocked): (Vec<_>, Vec<_>) = (0..3)
        .map(|_| {
            let (release, released) = channel();
            (release, Waker::from(Arc::new(Blocking(Mutex::new(released)))))
        })
        .unzip();
    let shared = soon();
    let mut waiting: Vec<_> = blocked
        .iter()
        .map(|waker| {
            let mut done = Box::pin(shared.done());
            assert!(poll_with(done.as_mut(), waker).is_pending());
            done
        })
        .collect();
    // Due at the same time and later. Each hangs if its wake-up waits for a waker that blocks.
    let beside = shared.clone();
    block_on(beside.done());
    block_on(soon().done());
    block_on(soon().done());
    drop(release);
    assert!(waiting.iter_mut().all(|done| poll_once(done.as_mut()).is_ready()));
    block_on(soon().done());
}

#[test]
fn c08_deadline_beyond_the_range_of_every_timer_does_not_panic() {
    let mut farthest = RealInstant::now();
    let mut step = Duration::from_secs(u64::MAX / 4);
    while step > Duration::ZERO {
        match farthest.checked_add(step) {
            Some(later) => farthest = later,
            None => step /= 2,
        }
    }
    assert_eq!(farthest.checked_add(Duration::from_nanos(1)), None);
    let handle = Context::background().with_cancel();
    let wait = || {
        let ctx = handle.with_deadline(farthest);
        assert_eq!((ctx.deadline(), verdict(&ctx).as_str()), (Some(farthest), "-/-"));
        assert!(ctx.remaining().is_some_and(|left| left > Duration::from_secs(1 << 40)));
        assert!(!is_ready(&ctx));
        ctx.after_func(|| {}).stop()
    };
    assert!(wait());
    assert!(current_thread().block_on(async { wait() }));
    assert!(paused().block_on(async { wait() }));
    // An earlier deadline still fires.
    let (far, soon) = (handle.with_deadline(farthest), soon());
    let mut waiting = pin!(far.done());
    assert!(poll_once(waiting.as_mut()).is_pending());
    block_on(soon.done());
    let ctx = far.clone();
    handle.cancel();
    assert_eq!(verdict(&ctx), "C/C");
}
