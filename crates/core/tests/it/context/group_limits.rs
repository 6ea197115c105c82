//! C26: groups with a limit, and their queue.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use throughline_core::{Context, Group};
use tokio::runtime::Builder;
use tokio::sync::{Barrier, oneshot};
use tokio::task::yield_now;

use super::groups::CANCELED;
use super::groups::Failure::{self, Own};

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
