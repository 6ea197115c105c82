//! C26: groups with a limit, and their queue.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use throughline_core::{Cause, Context, Group};
use tokio::runtime::Builder;
use tokio::sync::{Barrier, oneshot};
use tokio::task::yield_now;

use super::groups::Failure::{self, Own};
use super::groups::{CANCELED, Counted, endless};
use super::{poll_once, verdict};

#[tokio::test]
async fn c26_limit_is_kept_and_the_queue_is_in_order() {
    let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(3);
    let (running, started) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    for n in 0..40 {
        let (running, started) = (running.clone(), started.clone());
        drop(group.spawn(async move |_| {
            started.lock().unwrap().push(n);
            assert!(running.fetch_add(1, Ordering::SeqCst) < 3);
            yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }));
    }
    group.join().await.unwrap();
    assert_eq!(*started.lock().unwrap(), (0..40).collect::<Vec<_>>());
}

/// More tasks than the poll budget of a task. The spawning task does not await in between. The
/// worker polls the newest task first.
#[test]
fn c26_queue_is_in_order_for_more_tasks_than_a_poll_budget() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let spawning = async {
        let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(1);
        let started = Arc::new(Mutex::new(Vec::new()));
        for n in 0..500 {
            let started = started.clone();
            drop(group.spawn(async move |_| {
                started.lock().unwrap().push(n);
                Ok(())
            }));
        }
        group.join().await.unwrap();
        Arc::into_inner(started).unwrap().into_inner().unwrap()
    };
    let started = runtime.block_on(runtime.spawn(spawning)).unwrap();
    assert_eq!(started, (0..500).collect::<Vec<_>>());
}

/// More permits than a poll budget. Each task gets its permit or queues for it when it is spawned.
#[test]
fn c26_permits_are_taken_in_order_for_more_than_a_poll_budget() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let spawning = async {
        let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(200);
        let (started, all) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Barrier::new(200)));
        for n in 0..400 {
            let (started, all) = (started.clone(), all.clone());
            drop(group.spawn(async move |_| {
                started.lock().unwrap().push(n);
                all.wait().await;
                Ok(())
            }));
        }
        group.join().await.unwrap();
        Arc::into_inner(started).unwrap().into_inner().unwrap()
    };
    let mut started = runtime.block_on(runtime.spawn(spawning)).unwrap();
    started[..200].sort_unstable();
    assert_eq!(started[..200], (0..200).collect::<Vec<_>>(), "before any has ended");
}

#[tokio::test]
async fn c26_queued_task_of_a_cancelled_group_never_starts() {
    let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(1);
    let (fail, must_fail) = oneshot::channel::<()>();
    let running = group.spawn(async |_| {
        let _ = must_fail.await;
        Err::<(), _>(Own("first"))
    });
    let queued: Vec<_> =
        (0..5).map(|_| group.spawn(async |_| -> Result<(), _> { unreachable!("it never gets a permit") })).collect();
    yield_now().await;
    fail.send(()).unwrap();
    assert_eq!(group.join().await, Err(Own("first")));
    assert_eq!(running.await, Err(Own("first")));
    for handle in queued {
        assert_eq!(handle.await, Err(CANCELED));
    }
}

#[tokio::test]
async fn c26_a_limit_of_zero_is_one() {
    let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(0);
    let handle = group.spawn(async |_| Ok(7));
    group.join().await.unwrap();
    assert_eq!(handle.await, Ok(7));
}

#[tokio::test]
async fn c26_try_spawn_returns_the_task_at_the_limit() {
    let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(2);
    let (finish, finished) = oneshot::channel();
    let first = group.try_spawn(async move |_| Ok(finished.await.unwrap())).ok().unwrap();
    let second = group.try_spawn(async |_| Ok(2)).ok().unwrap();
    let third = group.try_spawn(async |_| Ok(3)).err().unwrap();
    assert_eq!(second.await, Ok(2));
    let third = group.try_spawn(third).ok().unwrap();
    finish.send(1).unwrap();
    group.join().await.unwrap();
    assert_eq!((first.await, third.await), (Ok(1), Ok(3)));
}

#[tokio::test]
async fn c26_try_spawn_does_not_overtake_the_queue() {
    let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(1);
    let first = group.spawn(async |_| Ok(1));
    let queued = group.spawn(async |_| {
        yield_now().await;
        Ok(2)
    });
    assert_eq!(first.await, Ok(1));
    assert!(group.try_spawn(async |_| Ok(3)).is_err(), "the free place is the queued task's");
    assert_eq!(queued.await, Ok(2));
    assert!(group.try_spawn(async |_| Ok(3)).is_ok());
    group.join().await.unwrap();
}

#[tokio::test]
async fn c26_try_spawn_always_spawns_without_a_limit() {
    let mut group: Group<Failure> = Group::new(&Context::background());
    let handles: Vec<_> = (0..100).map(|n| group.try_spawn(async move |_| Ok(n)).ok().unwrap()).collect();
    group.join().await.unwrap();
    assert_eq!(handles.len(), 100);
}

#[tokio::test]
async fn c26_spawn_when_free_waits_until_a_task_has_ended() {
    let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(2);
    let alive = Arc::new(AtomicUsize::new(0));
    for n in 0..40 {
        // Counts from here on, so tasks that wait in a queue would count too.
        let counted = Counted::new(&alive);
        let spawned = group.spawn_when_free(async move |_| {
            yield_now().await;
            drop(counted);
            Ok(n)
        });
        drop(spawned.await);
        assert!(alive.load(Ordering::SeqCst) <= 2, "task {n}");
    }
    group.join().await.unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn c26_spawn_when_free_waits_behind_the_queue() {
    let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(1);
    let started = Arc::new(Mutex::new(Vec::new()));
    let note = |n: u8| {
        let started = started.clone();
        async move |_| {
            started.lock().unwrap().push(n);
            yield_now().await;
            Ok(())
        }
    };
    drop((group.spawn(note(1)), group.spawn(note(2))));
    drop(group.spawn_when_free(note(3)).await);
    group.join().await.unwrap();
    assert_eq!(*started.lock().unwrap(), [1, 2, 3]);
}

#[tokio::test]
async fn c26_spawn_when_free_that_is_dropped_spawns_nothing_and_keeps_no_place() {
    let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(1);
    let (finish, finished) = oneshot::channel();
    let first = group.spawn(async move |_| Ok(finished.await.unwrap()));
    let alive = Arc::new(AtomicUsize::new(0));
    let counted = Counted::new(&alive);
    let mut waiting = Box::pin(group.spawn_when_free(move |_| endless::<()>(counted)));
    assert!(poll_once(waiting.as_mut()).is_pending());
    drop(waiting);
    assert_eq!(alive.load(Ordering::SeqCst), 0, "the task was dropped");
    finish.send(1).unwrap();
    assert_eq!(first.await, Ok(1));
    assert!(group.try_spawn(async |_| Ok(2)).is_ok());
    group.join().await.unwrap();
}

#[tokio::test]
async fn c26_spawn_when_free_does_not_wait_in_a_group_that_is_done() {
    let parent = Context::background().with_cancel();
    let mut group: Group<Failure> = Group::new(&parent).with_limit(1);
    // It never ends by itself, and has not been polled since the cancellation.
    let alive = Arc::new(AtomicUsize::new(0));
    let counted = Counted::new(&alive);
    let first = group.spawn(move |_| endless::<()>(counted));
    let never = async |_| -> Result<(), Failure> { unreachable!("the group is done") };
    let mut waiting = Box::pin(group.spawn_when_free(never));
    assert!(poll_once(waiting.as_mut()).is_pending());
    parent.cancel_with(Cause::Shutdown);
    let late = waiting.now_or_never().expect("it does not wait");
    let later = group.spawn_when_free(never).now_or_never().expect("it does not wait");
    assert_eq!((first.await, late.await, later.await), (Err(CANCELED), Err(CANCELED), Err(CANCELED)));
    assert_eq!(verdict(group.context()), "C/shutdown");
    assert_eq!(group.join().await, Err(CANCELED));
}

#[test]
fn c26_spawn_when_free_is_send() {
    fn check<T: Send>(_: &T) {}
    let mut group: Group<Failure> = Group::new(&Context::background());
    check(&group.spawn_when_free(async |_| Ok(())));
}
