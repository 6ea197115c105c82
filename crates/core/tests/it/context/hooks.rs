//! C22 and R5: callbacks for when a context is done.

use std::cell::RefCell;
use std::panic::panic_any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Barrier};
use std::thread::{self, ThreadId};
use std::time::Duration;

use throughline_core::{AfterFunc, CancelHandle, Context, ContextError, Key};
use tokio::runtime::{Builder, Handle, Runtime};

use super::{Named, SECOND, block_on, verdict};

/// A runtime whose threads can be told by their name.
fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).thread_name(name).build().unwrap()
}

/// A callback that says on which thread it runs, and the place where it says so. It hangs up when it is dropped uncalled.
fn telling() -> (impl FnOnce() + Send + 'static, Receiver<(Option<String>, ThreadId)>) {
    let (sender, receiver) = channel();
    let tell = move || {
        let thread = thread::current();
        sender.send((thread.name().map(str::to_owned), thread.id())).unwrap();
    };
    (tell, receiver)
}

fn name_of(told: &Receiver<(Option<String>, ThreadId)>) -> String {
    told.recv().unwrap().0.unwrap()
}

const HOOK_THREAD: &str = "throughline-hooks";

#[test]
fn c22_runs_on_the_blocking_pool_of_the_runtime_that_registered_it() {
    let (registering, other) = (runtime("registering"), runtime("other"));
    let handle = Context::background().with_cancel();
    let (tell, told) = telling();
    registering.block_on(async { handle.after_func(tell) });
    let ctx = handle.context().clone();
    other.block_on(async { handle.cancel() });
    assert_eq!((name_of(&told).as_str(), verdict(&ctx).as_str()), ("registering", "C/C"));
}

#[test]
fn c22_runs_on_one_hook_thread_without_a_runtime() {
    let handle = Context::background().with_cancel();
    let told = [(); 3].map(|()| {
        let (tell, told) = telling();
        handle.after_func(tell);
        told
    });
    // Neither who cancels nor the runtime it is in matters.
    runtime("cancelling").block_on(async { handle.cancel() });
    let ran_on = told.map(|told| told.recv().unwrap());
    assert_eq!(ran_on[0].0.as_deref(), Some(HOOK_THREAD));
    assert!(ran_on.iter().all(|thread| *thread == ran_on[0]), "{ran_on:?}");
}

#[test]
fn c22_runs_on_the_hook_thread_when_its_runtime_has_ended() {
    let handle = Context::background().with_cancel();
    let (tell, told) = telling();
    let gone = runtime("gone");
    gone.block_on(async { handle.after_func(tell) });
    drop(gone);
    handle.cancel();
    assert_eq!(name_of(&told), HOOK_THREAD);
}

#[test]
fn c22_runs_though_its_runtime_ends_before_its_turn() {
    let handle = Context::background().with_cancel();
    let (tell, told) = telling();
    let ending = runtime("ending");
    // The pool's one thread is busy until the runtime has ended.
    let (busy, may_end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (is_busy, gate) = (busy.clone(), may_end.clone());
    ending.spawn_blocking(move || {
        is_busy.wait();
        gate.wait();
    });
    busy.wait();
    ending.block_on(async { handle.after_func(tell) });
    handle.cancel();
    assert_eq!(told.try_recv(), Err(TryRecvError::Empty));
    ending.shutdown_background();
    may_end.wait();
    assert!([HOOK_THREAD, "ending"].contains(&name_of(&told).as_str()));
}

#[test]
fn c22_runs_though_it_holds_the_last_of_a_context_whose_value_panics() {
    static BOMB: Key<Bomb> = Key::new("bomb");
    for in_runtime in [false, true] {
        let pool = runtime("pool");
        let _guard = in_runtime.then(|| pool.enter());
        let handle = Context::background().with_cancel();
        let (tell, told) = telling();
        handle.with_value(&BOMB, Bomb).after_func(tell);
        handle.cancel();
        assert_eq!(name_of(&told), if in_runtime { "pool" } else { HOOK_THREAD });
    }
}

#[test]
fn c22_runs_though_cancelled_while_a_thread_ends() {
    thread_local! { static LAST: RefCell<Option<CancelHandle>> = const { RefCell::new(None) } }
    let pool = runtime("pool");
    for (in_runtime, touches_tokio) in [(false, false), (false, true), (true, false), (true, true)] {
        let handle = Context::background().with_cancel();
        let (tell, told) = telling();
        let (tell_below, told_below) = telling();
        {
            let _guard = in_runtime.then(|| pool.enter());
            handle.after_func(tell);
            handle.with_timeout(60 * SECOND).after_func(tell_below);
        }
        let tokio = pool.handle().clone();
        thread::spawn(move || {
            LAST.set(Some(handle));
            if touches_tokio {
                tokio.block_on(async {});
            }
        })
        .join()
        .unwrap();
        let expected = if in_runtime { "pool" } else { HOOK_THREAD };
        assert_eq!([name_of(&told), name_of(&told_below)], [expected; 2]);
    }
}

#[test]
fn c22_runs_though_every_blocking_thread_of_its_runtime_is_taken() {
    let pool = runtime("pool");
    let handle = Context::background().with_cancel();
    let (feed, fed) = channel();
    let (waits, is_waiting) = channel();
    let waiting = pool.spawn_blocking(move || {
        waits.send(()).unwrap();
        fed.recv().unwrap()
    });
    is_waiting.recv().unwrap();
    // The pool's one thread waits for what the callback brings.
    pool.block_on(async {
        handle.after_func(move || feed.send(Handle::current().id()).unwrap());
        handle.cancel();
        assert_eq!(waiting.await.unwrap(), Handle::current().id(), "its runtime is entered");
    });
}

#[test]
fn c22_callbacks_that_block_hold_up_no_other_one() {
    for in_runtime in [false, true] {
        let pool = runtime("pool");
        let _guard = in_runtime.then(|| pool.enter());
        let handle = Context::background().with_cancel();
        let (release, may_end): (Vec<_>, Vec<_>) = (0..5).map(|_| channel::<()>()).unzip();
        for released in may_end {
            handle.after_func(move || assert!(released.recv().is_err()));
        }
        let (tell, told) = telling();
        handle.after_func(tell);
        handle.cancel();
        told.recv().unwrap();
        drop(release);
        // Their threads are there for what comes then.
        let (tell, told) = telling();
        handle.after_func(tell);
        told.recv().unwrap();
    }
}

#[test]
fn c22_runtime_is_entered_while_it_runs() {
    let pool = runtime("pool");
    let handle = Context::background().with_cancel();
    let (sender, receiver) = channel();
    pool.block_on(async { handle.after_func(move || sender.send(Handle::current().id()).unwrap()) });
    handle.cancel();
    assert_eq!(receiver.recv().unwrap(), pool.handle().id());
}

#[test]
fn c22_runs_at_once_if_already_done() {
    let handle = Context::background().with_cancel();
    handle.cancel();
    let expired = Context::background().with_timeout(Duration::ZERO);
    for ctx in [handle.context(), &expired] {
        let (tell, told) = telling();
        let registration = ctx.after_func(tell);
        assert!(!registration.stop(), "it is on its way");
        let (_, ran_on) = told.recv().unwrap();
        assert_ne!(ran_on, thread::current().id(), "off this stack, also then");
    }
}

#[test]
fn c22_runs_off_the_cancellers_stack_and_cancel_returns_though_it_blocks() {
    for in_runtime in [false, true] {
        let handle = Context::background().with_cancel();
        let canceller_is_back = Arc::new(Barrier::new(2));
        let (gate, (ended, end)) = (canceller_is_back.clone(), channel());
        let pool = runtime("pool");
        let _guard = in_runtime.then(|| pool.enter());
        handle.after_func(move || {
            gate.wait();
            ended.send(()).unwrap();
        });
        handle.cancel();
        assert_eq!(end.try_recv(), Err(TryRecvError::Empty));
        canceller_is_back.wait();
        end.recv().unwrap();
    }
}

#[test]
fn c22_runs_once_though_cancelled_by_many() {
    for _ in 0..100 {
        let handle = Context::background().with_cancel();
        let child = handle.with_cancel();
        let ran = Arc::new(AtomicUsize::new(0));
        let (counter, (sender, receiver)) = (ran.clone(), channel());
        child.after_func(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            sender.send(()).unwrap();
        });
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for handle in [&handle, &child, &child] {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    handle.cancel();
                });
            }
        });
        receiver.recv().unwrap();
        assert!(receiver.recv().is_err(), "the callback is gone after its one call");
        assert_eq!(ran.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn c22_arms_the_deadlines_timer() {
    // Nobody waits for the context, and nobody asks it.
    let (tell, told) = telling();
    Context::background().with_timeout(Duration::from_millis(5)).after_func(tell);
    assert_eq!(name_of(&told), HOOK_THREAD);
}

#[tokio::test(start_paused = true)]
async fn c22_arms_the_deadlines_timer_on_a_virtual_clock() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let born = tokio::time::Instant::now();
    for seconds in [3, 1, 2] {
        let sender = sender.clone();
        let ctx = Context::background().with_timeout(seconds * SECOND);
        ctx.clone().after_func(move || sender.send((seconds, verdict(&ctx))).unwrap());
    }
    for seconds in 1..=3 {
        assert_eq!(receiver.recv().await, Some((seconds, "D/D".to_owned())));
        assert_eq!(born.elapsed(), seconds * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn c22_more_hooks_than_a_task_has_budget_for_are_all_armed() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let ctx = Context::background().with_timeout(SECOND);
    for n in 0..1000 {
        let sender = sender.clone();
        ctx.after_func(move || sender.send(n).unwrap());
    }
    drop(sender);
    let mut ran = Vec::new();
    while let Some(n) = receiver.recv().await {
        ran.push(n);
    }
    ran.sort_unstable();
    assert_eq!(ran, (0..1000).collect::<Vec<_>>());
}

#[test]
fn c22_dropping_the_registration_leaves_it_armed() {
    let handle = Context::background().with_cancel();
    let (tell, told) = telling();
    let registration: AfterFunc = handle.after_func(tell);
    drop(registration);
    handle.cancel();
    assert_eq!(name_of(&told), HOOK_THREAD);
}

#[test]
fn c22_stop_is_true_once_and_nothing_runs() {
    let handle = Context::background().with_cancel();
    let (tell, told) = telling();
    let registration = handle.after_func(tell);
    assert!(registration.stop());
    assert!(told.recv().is_err(), "a stopped callback is dropped at once");
    assert!(!registration.stop(), "it had been prevented before");
    handle.cancel();
    assert!(!registration.stop());
}

#[test]
fn c22_stop_is_false_once_it_has_begun_and_does_not_wait() {
    let handle = Context::background().with_cancel();
    let (begun, may_end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (is_running, gate, (ended, end)) = (begun.clone(), may_end.clone(), channel());
    let registration = handle.after_func(move || {
        is_running.wait();
        gate.wait();
        ended.send(()).unwrap();
    });
    handle.cancel();
    begun.wait();
    assert!(!registration.stop());
    assert_eq!(end.try_recv(), Err(TryRecvError::Empty));
    may_end.wait();
    end.recv().unwrap();
    assert!(!registration.stop(), "nor after it has ended");
}

#[test]
fn c22_stop_is_true_exactly_when_it_prevented_the_call() {
    for round in 0..300 {
        let handle = Context::background().with_cancel();
        let (tell, told) = telling();
        let registration = handle.after_func(tell);
        let start = Barrier::new(3);
        let stopped = thread::scope(|scope| {
            let stops = [(); 2].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    registration.stop()
                })
            });
            start.wait();
            handle.cancel();
            stops.map(|stop| usize::from(stop.join().unwrap())).iter().sum::<usize>()
        });
        // Stopped, it hangs up; else it has run or will.
        let ran = usize::from(told.recv().is_ok());
        assert_eq!(stopped + ran, 1, "round {round}: {stopped} stopped it, and it ran {ran} times");
    }
}

#[test]
fn c22_several_registrations_are_independent() {
    let handle = Context::background().with_cancel();
    let told: Vec<_> = (0..9)
        .map(|n| {
            let (tell, told) = telling();
            let registration = handle.after_func(tell);
            if n % 3 == 0 {
                assert!(registration.stop());
            }
            told
        })
        .collect();
    handle.cancel();
    let ran: Vec<_> = told.iter().map(|told| told.recv().is_ok()).collect();
    assert_eq!(ran, [false, true, true, false, true, true, false, true, true]);
}

#[test]
fn c22_keeps_nothing_of_a_context_that_can_never_be_done() {
    let (tell, told) = telling();
    let registration = Context::background().after_func(tell);
    assert_eq!(told.try_recv(), Err(TryRecvError::Empty));
    drop(registration);
    assert_eq!(told.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn c22_may_use_its_context_and_register_another() {
    fn again(ctx: &Context, left: u32, sender: Sender<(u32, Option<ContextError>)>) {
        let below = ctx.clone();
        ctx.after_func(move || {
            sender.send((left, below.err())).unwrap();
            if left > 0 {
                again(&below, left - 1, sender);
            }
        });
    }
    let handle = Context::background().with_cancel();
    let (sender, receiver) = channel();
    again(&handle, 3, sender);
    handle.cancel_with(Named("P"));
    let seen: Vec<_> = receiver.iter().collect();
    assert_eq!(seen, [3, 2, 1, 0].map(|left| (left, Some(ContextError::Canceled))));
}

/// A panic that panics again when it is thrown away.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a payload that panics");
        }
    }
}

#[test]
fn r05_panicking_hooks_keep_no_other_from_running() {
    for in_runtime in [false, true] {
        let pool = runtime("pool");
        let _guard = in_runtime.then(|| pool.enter());
        let handle = Context::background().with_cancel();
        let told: Vec<_> = (0..9)
            .map(|n| {
                let (tell, told) = telling();
                handle.after_func(move || match n % 3 {
                    0 => panic!("a hook that panics"),
                    1 => panic_any(Bomb),
                    _ => tell(),
                });
                told
            })
            .collect();
        handle.cancel();
        let ran = told.iter().filter(|told| told.recv().is_ok()).count();
        assert_eq!(ran, 3);
        let (tell, told) = telling();
        handle.after_func(tell);
        assert_eq!(name_of(&told), if in_runtime { "pool" } else { HOOK_THREAD }, "nor one that comes later");
    }
}

#[test]
fn r05_what_a_hooks_panic_carries_is_dropped() {
    let handle = Context::background().with_cancel();
    let carried = Arc::new(());
    let payload = carried.clone();
    handle.after_func(move || panic_any(payload));
    let (tell, told) = telling();
    handle.after_func(tell);
    handle.cancel();
    // The second comes after the first on the one thread.
    assert_eq!(name_of(&told), HOOK_THREAD);
    assert_eq!(Arc::strong_count(&carried), 1);
}

#[test]
fn c22_hook_thread_runs_in_the_order_of_registration() {
    let handle = Context::background().with_cancel();
    let (sender, receiver) = channel();
    for n in 0..50 {
        let sender = sender.clone();
        handle.after_func(move || sender.send(n).unwrap());
    }
    drop(sender);
    handle.cancel();
    assert_eq!(receiver.iter().collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
}

#[test]
fn c22_registered_while_the_context_is_cancelled_runs_all_the_same() {
    for _ in 0..200 {
        let handle = Context::background().with_cancel();
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..2 {
                let (start, ctx) = (&start, handle.with_cancel().disarm());
                scope.spawn(move || {
                    let (tell, told) = telling();
                    start.wait();
                    ctx.after_func(tell);
                    // It hangs if the callback is lost.
                    told.recv().unwrap();
                });
            }
            start.wait();
            handle.cancel();
        });
        block_on(handle.done());
    }
}
