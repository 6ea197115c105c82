//! `Lifecycle`: which work is counted, and when detached contexts end.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context as TaskContext, Poll, Wake, Waker};

use throughline_core::{Cause, Context, ContextError, Group, Lifecycle, Work};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, yield_now};

use super::verdict;

fn counts(lifecycle: &Lifecycle) -> [usize; 3] {
    [Work::Request, Work::Task, Work::DetachedTask].map(|work| lifecycle.count(work))
}

fn base() -> (Lifecycle, Context) {
    let lifecycle = Lifecycle::new();
    let base = Context::background().with_lifecycle(&lifecycle);
    (lifecycle, base)
}

#[tokio::test]
async fn every_way_to_spawn_is_counted_until_the_work_is_dropped() {
    let (lifecycle, base) = base();
    let request = base.with_cancel();
    let (release, released) = mpsc::channel::<()>();
    LocalSet::new()
        .run_until(async {
            request.spawn(pending::<()>());
            request.detach().with_cancel().disarm().spawn_local(pending::<()>());
            let blocking = request.detach().spawn_blocking(move |_| released.recv().is_err());
            let mut group: Group<ContextError> = Group::new(&request);
            group.spawn(async |_| pending::<Result<(), ContextError>>().await);
            let counted = lifecycle.start(Work::Request);
            assert_eq!(counts(&lifecycle), [1, 2, 2]);
            request.cancel();
            group.join().await.unwrap_err();
            drop((counted, release));
            assert_eq!(blocking.await.unwrap(), Ok(true));
            lifecycle.cancel_detached();
            lifecycle.idle().await;
        })
        .await;
    assert_eq!(counts(&lifecycle), [0, 0, 0]);
}

#[tokio::test]
async fn idle_waits_for_work_that_other_work_has_started() {
    let (lifecycle, base) = base();
    base.spawn(async {
        Context::current().detach().spawn(async {
            tokio::task::yield_now().await;
            Context::current().spawn(tokio::task::yield_now());
        });
    });
    assert_eq!(counts(&lifecycle), [0, 1, 0]);
    lifecycle.idle().await;
    assert_eq!(counts(&lifecycle), [0, 0, 0]);
}

#[tokio::test]
async fn a_detached_context_ends_with_its_lifecycle_and_not_with_its_request() {
    let (lifecycle, base) = base();
    let process = base.with_cancel();
    let request = process.with_cancel();
    let audit = request.detach();
    let nested = audit.with_cancel().disarm().detach();
    process.cancel();
    assert_eq!([verdict(&request), verdict(&audit), verdict(&nested)], ["C/C", "-/-", "-/-"]);
    lifecycle.cancel_detached();
    for ctx in [&audit, &nested, &request.detach()] {
        assert_eq!(ctx.err(), Some(ContextError::Canceled));
        assert!(matches!(ctx.cause(), Some(Cause::Shutdown)));
    }
    assert_eq!(request.detach().spawn(async {}).await.unwrap(), Err(ContextError::Canceled));
}

#[tokio::test]
async fn a_context_without_a_lifecycle_is_not_counted() {
    let (lifecycle, base) = base();
    let outside = Context::background().with_cancel();
    outside.spawn(pending::<()>());
    outside.detach().spawn(pending::<()>());
    assert_eq!(counts(&lifecycle), [0, 0, 0]);
    lifecycle.cancel_detached();
    assert!(!outside.detach().is_done() && !base.is_done());
    lifecycle.idle().await;
}

/// Reads the number of running tasks at each wake.
struct CountAtWake {
    lifecycle: Lifecycle,
    counts: Mutex<Vec<usize>>,
}

impl Wake for CountAtWake {
    fn wake(self: Arc<Self>) {
        let count = self.lifecycle.count(Work::Task);
        self.counts.lock().expect("no test panics under the lock").push(count);
    }
}

#[tokio::test]
async fn a_task_no_longer_counts_once_its_group_can_be_joined() {
    let (lifecycle, base) = base();
    let mut group: Group<ContextError> = Group::new(&base);
    let (start, started) = oneshot::channel();
    group.spawn(async move |_| {
        started.await.ok();
        Ok(())
    });
    let waker = Arc::new(CountAtWake { lifecycle, counts: Mutex::default() });
    let mut join = pin!(group.join());
    let poll = join.as_mut().poll(&mut TaskContext::from_waker(&Waker::from(Arc::clone(&waker))));
    assert_eq!(poll, Poll::Pending);

    start.send(()).expect("the task waits");
    while waker.counts.lock().expect("no test panics under the lock").is_empty() {
        yield_now().await;
    }
    assert_eq!(waker.counts.lock().expect("no test panics under the lock")[0], 0);
    assert_eq!(join.await, Ok(()));
}
