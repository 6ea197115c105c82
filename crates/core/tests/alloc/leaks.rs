//! R1 and C18: contexts derived from a root free all their memory when they are dropped.
//!
//! Tests that involve other threads (timers, callbacks, tasks) are in `memory.rs`.

use std::io;
use std::pin::pin;
use std::task::{Context as TaskContext, Waker};
use std::time::Duration;

use throughline_core::{CancelHandle, Context, ContextError, Group, Key};

use crate::counting::{Count, count};

static TEXT: Key<String> = Key::new("text");
static NUMBER: Key<u64> = Key::new("number");

const FAR: Duration = Duration::from_secs(3600);

fn bytes_left(f: impl FnOnce()) -> i64 {
    count(f).1.bytes
}

fn poll_once(future: impl Future) {
    let is_pending = pin!(future).poll(&mut TaskContext::from_waker(Waker::noop())).is_pending();
    assert!(is_pending);
}

#[test]
fn counts_include_held_and_freed_memory() {
    let (held, during) = count(|| vec![0_u8; 1000]);
    assert_eq!(during, Count { allocations: 1, bytes: 1000 });
    assert_eq!(count(|| drop(held)).1, Count { allocations: 0, bytes: -1000 });
}

#[test]
fn c01_background_and_its_methods_allocate_nothing() {
    let ((), during) = count(|| {
        let ctx = Context::background();
        assert!(!ctx.is_done() && ctx.cause().is_none() && ctx.value(&NUMBER).is_none() && ctx.remaining().is_none());
        poll_once(ctx.done());
        poll_once(ctx.without_cancel().done_owned());
        assert!(ctx.clone().enter(Context::current).deadline().is_none());
        drop(Context::merge(&ctx, &ctx.without_value(&NUMBER)));
    });
    assert_eq!(during, Count::default());
}

#[test]
fn c14_waiting_allocates_nothing_where_no_timer_is_needed() {
    let root = Context::background().with_cancel();
    let (below, never) = (root.with_value(&NUMBER, 1).with_cancel(), root.without_cancel());
    let ((), during) = count(|| {
        drop((root.done(), root.done_owned(), below.done()));
        poll_once(below.done());
        poll_once(below.done_owned());
        poll_once(below.run(std::future::pending::<()>()));
        poll_once(never.done());
    });
    assert_eq!(during, Count::default());
}

#[test]
fn r01_a_million_children_leave_nothing() {
    let root = Context::background().with_cancel();
    let left = bytes_left(|| {
        for _ in 0..1_000_000 {
            drop(root.with_cancel());
        }
    });
    assert_eq!(left, 0);
    assert!(!root.is_done());
}

#[test]
fn r01_a_million_cancelled_children_leave_nothing() {
    let root = Context::background().with_cancel();
    let left = bytes_left(|| {
        for n in 0..1_000_000 {
            let child = root.with_cancel();
            if n % 2 == 0 {
                child.cancel();
            } else {
                child.cancel_with(io::Error::other("no space left"));
            }
            assert!(child.is_done());
        }
    });
    assert_eq!(left, 0);
}

#[test]
fn r01_a_million_children_that_were_waited_for_leave_nothing() {
    let root = Context::background().with_cancel();
    let left = bytes_left(|| {
        for n in 0..1_000_000 {
            let child = root.with_cancel();
            poll_once(child.done());
            if n % 2 == 0 {
                child.cancel();
            }
        }
    });
    assert_eq!(left, 0);
}

#[test]
fn r01_children_cancelled_through_their_root_leave_nothing() {
    let left = bytes_left(|| {
        let root = Context::background().with_cancel();
        let children: Vec<CancelHandle> = (0..100_000).map(|_| root.with_cancel()).collect();
        let mut waiting: Vec<_> = children.iter().map(|child| Box::pin(child.done())).collect();
        waiting.iter_mut().for_each(|done| poll_once(done.as_mut()));
        root.cancel_with(io::Error::other("no space left"));
        assert!(children.iter().all(|child| child.is_done()));
    });
    assert_eq!(left, 0);
}

#[test]
fn r01_values_deadlines_and_merges_leave_nothing() {
    let root = Context::background().with_cancel();
    let other = Context::background().with_value(&NUMBER, 1).with_cancel();
    let left = bytes_left(|| {
        for n in 0..100_000 {
            let ctx = root.with_value(&NUMBER, n).with_value(&TEXT, "some text".to_owned());
            let ctx = ctx.with_timeout_cause(FAR, io::Error::other("slow")).without_value(&TEXT);
            let merged = Context::merge(&ctx, &other).with_cancel();
            let freed = merged.without_cancel().with_timeout(Duration::ZERO);
            assert!(freed.is_done() && !merged.is_done());
            poll_once(Context::merge(&root, &other).done());
        }
    });
    assert_eq!(left, 0);
}

#[test]
fn r01_finished_tasks_leave_nothing_in_a_running_group() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut group: Group<ContextError> = Group::new(&Context::background());
    let mut accept = |connections: usize| {
        runtime.block_on(async {
            for _ in 0..connections {
                group.spawn(async |_| Ok(())).await.unwrap();
            }
        });
    };
    // Grows the runtime's queues to their final length.
    accept(1_000);
    assert_eq!(bytes_left(|| accept(10_000)), 0);
}

#[cfg(feature = "tokio-util")]
#[test]
fn r01_tokens_leave_nothing() {
    let root = Context::background().with_cancel();
    let token = tokio_util::sync::CancellationToken::new();
    // The table of tokens allocates its first block, and keeps it.
    drop(Context::background().with_cancel().cancellation_token());
    let left = bytes_left(|| {
        for n in 0..100_000 {
            let ctx = Context::from_token(&root, &token);
            let request = ctx.with_cancel();
            let theirs = request.cancellation_token();
            assert!(!theirs.is_cancelled());
            if n % 2 == 0 {
                request.cancel();
            }
        }
    });
    assert_eq!(left, 0);
    // A live context keeps one token, however often the token is requested.
    let request = root.with_value(&NUMBER, 1);
    drop(request.cancellation_token());
    let left = bytes_left(|| {
        for _ in 0..100_000 {
            assert!(!root.cancellation_token().is_cancelled());
            assert!(!request.cancellation_token().is_cancelled());
        }
    });
    assert_eq!(left, 0);
}

#[test]
fn c30_a_parent_keeps_nothing_of_shields_that_are_gone() {
    let root = Context::background().with_cancel();
    let shield = || drop(root.shielded(FAR).with_cancel());
    shield();
    assert_eq!(bytes_left(|| (0..10_000).for_each(|_| shield())), 0);
}
