//! C26: waiting for the tasks of a group that continues.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use throughline_core::{Context, Group};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::groups::Failure::{self, Own};
use super::groups::{CANCELED, Counted, endless, runtime};
use super::{Named, SECOND, poll_once, verdict};

#[tokio::test(start_paused = true)]
async fn c26_wait_returns_after_all_tasks_and_leaves_the_group_live() {
    let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(2);
    let ended = Arc::new(AtomicUsize::new(0));
    let started_at = Instant::now();
    for stage in 1..=3 {
        for _ in 0..4 {
            let ended = ended.clone();
            drop(group.spawn(async move |_| {
                sleep(SECOND).await;
                ended.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }));
        }
        assert_eq!(group.wait().await, Ok(()));
        assert_eq!((ended.load(Ordering::SeqCst), started_at.elapsed()), (stage * 4, stage as u32 * 2 * SECOND));
        assert_eq!(verdict(group.context()), "-/-");
    }
    let ctx = group.context().clone();
    assert_eq!(group.join().await, Ok(()));
    assert_eq!(verdict(&ctx), "C/C");
}

#[tokio::test]
async fn c26_wait_returns_the_first_error_and_later_tasks_never_start() {
    let mut group: Group<Failure> = Group::new(&Context::background());
    let alive = Arc::new(AtomicUsize::new(0));
    let counted = Counted::new(&alive);
    let stopped = group.spawn(move |_| endless::<()>(counted));
    drop(group.spawn(async |_| Err::<(), _>(Own("first"))));
    assert_eq!(group.wait().await, Err(Own("first")));
    assert_eq!((alive.load(Ordering::SeqCst), verdict(group.context())), (0, "C/first".into()));
    let late = group.spawn(async |_| -> Result<(), _> { unreachable!("the group has failed") });
    assert_eq!(group.wait().await, Err(Own("first")));
    assert_eq!((stopped.await, late.await), (Err(CANCELED), Err(CANCELED)));
    assert_eq!(group.join().await, Err(Own("first")));
}

#[tokio::test]
async fn c26_wait_that_is_dropped_leaves_the_tasks_running() {
    let mut group: Group<Failure> = Group::new(&Context::background());
    let handle = group.spawn(async |_| {
        yield_now().await;
        Ok(7)
    });
    let mut waiting = Box::pin(group.wait());
    assert!(poll_once(waiting.as_mut()).is_pending());
    drop(waiting);
    assert_eq!(group.wait().await, Ok(()));
    assert_eq!(handle.await, Ok(7));
}

#[tokio::test]
async fn c26_wait_returns_the_stop_of_a_cancelled_parent() {
    let parent = Context::background().with_cancel();
    let mut group: Group<Failure> = Group::new(&parent);
    let alive = Arc::new(AtomicUsize::new(0));
    let counted = Counted::new(&alive);
    drop(group.spawn(move |_| endless::<()>(counted)));
    parent.cancel_with(Named("P"));
    assert_eq!(group.wait().await, Err(CANCELED));
    assert_eq!(verdict(group.context()), "C/P");
}

#[tokio::test]
async fn c26_wait_resumes_a_panic_once_and_the_group_stays_failed() {
    let mut group: Group<Failure> = Group::new(&Context::background());
    drop(group.spawn(async |_| -> Result<(), _> { panic!("first") }));
    let panicked = AssertUnwindSafe(group.wait()).catch_unwind().await;
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"first"));
    assert_eq!(verdict(group.context()), "C/panicked");
    assert_eq!(group.wait().await, Err(CANCELED));
    assert_eq!(group.join().await, Err(CANCELED));
}

#[test]
fn c26_wait_fails_when_the_runtime_of_a_task_ended_before_it() {
    let mut group: Group<Failure> = Group::new(&Context::background());
    let alive = Arc::new(AtomicUsize::new(0));
    let counted = Counted::new(&alive);
    let ended = runtime();
    {
        let _entered = ended.enter();
        drop(group.spawn(move |_| endless::<()>(counted)));
    }
    drop(ended);
    assert_eq!(runtime().block_on(group.wait()), Err(CANCELED));
}

#[tokio::test]
async fn c26_wait_of_an_empty_group_returns_at_once_and_is_send() {
    fn check<T: Send>(wait: T) -> T {
        wait
    }
    let mut group: Group<Failure> = Group::new(&Context::background());
    assert_eq!(check(group.wait()).now_or_never(), Some(Ok(())));
}
