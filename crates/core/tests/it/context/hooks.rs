//! C22 and R5: callbacks for when a context is done.

use std::cell::RefCell;
use std::panic::panic_any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Barrier};
use std::thread::{self, ThreadId};
use std::time::Duration;

use throughline_core::{CancelHandle, Context, ContextError, Key};
use tokio::runtime::{Builder, Handle, Runtime};

use super::{Named, ReportsDrop, SECOND, block_on, verdict};

/// A runtime whose threads have a recognizable name.
fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).thread_name(name).build().unwrap()
}

/// A callback that sends the name and id of its thread, and the receiver. Dropping it without a
/// call closes the channel.
pub(super) fn reporting_callback() -> (impl FnOnce() + Send + 'static, Receiver<(Option<String>, ThreadId)>) {
    let (sender, receiver) = channel();
    let callback = move || {
        let thread = thread::current();
        sender.send((thread.name().map(str::to_owned), thread.id())).unwrap();
    };
    (callback, receiver)
}

pub(super) fn name_of(calls: &Receiver<(Option<String>, ThreadId)>) -> String {
    calls.recv().unwrap().0.unwrap()
}

pub(super) const HOOK_THREAD: &str = "throughline-hooks";

/// Asserts that the callback ran on the threads of the runtime `pool`, or on the library's.
///
/// If no thread of the pool takes the callback for 50 ms, as on a busy machine, the library does.
fn assert_ran_in(pool: Option<&str>, calls: &Receiver<(Option<String>, ThreadId)>) {
    let name = name_of(calls);
    assert!(name == HOOK_THREAD || Some(name.as_str()) == pool, "{name}");
}

#[test]
fn c22_runs_on_the_blocking_pool_of_the_runtime_that_registered_it() {
    let (registering, other) = (runtime("registering"), runtime("other"));
    let handle = Context::background().with_cancel();
    let (callback, calls) = reporting_callback();
    registering.block_on(async { handle.after_func(callback) });
    let ctx = handle.context().clone();
    other.block_on(async { handle.cancel() });
    assert_ran_in(Some("registering"), &calls);
    assert_eq!(verdict(&ctx), "C/C");
}

#[test]
fn c22_runs_on_one_library_thread_without_a_runtime() {
    let handle = Context::background().with_cancel();
    let calls = [(); 3].map(|()| {
        let (callback, calls) = reporting_callback();
        handle.after_func(callback);
        calls
    });
    // The cancelling thread and its runtime do not matter.
    runtime("cancelling").block_on(async { handle.cancel() });
    let ran_on = calls.map(|calls| calls.recv().unwrap());
    assert_eq!(ran_on[0].0.as_deref(), Some(HOOK_THREAD));
    // One thread, unless it was blocked for so long that another one took over.
    assert!(ran_on.iter().all(|thread| thread.0 == ran_on[0].0), "{ran_on:?}");
}

#[test]
fn c22_runs_on_a_library_thread_when_its_runtime_has_ended() {
    let handle = Context::background().with_cancel();
    let (callback, calls) = reporting_callback();
    let gone = runtime("gone");
    gone.block_on(async { handle.after_func(callback) });
    drop(gone);
    handle.cancel();
    assert_eq!(name_of(&calls), HOOK_THREAD);
}

#[test]
fn c22_runs_though_its_runtime_ends_while_it_is_queued() {
    let handle = Context::background().with_cancel();
    let (callback, calls) = reporting_callback();
    let ending = runtime("ending");
    // The only thread of the pool is busy until the runtime has ended.
    let (busy, may_end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (is_busy, gate) = (busy.clone(), may_end.clone());
    ending.spawn_blocking(move || {
        is_busy.wait();
        gate.wait();
    });
    busy.wait();
    ending.block_on(async { handle.after_func(callback) });
    handle.cancel();
    assert_eq!(calls.try_recv(), Err(TryRecvError::Empty));
    ending.shutdown_background();
    may_end.wait();
    assert!([HOOK_THREAD, "ending"].contains(&name_of(&calls).as_str()));
}

#[test]
fn c22_runs_though_it_holds_the_last_reference_to_a_value_that_panics() {
    static PANICS: Key<PanicsWhenDropped> = Key::new("bomb");
    for in_runtime in [false, true] {
        let pool = runtime("pool");
        let _guard = in_runtime.then(|| pool.enter());
        let handle = Context::background().with_cancel();
        let (callback, calls) = reporting_callback();
        handle.with_value(&PANICS, PanicsWhenDropped).after_func(callback);
        handle.cancel();
        assert_ran_in(in_runtime.then_some("pool"), &calls);
    }
}

#[test]
fn c22_runs_though_cancelled_while_a_thread_ends() {
    thread_local! { static LAST: RefCell<Option<CancelHandle>> = const { RefCell::new(None) } }
    let pool = runtime("pool");
    for (in_runtime, touches_tokio) in [(false, false), (false, true), (true, false), (true, true)] {
        let handle = Context::background().with_cancel();
        let (callback, calls) = reporting_callback();
        let (callback_below, calls_below) = reporting_callback();
        {
            let _guard = in_runtime.then(|| pool.enter());
            handle.after_func(callback);
            handle.with_timeout(60 * SECOND).after_func(callback_below);
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
        assert_ran_in(in_runtime.then_some("pool"), &calls);
        assert_ran_in(in_runtime.then_some("pool"), &calls_below);
    }
}

#[test]
fn c22_runs_though_every_blocking_thread_of_its_runtime_is_busy() {
    let pool = runtime("pool");
    let handle = Context::background().with_cancel();
    let (feed, fed) = channel();
    let (waits, is_waiting) = channel();
    let waiting = pool.spawn_blocking(move || {
        waits.send(()).unwrap();
        fed.recv().unwrap()
    });
    is_waiting.recv().unwrap();
    // The only thread of the pool waits for the value that the callback sends.
    pool.block_on(async {
        handle.after_func(move || feed.send(Handle::current().id()).unwrap());
        handle.cancel();
        assert_eq!(waiting.await.unwrap(), Handle::current().id(), "its runtime is entered");
    });
}

#[test]
fn c22_callbacks_that_block_do_not_stop_others() {
    for in_runtime in [false, true] {
        let pool = runtime("pool");
        let _guard = in_runtime.then(|| pool.enter());
        let handle = Context::background().with_cancel();
        let (release, may_end): (Vec<_>, Vec<_>) = (0..5).map(|_| channel::<()>()).unzip();
        for released in may_end {
            handle.after_func(move || assert!(released.recv().is_err()));
        }
        let (callback, calls) = reporting_callback();
        handle.after_func(callback);
        handle.cancel();
        calls.recv().unwrap();
        drop(release);
        // Later callbacks can use the threads of the released ones.
        let (callback, calls) = reporting_callback();
        handle.after_func(callback);
        calls.recv().unwrap();
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
        let (callback, calls) = reporting_callback();
        let registration = ctx.after_func(callback);
        assert!(!registration.stop(), "it was already queued");
        let (_, ran_on) = calls.recv().unwrap();
        assert_ne!(ran_on, thread::current().id(), "not on this stack, even if the context is already done");
    }
}

#[test]
fn c22_cancel_returns_while_the_callback_blocks_on_another_thread() {
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
fn c22_runs_once_though_several_threads_cancel() {
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
        assert!(receiver.recv().is_err(), "the callback is dropped after its only call");
        assert_eq!(ran.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn c22_runs_at_the_deadline_without_a_waiter() {
    // No task waits for the context or observes it.
    let (callback, calls) = reporting_callback();
    Context::background().with_timeout(Duration::from_millis(5)).after_func(callback);
    assert_eq!(name_of(&calls), HOOK_THREAD);
}

#[tokio::test(start_paused = true)]
async fn c22_runs_at_the_deadline_on_a_virtual_clock() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let started_at = tokio::time::Instant::now();
    for seconds in [3, 1, 2] {
        let sender = sender.clone();
        let ctx = Context::background().with_timeout(seconds * SECOND);
        ctx.clone().after_func(move || sender.send((seconds, verdict(&ctx))).unwrap());
    }
    for seconds in 1..=3 {
        assert_eq!(receiver.recv().await, Some((seconds, "D/D".to_owned())));
        assert_eq!(started_at.elapsed(), seconds * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn c22_more_hooks_than_a_poll_budget_all_run() {
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

/// A panic payload that panics again when it is dropped.
struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a payload that panics");
        }
    }
}

#[test]
fn r05_hooks_run_though_other_hooks_panic() {
    for in_runtime in [false, true] {
        let pool = runtime("pool");
        let _guard = in_runtime.then(|| pool.enter());
        let handle = Context::background().with_cancel();
        let calls: Vec<_> = (0..9)
            .map(|n| {
                let (callback, calls) = reporting_callback();
                handle.after_func(move || match n % 3 {
                    0 => panic!("a hook that panics"),
                    1 => panic_any(PanicsWhenDropped),
                    _ => callback(),
                });
                calls
            })
            .collect();
        handle.cancel();
        let ran = calls.iter().filter(|calls| calls.recv().is_ok()).count();
        assert_eq!(ran, 3);
        let (callback, calls) = reporting_callback();
        handle.after_func(callback);
        // One that is registered later runs, too.
        assert_ran_in(in_runtime.then_some("pool"), &calls);
    }
}

#[test]
fn r05_payload_of_a_hooks_panic_is_dropped() {
    let handle = Context::background().with_cancel();
    let (payload, dropped) = ReportsDrop::new();
    handle.after_func(move || panic_any(payload));
    handle.cancel();
    // It hangs if the payload is never dropped.
    dropped.recv().unwrap();
}

#[test]
fn c22_library_thread_runs_hooks_in_the_order_of_registration() {
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
fn c22_hook_registered_during_a_cancellation_runs() {
    for _ in 0..200 {
        let handle = Context::background().with_cancel();
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..2 {
                let (start, ctx) = (&start, handle.with_cancel().disarm());
                scope.spawn(move || {
                    let (callback, calls) = reporting_callback();
                    start.wait();
                    ctx.after_func(callback);
                    // It hangs if the callback is lost.
                    calls.recv().unwrap();
                });
            }
            start.wait();
            handle.cancel();
        });
        block_on(handle.done());
    }
}
