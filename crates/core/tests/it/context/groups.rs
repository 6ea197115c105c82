//! C26: tasks that succeed or fail together.

use std::future::{pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures_util::FutureExt;
use throughline_core::{Cause, Context, ContextError, Group, Key, try_join};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Barrier, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};

use super::{Named, SECOND, verdict};

static NAME: Key<&str> = Key::new("name");
static LOCAL: Key<&str> = Key::new("local").local();

/// The error of a service: an error of its own, or that it was stopped.
#[derive(Clone, Debug, PartialEq)]
enum Failure {
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

const CANCELED: Failure = Stopped(ContextError::Canceled);

/// A value that counts itself while it is alive.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(alive.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn endless<T>(_until_dropped: Counted) -> Result<T, Failure> {
    pending().await
}

fn runtime() -> Runtime {
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
