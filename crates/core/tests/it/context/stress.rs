//! R3 and R4: cancelling very many contexts blocks no other thread and wakes every waiter.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Poll, Wake, Waker};
use std::thread;

use throughline_core::{CancelHandle, Context, ContextError, Key};
use tokio::runtime::Builder;

use super::{Wakes, poll_once, poll_with};

const MANY: usize = 100_000;

/// Blocks the waking thread until another thread has passed the barrier twice.
struct Stopping(Barrier);

impl Wake for Stopping {
    fn wake(self: Arc<Self>) {
        self.0.wait();
        self.0.wait();
    }
}

#[test]
fn r03_blocked_canceller_does_not_block_other_threads() {
    static KEY: Key<usize> = Key::new("key");
    let root = Context::background().with_cancel();
    let (wakes, waker) = Wakes::new();
    let stopping = Arc::new(Stopping(Barrier::new(2)));
    let children: Vec<CancelHandle> = (0..MANY).map(|n| root.with_value(&KEY, n).with_cancel()).collect();
    let mut waiting: Vec<_> = children.iter().map(|child| Box::pin(child.done())).collect();
    for (n, done) in waiting.iter_mut().enumerate() {
        let waker = if n == MANY / 2 { &Waker::from(stopping.clone()) } else { &waker };
        assert!(poll_with(done.as_mut(), waker).is_pending());
    }
    thread::scope(|scope| {
        scope.spawn(|| root.cancel());
        stopping.0.wait();
        let woken = wakes.count();
        assert!((1..MANY - 1).contains(&woken), "it is halfway: {woken}");
        // All of this works while the canceller is blocked: on contexts it has visited, is
        // visiting, and has not yet visited.
        for (n, child) in children.iter().enumerate() {
            assert_eq!((child.err(), child.value(&KEY)), (Some(ContextError::Canceled), Some(&n)));
        }
        let bystander = Context::background().with_cancel();
        assert_eq!((root.err(), bystander.err()), (Some(ContextError::Canceled), None));
        let late = root.with_cancel();
        assert!(late.is_done() && poll_once(pin!(late.done())).is_ready());
        assert!(poll_once(pin!(bystander.with_cancel().done())).is_pending());
        bystander.cancel();
        let (first, rest) = waiting.split_at_mut(MANY / 4);
        assert!(first.iter_mut().all(|done| poll_once(done.as_mut()).is_ready()));
        assert!(rest.iter_mut().all(|done| poll_once(done.as_mut()).is_ready()));
        drop(children[MANY - 1].with_cancel());
        children[MANY - 1].cancel();
        stopping.0.wait();
    });
    assert_eq!(wakes.count(), MANY - 1, "each is woken once, except the one whose waker blocks");
}

#[test]
fn r04_a_hundred_thousand_waiters_are_woken_once_each() {
    for has_child_each in [false, true] {
        let root = Context::background().with_cancel();
        let contexts: Vec<_> = (0..MANY)
            .map(|_| if has_child_each { root.with_cancel().disarm() } else { root.context().clone() })
            .collect();
        let wakes: Vec<_> = (0..MANY).map(|_| Wakes::new()).collect();
        let mut waiting: Vec<_> = contexts.iter().map(|ctx| Box::pin(ctx.done())).collect();
        for (done, (_, waker)) in waiting.iter_mut().zip(&wakes) {
            assert!(poll_with(done.as_mut(), waker).is_pending());
        }
        root.cancel();
        root.cancel();
        assert!(wakes.iter().all(|(wakes, _)| wakes.count() == 1), "a child each: {has_child_each}");
    }
}

#[test]
fn r04_a_hundred_thousand_tasks_on_two_workers_end_with_one_poll_each() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let root = Context::background().with_cancel();
        let (polls, waiting) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
        let tasks: Vec<_> = (0..MANY)
            .map(|_| {
                let (polls, waiting) = (polls.clone(), waiting.clone());
                let mut done = Box::pin(root.done_owned());
                tokio::spawn(std::future::poll_fn(move |cx| {
                    polls.fetch_add(1, Ordering::SeqCst);
                    let poll = done.as_mut().poll(cx);
                    waiting.add_permits(usize::from(poll.is_pending()));
                    poll
                }))
            })
            .collect();
        let all = u32::try_from(MANY).unwrap();
        waiting.acquire_many(all).await.unwrap().forget();
        assert_eq!(polls.load(Ordering::SeqCst), MANY);
        // An unrelated task makes progress while they end, on any worker.
        let bystander = tokio::spawn(async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        });
        root.cancel();
        bystander.await.unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!((polls.load(Ordering::SeqCst), waiting.available_permits()), (2 * MANY, 0));
        assert!(matches!(poll_once(pin!(root.done())), Poll::Ready(())));
    });
}
