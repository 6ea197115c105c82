//! C25: spawning tasks in their context. Signals are tested in their own binary, `signal.rs`.

use std::future::{Future, pending};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};

use throughline_core::{Context, ContextError, Key};
use tokio::task::{LocalSet, yield_now};
use tokio::time::{Instant, advance, sleep};

use super::{Named, SECOND, verdict};

static NAME: Key<&str> = Key::new("name");
static LOCAL: Key<&str> = Key::new("local").local();

/// A future that is never ready, and a channel that closes when the future is dropped.
fn endless() -> (impl Future<Output = ()> + Send + 'static, Receiver<()>) {
    let (alive, is_dropped) = channel::<()>();
    let work = async move {
        pending::<()>().await;
        drop(alive);
    };
    (work, is_dropped)
}

#[tokio::test]
async fn c25_spawn_carries_the_context_onto_the_task() {
    let ctx = Context::background().with_value(&NAME, "n").with_timeout(60 * SECOND);
    let deadline = ctx.deadline();
    let task = ctx.spawn(async move {
        let before = Context::current().value(&NAME).copied();
        yield_now().await;
        (before, Context::current().value(&NAME).copied(), Context::current().deadline())
    });
    assert_eq!(task.await.unwrap(), Ok((Some("n"), Some("n"), deadline)));
    assert_eq!(Context::current().value(&NAME), None);
}

#[tokio::test]
async fn c25_spawned_future_is_dropped_at_its_next_await_once_the_context_is_done() {
    let handle = Context::background().with_cancel();
    let (work, is_dropped) = endless();
    let task = handle.spawn(work);
    yield_now().await;
    assert!(!task.is_finished());
    handle.cancel_with(Named("P"));
    assert_eq!(task.await.unwrap(), Err(ContextError::Canceled));
    assert!(is_dropped.recv().is_err(), "the future is dropped before its handle yields");
}

#[tokio::test(start_paused = true)]
async fn c25_spawned_future_is_stopped_at_the_deadline_unless_it_is_ready() {
    for (seconds, expected) in [(1, Ok(())), (2, Err(ContextError::DeadlineExceeded))] {
        let started_at = Instant::now();
        let task = Context::background().with_timeout(SECOND).spawn(sleep(seconds * SECOND));
        assert_eq!((task.await.unwrap(), started_at.elapsed()), (expected, SECOND));
    }
}

#[tokio::test]
async fn c25_task_of_a_done_context_is_never_polled() {
    let handle = Context::background().with_cancel();
    let early = handle.spawn(async { unreachable!("cancelled before its first poll") });
    handle.cancel();
    let late = handle.spawn(async { unreachable!("cancelled before it was spawned") });
    assert_eq!(early.await.unwrap(), Err::<(), _>(ContextError::Canceled));
    assert_eq!(late.await.unwrap(), Err::<(), _>(ContextError::Canceled));
}

#[tokio::test(start_paused = true)]
async fn c25_task_is_not_polled_after_an_unobserved_deadline() {
    let late = Context::background().with_timeout(SECOND);
    advance(SECOND).await;
    let task = late.with_cancel().disarm().spawn(async { unreachable!("the clock is read before the first poll") });
    assert_eq!(task.await.unwrap(), Err::<(), _>(ContextError::DeadlineExceeded));
    let late = Context::background().with_timeout(SECOND);
    let task = late.spawn(async { unreachable!("the deadline passes before its first poll") });
    advance(SECOND).await;
    assert_eq!(task.await.unwrap(), Err::<(), _>(ContextError::DeadlineExceeded));
    let work = LocalSet::new();
    let late = Context::background().with_timeout(SECOND);
    let task = work.spawn_local(async move {
        advance(SECOND).await;
        late.spawn_local(async { unreachable!("the clock is read before the first poll") }).await.unwrap()
    });
    work.await;
    assert_eq!(task.await.unwrap(), Err::<(), _>(ContextError::DeadlineExceeded));
}

/// Sends the name of the ambient context when it is dropped.
struct Last(Sender<Option<&'static str>>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.send(Context::current().value(&NAME).copied()).unwrap();
    }
}

#[tokio::test]
async fn c24_context_is_ambient_while_a_spawned_future_is_dropped() {
    let handle = Context::background().with_value(&NAME, "n").with_cancel();
    let (sender, seen) = channel();
    let last = || Last(sender.clone());
    let (ending, stopped, aborted, unpolled) = (last(), last(), last(), last());
    handle.spawn(async move { drop(ending) }).await.unwrap().unwrap();
    let task = handle.spawn(async move {
        let _last = stopped;
        pending::<()>().await;
    });
    yield_now().await;
    handle.cancel();
    assert!(task.await.unwrap().is_err());
    let live = handle.detach();
    let task = live.spawn(async move {
        let _last = aborted;
        pending::<()>().await;
    });
    yield_now().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(handle.spawn(async move { drop(unpolled) }).await.unwrap().is_err());
    let uncalled = last();
    assert!(handle.spawn_blocking(move |_| drop(uncalled)).await.unwrap().is_err());
    drop(sender);
    assert_eq!(seen.iter().collect::<Vec<_>>(), [Some("n"); 5]);
}

#[tokio::test]
async fn c25_dropping_the_handle_does_not_stop_the_task() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    drop(Context::background().spawn(async move {
        yield_now().await;
        sender.send(7).unwrap();
    }));
    assert_eq!(receiver.await, Ok(7));
}

#[tokio::test]
async fn c25_panic_of_a_task_is_reported_by_its_handle() {
    let handle = Context::background().with_cancel();
    let task = handle.spawn(async { panic!("in a task") });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(verdict(&handle), "-/-");
}

#[tokio::test]
async fn c25_task_spawned_on_a_detached_context_outlives_the_request() {
    let request = Context::background().with_value(&NAME, "n").with_cancel();
    let (may_end, end) = tokio::sync::oneshot::channel();
    let audit = request.detach().spawn(async move {
        end.await.unwrap();
        Context::current().value(&NAME).copied()
    });
    request.cancel();
    yield_now().await;
    may_end.send(()).unwrap();
    assert_eq!(audit.await.unwrap(), Ok(Some("n")));
}

#[tokio::test]
async fn c25_spawn_local_runs_futures_that_are_not_send() {
    let handle = Context::background().with_value(&NAME, "n").with_value(&LOCAL, "l").with_cancel();
    let local = LocalSet::new();
    let shared = Rc::new(());
    let held = shared.clone();
    let (ready, stopped) = local
        .run_until(async {
            let ready = handle.spawn_local(async move {
                let _held = held;
                yield_now().await;
                (Context::current().value(&NAME).copied(), Context::current().value(&LOCAL).copied())
            });
            let ready = ready.await.unwrap();
            let kept = shared.clone();
            let stopped = handle.spawn_local(async move {
                pending::<()>().await;
                drop(kept);
            });
            yield_now().await;
            handle.cancel();
            (ready, stopped.await.unwrap())
        })
        .await;
    assert_eq!((ready, stopped), (Ok((Some("n"), None)), Err(ContextError::Canceled)));
    assert_eq!(Rc::strong_count(&shared), 1, "both futures were dropped");
}

#[tokio::test]
async fn c25_spawn_blocking_is_not_stopped_and_sees_done() {
    let handle = Context::background().with_value(&NAME, "n").with_cancel();
    let (started, cancelled) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (is_started, is_cancelled) = (started.clone(), cancelled.clone());
    let work = handle.spawn_blocking(move |ctx| {
        let before = (ctx.check(), Context::current().value(&NAME).copied());
        is_started.wait();
        is_cancelled.wait();
        (before, ctx.check(), Context::current().err())
    });
    started.wait();
    handle.cancel();
    cancelled.wait();
    let canceled = ContextError::Canceled;
    assert_eq!(work.await.unwrap(), Ok(((Ok(()), Some("n")), Err(canceled), Some(canceled))));
}

#[tokio::test]
async fn c25_spawn_blocking_is_not_called_when_the_context_is_done_first() {
    let handle = Context::background().with_cancel();
    handle.cancel();
    let work = handle.spawn_blocking(|_| unreachable!("cancelled before the pool starts it"));
    assert_eq!(work.await.unwrap(), Err::<(), _>(ContextError::Canceled));
}

#[tokio::test]
async fn c25_tasks_spawned_by_a_task_end_with_its_context() {
    let handle = Context::background().with_cancel();
    let (innermost, is_dropped) = endless();
    let task = handle.spawn(async move {
        let inner = Context::current().spawn(innermost);
        inner.await.unwrap()
    });
    yield_now().await;
    handle.cancel();
    assert_eq!(task.await.unwrap(), Err(ContextError::Canceled));
    assert!(is_dropped.recv().is_err());
}
