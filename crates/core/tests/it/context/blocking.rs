//! C14: threads that block until a context is done.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use throughline_core::{Cause, Context, ContextError};
use tokio::runtime::Builder;

use super::{Named, SECOND, verdict};

/// More rounds than one, so that some cancellations come before the thread parks.
#[test]
fn c14_blocked_thread_continues_when_its_context_is_cancelled() {
    for _ in 0..200 {
        let parent = Context::background().with_cancel();
        let child = parent.with_cancel().disarm();
        let (blocks, is_blocking) = channel();
        let blocked = thread::spawn(move || {
            blocks.send(()).unwrap();
            (child.wait_blocking(), verdict(&child))
        });
        is_blocking.recv().unwrap();
        parent.cancel_with(Named("P"));
        assert_eq!(blocked.join().unwrap(), (ContextError::Canceled, "C/P".into()));
    }
}

#[test]
fn c14_blocked_threads_of_one_context_all_continue() {
    let handle = Context::background().with_cancel();
    let blocked: Vec<_> = (0..16)
        .map(|n| {
            let ctx = handle.context().clone();
            thread::spawn(move || match n % 2 {
                0 => Some(ctx.wait_blocking()),
                _ => ctx.wait_blocking_timeout(Duration::MAX),
            })
        })
        .collect();
    handle.cancel_with(Cause::Shutdown);
    for thread in blocked {
        assert_eq!(thread.join().unwrap(), Some(ContextError::Canceled));
    }
}

#[test]
fn c14_blocked_thread_continues_at_the_deadline_without_a_runtime() {
    let timed = Context::background().with_timeout(Duration::from_millis(2));
    assert_eq!(timed.with_cancel().wait_blocking(), ContextError::DeadlineExceeded);
    let timed = Context::background().with_timeout(Duration::from_millis(2));
    assert_eq!(timed.wait_blocking_timeout(3600 * SECOND), Some(ContextError::DeadlineExceeded));
}

/// The only thread of the runtime is blocked, so no timer of the runtime can fire.
#[test]
fn c14_blocked_thread_of_a_runtime_continues_at_the_deadline() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let timed = Context::background().with_timeout(Duration::from_millis(2));
    assert_eq!(runtime.block_on(async { timed.wait_blocking() }), ContextError::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn c14_blocked_thread_of_the_blocking_pool_follows_the_virtual_clock() {
    let timed = Context::background().with_timeout(3600 * SECOND);
    let (blocks, is_blocking) = tokio::sync::oneshot::channel();
    let ctx = timed.clone();
    let blocked = tokio::task::spawn_blocking(move || {
        blocks.send(()).unwrap();
        ctx.wait_blocking()
    });
    is_blocking.await.unwrap();
    tokio::time::advance(3600 * SECOND).await;
    assert_eq!(blocked.await.unwrap(), ContextError::DeadlineExceeded);
}

#[test]
fn c14_blocking_wait_of_a_done_context_returns_at_once() {
    let handle = Context::background().with_cancel();
    let born_done = handle.with_timeout(Duration::ZERO);
    assert_eq!(born_done.wait_blocking(), ContextError::DeadlineExceeded);
    handle.cancel();
    for _ in 0..2 {
        assert_eq!(handle.wait_blocking(), ContextError::Canceled);
        assert_eq!(handle.wait_blocking_timeout(Duration::ZERO), Some(ContextError::Canceled));
    }
}

#[test]
fn c14_blocking_wait_ends_after_its_timeout_while_the_context_is_live() {
    let handle = Context::background().with_cancel();
    for ctx in [handle.context(), &handle.with_timeout(3600 * SECOND), &Context::background()] {
        for timeout in [Duration::ZERO, Duration::from_millis(2)] {
            assert_eq!(ctx.wait_blocking_timeout(timeout), None, "{ctx:?}");
        }
        assert_eq!(ctx.err(), None);
    }
}

/// An unpark by other code, before and during the wait, does not end it.
#[test]
fn c14_unpark_by_other_code_does_not_end_a_blocking_wait() {
    let handle = Context::background().with_cancel();
    let ctx = handle.context().clone();
    let blocked = thread::spawn(move || {
        thread::current().unpark();
        ctx.wait_blocking();
        ctx.is_done()
    });
    for _ in 0..100 {
        blocked.thread().unpark();
        thread::yield_now();
    }
    assert!(!blocked.is_finished());
    handle.cancel();
    assert!(blocked.join().unwrap());
}
