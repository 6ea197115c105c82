//! C26: tasks that succeed or fail together.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use throughline_core::{Cause, Context, ContextError, Group, Key, try_join};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};

use super::{Named, SECOND, verdict};

pub(super) static NAME: Key<&str> = Key::new("name");
pub(super) static LOCAL: Key<&str> = Key::new("local").local();

/// The error of a service: an error of its own, or that it was stopped.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Failure {
    Own(&'static str),
    Stopped(ContextError),
}

use Failure::{Own, Stopped};

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Self {
        Stopped(error)
    }
}

impl From<Failure> for Cause {
    fn from(failure: Failure) -> Self {
        match failure {
            Own(name) => Named(name).into(),
            Stopped(error) => error.into(),
        }
    }
}

pub(super) const CANCELED: Failure = Stopped(ContextError::Canceled);

/// A value that counts itself while it is alive.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(super) fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(alive.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) async fn endless<T>(_until_dropped: Counted) -> Result<T, Failure> {
    pending().await
}

pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[tokio::test]
async fn c26_every_task_gets_a_child_context_of_the_parent() {
    let parent = Context::background().with_value(&NAME, "n").with_value(&LOCAL, "l").with_timeout(60 * SECOND);
    let mut group: Group<Failure> = Group::new(&parent);
    let look = |ctx: &Context| (ctx.value(&NAME).copied(), ctx.value(&LOCAL).copied(), ctx.deadline());
    let handle = group.spawn(async move |ctx| Ok((look(&ctx), look(&Context::current()))));
    let deadline = parent.deadline();
    assert_eq!(look(group.context()), (Some("n"), Some("l"), deadline));
    let ctx = group.context().clone();
    group.join().await.unwrap();
    let in_task = (Some("n"), None, deadline);
    assert_eq!(handle.await, Ok((in_task, in_task)), "a task of a group is a spawn");
    assert_eq!([verdict(&ctx), verdict(&parent)], ["C/C", "-/-"]);
}

#[tokio::test(start_paused = true)]
async fn c26_task_is_not_called_after_an_unobserved_deadline() {
    let late = Context::background().with_timeout(SECOND);
    advance(SECOND).await;
    let mut group: Group<Failure> = Group::new(&late);
    let handle =
        group.spawn(|_| -> std::future::Ready<Result<(), Failure>> { unreachable!("the deadline has passed") });
    let late_error = Stopped(ContextError::DeadlineExceeded);
    assert_eq!((group.join().await, handle.await), (Err(late_error.clone()), Err(late_error.clone())));
    let never = |_| -> std::future::Ready<Result<(), Failure>> { unreachable!("the deadline has passed") };
    let late = Context::background().with_timeout(SECOND);
    advance(SECOND).await;
    assert_eq!(try_join(&late, never, never).await, Err(late_error));
}

#[tokio::test]
async fn c26_context_is_ambient_while_a_task_is_dropped() {
    struct Last(std::sync::mpsc::Sender<Option<&'static str>>);
    impl Drop for Last {
        fn drop(&mut self) {
            self.0.send(Context::current().value(&NAME).copied()).unwrap();
        }
    }
    let (sender, seen) = std::sync::mpsc::channel();
    let parent = Context::background().with_value(&NAME, "n");
    let new = || Last(sender.clone());
    let mut group: Group<Failure> = Group::new(&parent).with_limit(1);
    // One is stopped while it runs, the other while it is queued.
    for last in [new(), new()] {
        drop(group.spawn(async move |_| {
            let _last = last;
            pending::<Result<(), Failure>>().await
        }));
    }
    yield_now().await;
    drop(group);
    yield_now().await;
    let (first, second) = (new(), new());
    let both = try_join(
        &parent,
        async move |_| {
            let _last = first;
            pending::<Result<(), Failure>>().await
        },
        async move |_| {
            let _last = second;
            Err::<(), _>(Own("second"))
        },
    );
    assert_eq!(both.await, Err(Own("second")));
    drop(sender);
    assert_eq!(seen.iter().collect::<Vec<_>>(), [Some("n"); 4]);
}

#[tokio::test]
async fn c26_spawn_returns_at_once_and_the_handle_yields_the_result() {
    let mut group: Group<Failure> = Group::new(&Context::background());
    let handles: Vec<_> = (0..10).map(|n| group.spawn(async move |_| Ok(n))).collect();
    group.join().await.unwrap();
    for (n, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.await, Ok(n));
    }
}

#[tokio::test]
async fn c26_handle_yields_the_result_before_join() {
    let mut group: Group<Failure> = Group::new(&Context::background());
    let first = group.spawn(async |_| Ok(1));
    assert_eq!(first.await, Ok(1));
    let second = group.spawn(async |_| Ok(2));
    drop(group.spawn(async |_| Ok(3)));
    group.join().await.unwrap();
    assert_eq!(second.await, Ok(2));
}

#[tokio::test]
async fn c26_first_error_cancels_the_others_and_join_returns_it() {
    let alive = Arc::new(AtomicUsize::new(0));
    let mut group: Group<Failure> = Group::new(&Context::background());
    let ctx = group.context().clone();
    let stopped: Vec<_> = (0..3)
        .map(|_| {
            let counted = Counted::new(&alive);
            group.spawn(move |_| endless::<()>(counted))
        })
        .collect();
    let failing = group.spawn(async |_| {
        yield_now().await;
        Err::<(), _>(Own("first"))
    });
    let late = group.spawn(async |ctx| {
        let _ = ctx.done().await;
        Err::<(), _>(Own("second"))
    });
    assert_eq!(group.join().await, Err(Own("first")));
    assert_eq!(verdict(&ctx), "C/first");
    assert_eq!(failing.await, Err(Own("first")));
    for handle in stopped {
        assert_eq!(handle.await, Err(CANCELED));
    }
    // It was at an await when the group was cancelled, so it did not continue.
    assert_eq!(late.await, Err(CANCELED));
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn c26_task_of_a_failed_group_never_starts() {
    let mut group: Group<Failure> = Group::new(&Context::background());
    assert_eq!(group.spawn(async |_| Err::<(), _>(Own("first"))).await, Err(Own("first")));
    let late = group.spawn(async |_| -> Result<(), _> { unreachable!("the group has failed") });
    assert_eq!(late.await, Err(CANCELED));
    assert_eq!(group.join().await, Err(Own("first")));
}

#[tokio::test]
async fn c26_cancelled_parent_stops_the_tasks_and_join_returns_its_error() {
    let parent = Context::background().with_cancel();
    let mut group: Group<Failure> = Group::new(&parent);
    let alive = Arc::new(AtomicUsize::new(0));
    let counted = Counted::new(&alive);
    let handle = group.spawn(move |_| endless::<()>(counted));
    yield_now().await;
    parent.cancel_with(Named("P"));
    assert_eq!(verdict(group.context()), "C/P");
    assert_eq!(group.join().await, Err(CANCELED));
    assert_eq!((handle.await, alive.load(Ordering::SeqCst)), (Err(CANCELED), 0));
}

#[tokio::test(start_paused = true)]
async fn c26_deadline_stops_the_tasks_and_a_ready_result_wins() {
    let mut group: Group<Failure> = Group::new(&Context::background().with_timeout(SECOND));
    let started_at = Instant::now();
    let (ready, late) = (group.spawn(|_| sleep(SECOND).map(Ok)), group.spawn(|_| sleep(2 * SECOND).map(Ok)));
    assert_eq!(group.join().await, Err(Stopped(ContextError::DeadlineExceeded)));
    assert_eq!(started_at.elapsed(), SECOND);
    assert_eq!((ready.await, late.await), (Ok(()), Err(Stopped(ContextError::DeadlineExceeded))));
}

#[tokio::test(start_paused = true)]
async fn c26_join_returns_only_after_all_tasks_have_ended() {
    let ended = Arc::new(AtomicUsize::new(0));
    let mut group: Group<Failure> = Group::new(&Context::background());
    for seconds in 1..=3 {
        let ended = ended.clone();
        drop(group.spawn(async move |_| {
            sleep(seconds * SECOND).await;
            ended.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }));
    }
    let started_at = Instant::now();
    group.join().await.unwrap();
    assert_eq!((ended.load(Ordering::SeqCst), started_at.elapsed()), (3, 3 * SECOND));
}

#[test]
fn c26_join_resumes_the_first_panic_after_all_tasks_have_ended() {
    let alive = Arc::new(AtomicUsize::new(0));
    let seen = Mutex::new(Vec::new());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        runtime().block_on(async {
            let mut group: Group<Failure> = Group::new(&Context::background());
            let counted = Counted::new(&alive);
            let stopped = group.spawn(move |_| endless::<()>(counted));
            let first = group.spawn(async |_| -> Result<(), _> { panic!("first") });
            let second = group.spawn(async |_| -> Result<(), _> { panic!("second") });
            yield_now().await;
            let results = [stopped.await, first.await, second.await];
            seen.lock().unwrap().extend(results);
            assert_eq!(verdict(group.context()), "C/panicked");
            group.join().await
        })
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"first"));
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert_eq!(seen.into_inner().unwrap(), [const { Err(CANCELED) }; 3]);
}

#[tokio::test]
async fn c26_join_resumes_a_panic_though_tasks_were_spawned_after_it() {
    let mut group: Group<Failure> = Group::new(&Context::background());
    assert_eq!(group.spawn(async |_| -> Result<(), _> { panic!("first") }).await, Err(CANCELED));
    for _ in 0..2 {
        assert_eq!(group.spawn(async |_| Ok(())).await, Err(CANCELED));
    }
    let panicked = AssertUnwindSafe(group.join()).catch_unwind().await;
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"first"));
}

#[test]
fn c26_dropping_the_group_cancels_and_aborts_without_waiting() {
    let alive = Arc::new(AtomicUsize::new(0));
    runtime().block_on(async {
        let parent = Context::background().with_cancel();
        let mut group: Group<Failure> = Group::new(&parent).with_limit(2);
        let ctx = group.context().clone();
        let handles: Vec<_> = (0..5)
            .map(|_| {
                let counted = Counted::new(&alive);
                group.spawn(move |_| endless::<()>(counted))
            })
            .collect();
        yield_now().await;
        assert_eq!(alive.load(Ordering::SeqCst), 5);
        drop(group);
        assert_eq!([verdict(&ctx), verdict(&parent)], ["C/C", "-/-"]);
        for handle in handles {
            assert_eq!(handle.await, Err(CANCELED));
        }
        assert_eq!(alive.load(Ordering::SeqCst), 0, "all tasks were dropped");
    });
}

#[test]
fn c26_join_fails_when_the_runtime_of_a_task_ended_before_it() {
    for (spent, error) in [(false, CANCELED), (true, Stopped(ContextError::DeadlineExceeded))] {
        let parent = Context::background().with_timeout(3600 * SECOND);
        let mut group: Group<Failure> = Group::new(&parent);
        let ended = runtime();
        let alive = Arc::new(AtomicUsize::new(0));
        let counted = Counted::new(&alive);
        let handle = {
            let _entered = ended.enter();
            group.spawn(move |_| endless::<()>(counted))
        };
        drop(ended);
        runtime().block_on(async {
            if spent {
                sleep(3600 * SECOND).await;
            }
            assert_eq!((group.join().await, handle.await), (Err(error.clone()), Err(error)));
        });
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn c26_dropping_the_join_drops_the_group() {
    let alive = Arc::new(AtomicUsize::new(0));
    let mut group: Group<Failure> = Group::new(&Context::background());
    let counted = Counted::new(&alive);
    let handle = group.spawn(move |_| endless::<()>(counted));
    let mut joining = Box::pin(group.join());
    assert!(super::poll_once(joining.as_mut()).is_pending());
    drop(joining);
    assert_eq!((handle.await, alive.load(Ordering::SeqCst)), (Err(CANCELED), 0));
}

#[tokio::test]
async fn c26_empty_group_joins_at_once() {
    let group: Group<Failure> = Group::new(&Context::background());
    assert_eq!(group.join().now_or_never(), Some(Ok(())));
}

#[test]
fn c26_group_and_join_are_send() {
    fn check<T: Send>(_: &T) {}
    let group: Group<Failure> = Group::new(&Context::background());
    check(&group);
    check(&group.join());
}
