//! C26: two futures in one task that succeed or fail together.

use std::future::{pending, poll_fn, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use throughline_core::{Context, try_join};
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::groups::Failure::{self, Own};
use super::groups::{CANCELED, Counted, LOCAL, NAME, endless};
use super::{Named, verdict};

#[tokio::test]
async fn c26_try_join_runs_futures_that_borrow() {
    let name = String::from("name");
    let ctx = Context::background().with_value(&NAME, "n").with_value(&LOCAL, "l");
    let both = try_join(
        &ctx,
        async |ctx| {
            yield_now().await;
            Ok::<_, Failure>((name.as_str(), ctx.value(&NAME).copied(), Context::current().value(&LOCAL).copied()))
        },
        async |_| Ok(name.len()),
    );
    assert_eq!(both.await, Ok((("name", Some("n"), Some("l")), 4)), "it does not spawn, so local values are visible");
}

#[tokio::test]
async fn c26_try_join_cancels_the_other_with_the_first_error_and_waits_for_it() {
    for a_fails in [true, false] {
        let alive = Arc::new(AtomicUsize::new(0));
        let given = Mutex::new(None);
        let fail = async |ctx: Context| {
            *given.lock().unwrap() = Some(ctx);
            yield_now().await;
            Err::<(), _>(Own("first"))
        };
        let wait = |_| endless::<()>(Counted::new(&alive));
        let root = Context::background();
        let joined = if a_fails { try_join(&root, fail, wait).await } else { try_join(&root, wait, fail).await };
        assert_eq!((joined, alive.load(Ordering::SeqCst)), (Err(Own("first")), 0), "a fails: {a_fails}");
        assert_eq!(verdict(given.lock().unwrap().as_ref().unwrap()), "C/first");
    }
}

#[tokio::test]
async fn c26_try_join_stops_both_in_the_poll_in_which_one_fails() {
    let (fail, must_fail) = oneshot::channel::<()>();
    let polls = AtomicUsize::new(0);
    let count = |_| {
        poll_fn(|_| {
            polls.fetch_add(1, Ordering::SeqCst);
            Poll::<Result<(), Failure>>::Pending
        })
    };
    let ctx = Context::background();
    let mut both = pin!(try_join(&ctx, count, async |_| {
        let _ = must_fail.await;
        Err::<(), _>(Own("first"))
    }));
    for n in 1..=3 {
        assert!(super::poll_once(both.as_mut()).is_pending());
        assert_eq!(polls.load(Ordering::SeqCst), n);
    }
    fail.send(()).unwrap();
    assert_eq!(
        super::poll_once(both.as_mut()),
        Poll::Ready(Err(Own("first"))),
        "the first is stopped in the same poll"
    );
}

#[tokio::test]
async fn c26_try_join_stops_when_its_parent_is_done() {
    let parent = Context::background().with_cancel();
    let mut both = pin!(try_join(&parent, |_| ready(Ok::<_, Failure>(1)), |_| pending::<Result<(), _>>()));
    assert!(super::poll_once(both.as_mut()).is_pending());
    parent.cancel_with(Named("P"));
    assert_eq!(both.await, Err(CANCELED));
    let done = try_join(&parent, |_| ready(Ok::<_, Failure>(1)), |_| ready(Ok(2)));
    assert_eq!(done.await, Err(CANCELED), "neither is polled");
}

#[tokio::test]
async fn c26_try_join_cancels_its_context_when_it_ends_or_is_dropped() {
    let given = Mutex::new(Vec::new());
    let keep = |ctx: Context| given.lock().unwrap().push(ctx);
    let parent = Context::background().with_cancel();
    let all = |ctx| {
        keep(ctx);
        ready(Ok::<_, Failure>(()))
    };
    try_join(&parent, all, all).await.unwrap();
    let mut dropped = Box::pin(try_join(&parent, all, |_| poll_fn(|_| Poll::<Result<(), _>>::Pending)));
    assert!(super::poll_once(dropped.as_mut()).is_pending());
    drop(dropped);
    assert!(given.lock().unwrap().iter().all(Context::is_done));
    assert!(!parent.is_done());
}
