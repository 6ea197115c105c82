//! C28: the virtual clock of a runtime.

use std::future::pending;
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant as RealInstant};

use throughline_core::{Context, ContextError, Group, Key};
use tokio::time::{Instant, advance, sleep};

use super::clocks::{SOON, paused, soon};
use super::{SECOND, is_ready, poll_once, verdict};

#[test]
fn c28_paused_clock_that_shows_the_real_time_is_still_virtual() {
    for _ in 0..20 {
        paused().block_on(async {
            // The virtual clock is slightly ahead of the real one, which then catches up.
            while Instant::now().into_std() < RealInstant::now() {
                advance(Duration::from_millis(1)).await;
            }
            let ctx = Context::background().with_timeout(3600 * SECOND);
            while Instant::now().into_std() > RealInstant::now() + Duration::from_nanos(300) {
                std::hint::spin_loop();
            }
            // It takes an hour if the clock is mistaken for the real one.
            ctx.done().await;
            assert_eq!(ctx.err(), Some(ContextError::DeadlineExceeded));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn c28_deadlines_follow_virtual_time_to_the_nanosecond() {
    let start = Instant::now();
    for after in [Duration::from_nanos(1), Duration::from_micros(1500), SECOND, 3600 * SECOND, 400 * 86_400 * SECOND] {
        let ctx = Context::background().with_timeout(after);
        let at = ctx.deadline().unwrap();
        assert_eq!(ctx.remaining(), Some(after));
        ctx.done().await;
        // tokio's virtual clock moves by whole milliseconds when it moves automatically.
        let late = Instant::now().into_std().duration_since(at);
        assert!(late < Duration::from_millis(1), "{after:?} was {late:?} late");
    }
    assert!(start.elapsed() >= 400 * 86_400 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn c28_virtual_clock_drives_done_run_spawn_groups_and_hooks() {
    let started_at = Instant::now();
    let at = |seconds: u32| Context::background().with_timeout(seconds * SECOND);
    let mut group: Group<ContextError> = Group::new(&at(4));
    let in_group = group.spawn(async |_| pending::<Result<(), _>>().await);
    let (after_func, hook) = tokio::sync::oneshot::channel();
    at(5).after_func(move || after_func.send(()).unwrap());
    at(1).done().await;
    assert_eq!(started_at.elapsed(), SECOND);
    assert!(at(1).run(pending::<()>()).await.is_err());
    assert_eq!(started_at.elapsed(), 2 * SECOND);
    assert!(at(1).spawn(pending::<()>()).await.unwrap().is_err());
    assert_eq!(started_at.elapsed(), 3 * SECOND);
    assert_eq!((in_group.await, started_at.elapsed()), (Err(ContextError::DeadlineExceeded), 4 * SECOND));
    hook.await.unwrap();
    assert_eq!(started_at.elapsed(), 5 * SECOND);
}

/// Waits for another thread while the runtime is idle. A virtual clock then moves to the next
/// timer, if there is one.
async fn idle() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let elsewhere = thread::spawn(move || sender.send(()).unwrap());
    receiver.await.unwrap();
    elsewhere.join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn c28_contexts_never_move_a_paused_clock() {
    static KEY: Key<u8> = Key::new("key");
    let before = Instant::now();
    let handle = Context::background().with_cancel();
    let timed = handle.with_timeout(SECOND).with_value(&KEY, 1).with_cancel();
    let merged = Context::merge(&timed, &Context::background().with_timeout(2 * SECOND));
    let observed = (timed.err(), timed.cause(), timed.remaining(), timed.check(), merged.is_done(), timed.value(&KEY));
    assert!(observed.0.is_none() && observed.2 == Some(SECOND));
    idle().await;
    // A wait that has ended or was dropped leaves no timer behind.
    assert!(!is_ready(&timed) && !is_ready(&merged));
    assert_eq!(timed.run(async { 7 }).await, Ok(7));
    assert!(poll_once(pin!(timed.run(pending::<()>()))).is_pending());
    assert!(timed.after_func(|| unreachable!("it was stopped")).stop());
    assert_eq!(timed.spawn(async { 7 }).await.unwrap(), Ok(7));
    assert_eq!(timed.spawn_blocking(|_| 7).await.unwrap(), Ok(7));
    let mut group: Group<ContextError> = Group::new(&timed);
    assert_eq!(group.spawn(async |_| Ok(7)).await, Ok(7));
    group.join().await.unwrap();
    idle().await;
    let (sender, ran) = tokio::sync::oneshot::channel();
    timed.after_func(move || sender.send(()).unwrap());
    let mut done = pin!(merged.done());
    assert!(poll_once(done.as_mut()).is_pending());
    let waiting = timed.spawn(pending::<()>());
    handle.cancel();
    ran.await.unwrap();
    assert!(waiting.await.unwrap().is_err());
    done.await;
    idle().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn c28_deadline_without_a_waiter_does_not_stop_the_clock() {
    let contexts: Vec<_> = (1..100).map(|n| Context::background().with_timeout(n * SECOND / 10)).collect();
    let before = Instant::now();
    sleep(5 * SECOND).await;
    assert_eq!(before.elapsed(), 5 * SECOND);
    let expired = contexts.iter().filter(|ctx| ctx.is_done()).count();
    assert_eq!(expired, 50);
}

#[test]
fn c28_each_runtime_has_its_own_paused_clock() {
    let (first, second) = (paused(), paused());
    let (early, late) = (first.block_on(async { soon() }), second.block_on(async { soon() }));
    first.block_on(async {
        advance(SECOND).await;
        assert_eq!(verdict(&early), "D/D");
    });
    second.block_on(async { assert_eq!(verdict(&late), "-/-") });
    second.block_on(late.done());
}

#[tokio::test(start_paused = true)]
async fn c28_deadlines_follow_a_resumed_clock() {
    advance(3600 * SECOND).await;
    let ctx = Context::background().with_timeout(SOON);
    tokio::time::resume();
    let started_at = Instant::now();
    ctx.done().await;
    assert!(ctx.deadline().unwrap() <= Instant::now().into_std() && started_at.elapsed() < 3600 * SECOND);
}
