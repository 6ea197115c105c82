//! C30: `shielded` keeps a context live for a time after its parent is done.

use std::future::pending;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use throughline_core::{Cause, Context, ContextError, Key};
use tokio::time::{Instant, advance};

use super::{Named, SECOND, poll_once, verdict};

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn c30_after_a_cancellation_a_shield_is_live_for_its_grace() {
    let request = Context::background().with_cancel();
    let payment = request.shielded(GRACE);
    advance(GRACE * 3).await;
    assert!(!payment.is_done(), "the grace does not count before the parent is done");
    let mut done = pin!(payment.done());
    assert!(poll_once(done.as_mut()).is_pending());
    request.cancel_with(Named("gone"));
    assert!(request.is_done() && !payment.is_done() && payment.cause().is_none());
    let at = Instant::now();
    assert_eq!(payment.run(pending::<()>()).await, Err(ContextError::Canceled));
    assert_eq!(at.elapsed(), GRACE);
    assert!(poll_once(done.as_mut()).is_ready());
    assert!(matches!(payment.cause(), Some(Cause::Error(error)) if error.to_string() == "gone"));
}

#[tokio::test(start_paused = true)]
async fn c30_a_shield_has_the_deadline_of_its_parent_plus_its_grace() {
    let request = Context::background().with_timeout_cause(SECOND, Named("slow"));
    let payment = request.shielded(GRACE);
    assert_eq!(payment.deadline(), Some(request.deadline().unwrap() + GRACE));
    advance(SECOND).await;
    assert_eq!([verdict(&request), verdict(&payment)], ["D/slow", "-/-"]);
    advance(GRACE - Duration::from_millis(1)).await;
    assert_eq!(verdict(&payment), "-/-");
    advance(Duration::from_millis(1)).await;
    assert_eq!(verdict(&payment), "D/slow");
}

#[tokio::test(start_paused = true)]
async fn c30_the_first_end_of_the_parent_counts() {
    let root = Context::background().with_cancel();
    let request = root.with_timeout(5 * SECOND);
    let (early, late) = (request.shielded(GRACE), request.shielded(GRACE));
    advance(SECOND).await;
    root.cancel_with(Named("P"));
    advance(GRACE).await;
    assert_eq!(verdict(&early), "C/P", "ten seconds after the cancellation, not after the deadline");
    drop(late);

    let root = Context::background().with_cancel();
    let request = root.with_timeout(SECOND);
    let payment = request.shielded(GRACE);
    advance(5 * SECOND).await;
    root.cancel_with(Named("P"));
    advance(6 * SECOND).await;
    assert_eq!(verdict(&payment), "D/D", "a cancellation after the deadline changes nothing");
}

#[tokio::test(start_paused = true)]
async fn c30_below_a_parent_that_is_done_the_grace_counts_from_its_end() {
    let expired = Context::background().with_timeout(SECOND);
    advance(4 * SECOND).await;
    let payment = expired.shielded(GRACE);
    assert_eq!((verdict(&payment), payment.remaining()), ("-/-".into(), Some(GRACE - 3 * SECOND)));
    let over = expired.shielded(SECOND);
    assert_eq!(verdict(&over), "D/D");
    assert_eq!(
        over.run(async { unreachable!("work is not polled") }).await,
        Err::<(), _>(ContextError::DeadlineExceeded)
    );

    let cancelled = Context::background().with_cancel();
    cancelled.cancel_with(Named("K"));
    let first = cancelled.shielded(GRACE);
    advance(4 * SECOND).await;
    let (second, over) = (cancelled.shielded(GRACE), cancelled.shielded(SECOND));
    assert_eq!([verdict(&first), verdict(&second), verdict(&over)], ["-/-", "-/-", "C/K"]);
    advance(6 * SECOND).await;
    assert_eq!([verdict(&first), verdict(&second)], ["C/K", "C/K"], "at the same time");
}

#[tokio::test(start_paused = true)]
async fn c30_a_shield_keeps_the_values_and_can_be_cancelled_below_alone() {
    static USER: Key<u64> = Key::new("user");
    let request = Context::background().with_value(&USER, 7).with_cancel();
    let payment = request.shielded(GRACE);
    let step = payment.with_cancel();
    assert_eq!(step.value(&USER), Some(&7));
    step.cancel();
    assert_eq!([verdict(&step), verdict(&payment), verdict(&request)], ["C/C", "-/-", "-/-"]);
    let tighter = payment.with_timeout(SECOND);
    request.cancel();
    advance(SECOND).await;
    assert_eq!([verdict(&tighter), verdict(&payment)], ["D/D", "-/-"]);
    assert!(!payment.detach().is_done());
}

#[tokio::test(start_paused = true)]
async fn c30_graces_of_nested_shields_add_up() {
    let request = Context::background().with_cancel();
    let inner = request.shielded(GRACE).shielded(2 * GRACE);
    request.cancel_with(Named("P"));
    let at = Instant::now();
    inner.done().await;
    assert_eq!((at.elapsed().as_secs(), verdict(&inner)), (3 * GRACE.as_secs(), "C/P".into()));
}

#[test]
fn c30_a_shield_ends_on_threads_without_a_runtime() {
    let request = Context::background().with_cancel();
    let payment = request.shielded(Duration::from_millis(1));
    let waiting = {
        let payment = payment.clone();
        thread::spawn(move || payment.wait_blocking())
    };
    request.cancel();
    assert_eq!(waiting.join().unwrap(), ContextError::Canceled);
    assert_eq!(verdict(&payment), "C/C");
}

#[test]
fn c30_without_a_grace_or_an_end_there_is_no_shield() {
    let request = Context::background().with_cancel();
    let now = request.shielded(Duration::ZERO);
    request.cancel();
    assert_eq!(verdict(&now), "C/C");
    assert!(!Context::background().shielded(GRACE).is_done());
    let for_ever = request.shielded(Duration::MAX);
    assert_eq!((verdict(&for_ever), for_ever.deadline()), ("-/-".into(), None));
}

#[test]
fn c30_nested_shields_are_dropped_on_a_small_stack() {
    let small = thread::Builder::new().stack_size(256 * 1024);
    let nested = small.spawn(|| {
        let request = Context::background().with_cancel();
        let mut ctx = request.context().clone();
        for _ in 0..20_000 {
            ctx = ctx.shielded(GRACE);
        }
        request.cancel();
        assert!(!ctx.is_done());
        drop(ctx);
    });
    nested.unwrap().join().unwrap();
}
