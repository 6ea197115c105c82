//! C9–C11, C14 and C15: observing and waiting.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use throughline_core::{Context, ContextError, Done, DoneOwned};
use tokio::time::{Instant, advance};

use super::{Named, SECOND, Wakes, is_ready, poll_once, poll_with, verdict};

#[tokio::test(start_paused = true)]
async fn c09_done_context_still_returns_its_deadline() {
    let at = (Instant::now() + SECOND).into_std();
    let handle = Context::background().with_cancel();
    let ctx = handle.with_deadline(at);
    assert_eq!((ctx.deadline(), ctx.remaining()), (Some(at), Some(SECOND)));
    advance(SECOND / 4).await;
    assert_eq!((ctx.deadline(), ctx.remaining()), (Some(at), Some(SECOND * 3 / 4)));
    handle.cancel();
    assert_eq!((ctx.deadline(), ctx.remaining()), (Some(at), Some(Duration::ZERO)), "cancelled before the deadline");
    advance(SECOND).await;
    assert_eq!((ctx.deadline(), ctx.remaining()), (Some(at), Some(Duration::ZERO)));
    assert_eq!((handle.deadline(), handle.remaining()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn c10_err_is_never_none_after_the_deadline() {
    let ctx = Context::background().with_cancel().disarm().with_timeout(SECOND);
    let below = ctx.with_cancel();
    advance(SECOND - Duration::from_nanos(1)).await;
    assert_eq!((ctx.err(), below.err()), (None, None));
    advance(Duration::from_nanos(1)).await;
    // No task waited, so no timer fired.
    assert_eq!(below.err(), Some(ContextError::DeadlineExceeded));
    assert_eq!(ctx.err(), Some(ContextError::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn c10_err_wakes_no_waiter() {
    let ctx = Context::background().with_cancel().disarm().with_timeout(SECOND);
    let (wakes, waker) = Wakes::new();
    let mut done = pin!(ctx.done());
    assert!(poll_with(done.as_mut(), &waker).is_pending());
    // Moves the clock without running the timers of the runtime.
    let moved = pin!(advance(SECOND));
    let _ = poll_once(moved);
    assert_eq!(verdict(&ctx), "D/D");
    assert_eq!(wakes.count(), 0);
    assert!(poll_with(done, &waker).is_ready(), "C11: a pending future is ready on its next poll");
}

#[test]
fn c11_every_done_future_is_ready_after_err_returned_an_error() {
    let handle = Context::background().with_cancel();
    let ctx = handle.with_cancel();
    let mut old = pin!(ctx.done());
    let mut owned = pin!(ctx.done_owned());
    let mut unpolled = pin!(ctx.done());
    assert!(poll_once(old.as_mut()).is_pending() && poll_once(owned.as_mut()).is_pending());
    assert_eq!(ctx.err(), None);
    handle.cancel();
    assert_eq!(ctx.err(), Some(ContextError::Canceled));
    assert!(poll_once(old.as_mut()).is_ready() && poll_once(owned.as_mut()).is_ready());
    assert!(poll_once(unpolled.as_mut()).is_ready() && is_ready(&ctx));
    assert!(poll_once(old).is_ready() && poll_once(owned).is_ready(), "ready again");
}

#[test]
fn c11_err_returns_an_error_after_done_was_ready() {
    let ctx = Context::background().with_deadline(std::time::Instant::now() - SECOND);
    assert!(is_ready(&ctx));
    assert_eq!(ctx.err(), Some(ContextError::DeadlineExceeded));
}

#[test]
fn c14_done_wakes_the_latest_waker_once() {
    let handle = Context::background().with_cancel();
    let ctx = handle.with_cancel();
    let ((early, early_waker), (late, late_waker)) = (Wakes::new(), Wakes::new());
    let mut done = pin!(ctx.done());
    for waker in [&early_waker, &early_waker, &late_waker, &late_waker] {
        assert!(poll_with(done.as_mut(), waker).is_pending());
    }
    handle.cancel();
    ctx.cancel();
    assert_eq!((early.count(), late.count()), (0, 1));
    assert!(poll_with(done, &late_waker).is_ready());
}

#[test]
fn c14_dropped_done_is_not_woken_and_a_new_one_is() {
    let handle = Context::background().with_cancel();
    let ((gone, gone_waker), (wakes, waker)) = (Wakes::new(), Wakes::new());
    let (mut first, mut last) = (Box::pin(handle.done()), Box::pin(handle.done()));
    let mut middle = Box::pin(handle.done_owned());
    assert!(poll_with(first.as_mut(), &gone_waker).is_pending());
    assert!(poll_with(middle.as_mut(), &waker).is_pending());
    assert!(poll_with(last.as_mut(), &gone_waker).is_pending());
    drop((first, last));
    assert_eq!(std::sync::Arc::strong_count(&gone), 2, "a dropped future keeps no waker");
    let mut again = pin!(handle.done());
    assert!(poll_with(again.as_mut(), &waker).is_pending());
    handle.cancel();
    assert_eq!((gone.count(), wakes.count()), (0, 2));
    assert!(poll_once(again).is_ready() && poll_once(middle.as_mut()).is_ready());
}

#[test]
fn c14_waiters_are_woken_in_the_order_they_came() {
    use std::sync::{Arc, Mutex};
    struct Log(usize, Arc<Mutex<Vec<usize>>>);
    impl std::task::Wake for Log {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let handle = Context::background().with_cancel();
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(handle.done())).collect();
    for (n, done) in waiting.iter_mut().enumerate() {
        assert!(poll_with(done.as_mut(), &Arc::new(Log(n, log.clone())).into()).is_pending());
    }
    handle.cancel();
    assert_eq!(*log.lock().unwrap(), (0..100).collect::<Vec<_>>());
}

#[test]
fn c14_done_is_send_and_sync() {
    fn check<T: Send + Sync + Future<Output = ()>>() {}
    fn is_static<T: 'static>(_: T) {}
    check::<Done<'static>>();
    check::<DoneOwned>();
    is_static(Context::background().done_owned());
}

#[test]
fn c14_done_of_a_context_that_is_never_done_keeps_no_waker() {
    let never = Context::background().with_cancel().without_cancel();
    for ctx in [Context::background(), never] {
        let (wakes, waker) = Wakes::new();
        let mut done = pin!(ctx.done());
        assert!(poll_with(done.as_mut(), &waker).is_pending());
        assert_eq!(std::sync::Arc::strong_count(&wakes), 2, "{ctx:?}");
    }
}

#[test]
fn c15_check_ends_a_loop() {
    fn count(ctx: &Context, handle: &throughline_core::CancelHandle) -> Result<(), (u32, ContextError)> {
        for n in 0..10 {
            ctx.check().map_err(|error| (n, error))?;
            if n == 3 {
                handle.cancel_with(Named("enough"));
            }
        }
        Ok(())
    }
    let handle = Context::background().with_cancel();
    assert_eq!(count(&handle.with_cancel(), &handle), Err((4, ContextError::Canceled)));
}

#[test]
fn c15_context_error_converts_into_io_error() {
    for (error, kind, is_timeout) in [
        (ContextError::DeadlineExceeded, io::ErrorKind::TimedOut, true),
        (ContextError::Canceled, io::ErrorKind::Other, false),
    ] {
        let io = io::Error::from(error);
        assert_eq!((io.kind(), error.is_timeout()), (kind, is_timeout));
        assert_eq!(io.get_ref().and_then(|inner| inner.downcast_ref()), Some(&error));
        let error: &dyn std::error::Error = &error;
        assert!(error.to_string().contains("context"));
    }
}
