//! R1 with other threads: timers, callbacks and tasks free all their memory.
//!
//! The test counts the memory of the whole process, so this binary has one test.
#![allow(clippy::unwrap_used, missing_docs)]

use std::future::{Future, pending};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context as TaskContext, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use throughline_core::{Context, ContextError, Group};
use tokio::runtime::{Builder, Runtime};

#[path = "alloc/counting.rs"]
mod counting;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const FAR: Duration = Duration::from_secs(3600);
const TIMES: usize = 10_000;

/// Runs `f` many times, and checks that less than a quarter of a byte per run is left.
///
/// It is not exactly 0, since the queue of another thread may have grown or shrunk.
fn leaves_nothing(what: &str, mut f: impl FnMut()) {
    // Allocates what exists once per process: threads, and queues of their final length.
    (0..100).for_each(|_| f());
    let before = counting::in_process();
    (0..TIMES).for_each(|_| f());
    let left = counting::in_process() - before;
    assert!(left < TIMES as i64 / 4, "{what}: {left} bytes are left of {TIMES} times");
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn poll_once(future: impl Future) {
    let _ = pin!(future).poll(&mut TaskContext::from_waker(Waker::noop()));
}

fn deadlines(root: &Context) {
    leaves_nothing("deadlines with a waiter that is dropped", || {
        poll_once(root.with_timeout(FAR).with_cancel().done())
    });
    leaves_nothing("deadlines with a waiter that is cancelled", || {
        let handle = root.with_cancel();
        let timed = handle.with_timeout(FAR);
        let mut done = pin!(timed.done());
        poll_once(done.as_mut());
        handle.cancel();
    });
    let (waker, mut fired) = (Waker::from(Arc::new(Unpark(thread::current()))), 0);
    let mut cx = TaskContext::from_waker(&waker);
    let mut fire = || {
        let all: Vec<_> = (0..50).map(|n| root.with_timeout(Duration::from_micros(300 + n))).collect();
        let mut waiting: Vec<_> = all.iter().map(|ctx| Box::pin(ctx.done())).collect();
        // Each one whose deadline is still ahead has an alarm, and the timer's thread wakes it.
        waiting.retain_mut(|done| done.as_mut().poll(&mut cx).is_pending());
        fired += waiting.len();
        for done in &mut waiting {
            while done.as_mut().poll(&mut cx).is_pending() {
                thread::park();
            }
        }
    };
    // Uses each of the sixteen maps of alarms once, since each keeps its first block.
    (0..1_400).for_each(|_| fire());
    leaves_nothing("deadlines that fire", fire);
    assert!(fired > TIMES, "of {TIMES} times 50 only {fired} had an alarm");
}

fn hooks(root: &Context) {
    leaves_nothing("hooks that run", || {
        let handle = root.with_cancel();
        let (sender, receiver) = channel::<()>();
        handle.after_func(move || drop(sender));
        handle.cancel();
        assert!(receiver.recv().is_err());
    });
    leaves_nothing("hooks that are stopped", || {
        let handle = root.with_timeout(FAR).with_cancel();
        let text = "some text".to_owned();
        assert!(handle.after_func(move || drop(text)).stop());
    });
    leaves_nothing("hooks whose registration is dropped, then the handle of their context", || {
        let handle = root.with_timeout(FAR).with_cancel();
        let (sender, receiver) = channel::<()>();
        drop(handle.after_func(move || drop(sender)));
        drop(handle);
        assert!(receiver.recv().is_err());
    });
}

fn shields(root: &Context) {
    let done = root.with_cancel();
    done.cancel();
    leaves_nothing("shields that are dropped before and after their parent is done", || {
        let handle = root.with_cancel();
        let (first, second) = (handle.shielded(FAR), handle.shielded(FAR).with_cancel());
        drop(first);
        handle.cancel();
        drop((second, done.shielded(FAR)));
    });
}

fn tasks(runtime: &Runtime, root: &Context) {
    leaves_nothing("tasks that are stopped", || {
        runtime.block_on(async {
            let handle = root.with_cancel();
            let task = handle.spawn(pending::<()>());
            tokio::task::yield_now().await;
            handle.cancel_with(io::Error::other("stop"));
            assert_eq!(task.await.unwrap(), Err(ContextError::Canceled));
        });
    });
    leaves_nothing("groups that are joined", || {
        runtime.block_on(async {
            let mut group: Group<ContextError> = Group::new(root).with_limit(2);
            let failing = group.spawn(async |_| Err::<(), _>(ContextError::Canceled));
            let rest = [(); 3].map(|()| group.spawn(async |_| pending::<Result<(), _>>().await));
            assert_eq!(group.join().await, Err(ContextError::Canceled));
            drop((failing, rest));
        });
    });
    leaves_nothing("groups that are dropped", || {
        runtime.block_on(async {
            let mut group: Group<ContextError> = Group::new(root).with_limit(2);
            let handles = [(); 4].map(|()| group.spawn(async |_| pending::<Result<(), _>>().await));
            tokio::task::yield_now().await;
            drop(group);
            for handle in handles {
                assert_eq!(handle.await, Err(ContextError::Canceled));
            }
        });
    });
}

#[test]
fn r01_timers_hooks_and_tasks_leave_nothing() {
    let root = Context::background().with_cancel();
    deadlines(&root);
    hooks(&root);
    shields(&root);
    tasks(&Builder::new_current_thread().build().unwrap(), &root);
    assert!(!root.is_done());
}
