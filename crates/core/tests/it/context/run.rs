//! C23: running work until the context is done, and which side wins a tie.

use std::cell::Cell;
use std::future::{pending, poll_fn, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use throughline_core::{Context, ContextError, Key, Run};
use tokio::time::{Instant, advance, sleep};

use super::{Named, SECOND, Wakes, block_on, poll_once, poll_with, verdict};

/// Work that counts its polls and is ready at the given poll.
fn ready_at(poll: u32, polls: &Cell<u32>) -> impl Future<Output = u32> {
    poll_fn(move |_| {
        polls.set(polls.get() + 1);
        if polls.get() == poll { Poll::Ready(poll) } else { Poll::Pending }
    })
}

/// Moves the clock without running the timers of the runtime.
fn advance_unseen(by: Duration) {
    let _ = poll_once(pin!(advance(by)));
}

#[tokio::test(start_paused = true)]
async fn c23_run_returns_the_output_or_the_error() {
    let ctx = Context::background().with_timeout(SECOND);
    assert_eq!(ctx.run(ready(7)).await, Ok(7));
    assert_eq!(ctx.run(async { sleep(SECOND / 2).await }).await, Ok(()));
    assert_eq!(ctx.run(sleep(2 * SECOND)).await, Err(ContextError::DeadlineExceeded));
    let handle = Context::background().with_cancel();
    let mut work = pin!(handle.run(pending::<()>()));
    assert!(poll_once(work.as_mut()).is_pending());
    handle.cancel_with(Named("P"));
    assert_eq!(work.await, Err(ContextError::Canceled));
    assert_eq!(Context::background().run(ready(7)).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn c23_result_that_is_ready_exactly_at_the_deadline_wins() {
    let ctx = Context::background().with_timeout(SECOND);
    let started_at = Instant::now();
    assert_eq!(ctx.run(sleep(SECOND)).await, Ok(()));
    assert_eq!((started_at.elapsed(), verdict(&ctx).as_str()), (SECOND, "D/D"));
}

#[tokio::test(start_paused = true)]
async fn c23_work_is_polled_once_after_an_unobserved_deadline() {
    for ready_at_poll in [1, 2] {
        let ctx = Context::background().with_timeout(SECOND);
        advance(2 * SECOND).await;
        let polls = Cell::new(0);
        let result = ctx.run(ready_at(ready_at_poll, &polls)).await;
        let expected = if ready_at_poll == 1 { Ok(1) } else { Err(ContextError::DeadlineExceeded) };
        assert_eq!((result, polls.get()), (expected, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn c23_context_known_to_be_done_never_polls_the_work() {
    let cancelled = Context::background().with_cancel();
    cancelled.cancel();
    let expired = Context::background().with_timeout(SECOND);
    advance(SECOND).await;
    assert_eq!(expired.err(), Some(ContextError::DeadlineExceeded), "now it is known to be done");
    for ctx in [cancelled.context(), &cancelled.with_timeout(SECOND), &cancelled.with_cancel(), &expired] {
        let polls = Cell::new(0);
        assert_eq!(ctx.run(ready_at(1, &polls)).await, Err(ctx.err().unwrap()), "{ctx:?}");
        assert_eq!(polls.get(), 0, "{ctx:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn c04_work_under_an_already_done_child_is_never_polled() {
    let now = Instant::now().into_std();
    let (live, unseen) = (Context::background().with_cancel(), Context::background().with_timeout(SECOND));
    advance(2 * SECOND).await;
    let past = now + SECOND;
    for ctx in [
        live.with_timeout(Duration::ZERO),
        live.with_timeout_cause(Duration::ZERO, Named("slow")),
        live.with_timeout(SECOND).with_timeout(Duration::ZERO),
        live.with_deadline(past),
        live.with_deadline_cause(past, Named("slow")),
        live.with_timeout(SECOND).with_deadline(past),
        live.with_deadline(past).with_cancel().disarm(),
        Context::merge(&live, &live.with_deadline(past)),
        // The earlier deadline is the one of the parent. It has passed unobserved.
        unseen.with_deadline(now + 2 * SECOND),
        unseen.with_timeout(SECOND),
        unseen.with_timeout(Duration::MAX),
    ] {
        let polls = Cell::new(0);
        assert_eq!(ctx.run(ready_at(1, &polls)).await, Err(ContextError::DeadlineExceeded), "{ctx:?}");
        assert_eq!(polls.get(), 0, "{ctx:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn c23_deadline_observed_on_the_parent_is_known() {
    let above = Context::background().with_timeout(SECOND);
    let ctx = above.with_cancel();
    advance(SECOND).await;
    assert!(above.is_done());
    let polls = Cell::new(0);
    assert_eq!(ctx.run(ready_at(1, &polls)).await, Err(ContextError::DeadlineExceeded));
    assert_eq!(polls.get(), 0);
}

#[test]
fn c23_loop_of_work_that_is_always_ready_ends_at_the_deadline() {
    static KEY: Key<u64> = Key::new("key");
    let timed = || Context::background().with_timeout(Duration::from_millis(20));
    // Each loop hangs if it never sees the deadline.
    let ctx = timed();
    while block_on(ctx.run(ready(7))).is_ok() {}
    let ctx = timed();
    while block_on(ctx.with_cancel().with_value(&KEY, 1).run(ready(7))).is_ok() {}
    let ctx = timed().with_cancel().disarm();
    while block_on(ctx.with_timeout(SECOND).run(ready(7))).is_ok() {}
    let at = timed().deadline().unwrap();
    let ctx = Context::background().with_deadline(at);
    while block_on(ctx.run(ready(7))).is_ok() {}
}

#[tokio::test(start_paused = true)]
async fn c23_loop_of_work_that_is_always_ready_does_not_move_virtual_time() {
    let ctx = Context::background().with_timeout(SECOND);
    let started_at = Instant::now();
    for _ in 0..100 {
        assert_eq!(ctx.run(ready(7)).await, Ok(7));
    }
    tokio::task::yield_now().await;
    assert_eq!(started_at.elapsed(), Duration::ZERO);
    advance(SECOND).await;
    let polls = Cell::new(0);
    assert_eq!(ctx.run(ready_at(1, &polls)).await, Err(ContextError::DeadlineExceeded));
    assert_eq!(polls.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn c23_work_is_not_polled_again_once_the_context_is_known_to_be_done() {
    for is_cancelled in [true, false] {
        let handle = Context::background().with_cancel();
        let ctx = handle.with_timeout(SECOND).with_cancel();
        let (_, waker) = Wakes::new();
        let polls = Cell::new(0);
        let mut work = pin!(ctx.run(ready_at(3, &polls)));
        for _ in 0..2 {
            assert!(poll_with(work.as_mut(), &waker).is_pending());
        }
        if is_cancelled {
            handle.cancel();
        } else {
            advance_unseen(SECOND);
        }
        let error = ctx.err().unwrap();
        assert_eq!(poll_with(work.as_mut(), &waker), Poll::Ready(Err(error)));
        assert_eq!(polls.get(), 2, "cancelled: {is_cancelled}");
    }
}

#[test]
fn c23_run_wakes_its_task_once_when_the_context_is_done() {
    let handle = Context::background().with_cancel();
    let child = handle.with_cancel();
    let (wakes, waker) = Wakes::new();
    let mut work = pin!(child.run(pending::<()>()));
    for _ in 0..3 {
        assert!(poll_with(work.as_mut(), &waker).is_pending());
    }
    handle.cancel();
    child.cancel();
    assert_eq!(wakes.count(), 1);
    assert_eq!(poll_with(work, &waker), Poll::Ready(Err(ContextError::Canceled)));
}

#[test]
fn c23_run_follows_its_task_to_another_waker() {
    let handle = Context::background().with_cancel();
    let ((early, early_waker), (late, late_waker)) = (Wakes::new(), Wakes::new());
    let mut work = pin!(handle.run(pending::<()>()));
    assert!(poll_with(work.as_mut(), &early_waker).is_pending());
    assert!(poll_with(work.as_mut(), &late_waker).is_pending());
    handle.cancel();
    assert_eq!((early.count(), late.count()), (0, 1));
}

#[test]
fn c23_work_and_waker_are_dropped_with_the_future() {
    let handle = Context::background().with_cancel();
    let (wakes, waker) = Wakes::new();
    let alive = Arc::new(());
    let work = alive.clone();
    let mut run = Box::pin(handle.run(async move {
        pending::<()>().await;
        drop(work);
    }));
    assert!(poll_with(run.as_mut(), &waker).is_pending());
    drop(run);
    assert_eq!((Arc::strong_count(&alive), Arc::strong_count(&wakes)), (1, 2));
    handle.cancel();
    assert_eq!(wakes.count(), 0);
}

#[test]
fn c23_run_is_send_and_sync_if_its_work_is() {
    fn check<T: Send + Sync>() {}
    check::<Run<'static, std::future::Ready<()>>>();
}

#[tokio::test(start_paused = true)]
async fn c23_nested_runs_end_with_the_nearest_deadline() {
    let outer = Context::background().with_timeout(3 * SECOND);
    let inner = outer.with_timeout(SECOND);
    let started_at = Instant::now();
    let result = outer.run(async { (inner.run(pending::<()>()).await, sleep(SECOND).await) }).await;
    assert_eq!((result, started_at.elapsed()), (Ok((Err(ContextError::DeadlineExceeded), ())), 2 * SECOND));
}
