//! C27: conversion to and from `CancellationToken` of tokio-util.

use std::future::pending;
use std::pin::pin;
use std::sync::{Arc, Barrier};
use std::thread;

use throughline_core::{Context, ContextError, Key};
use tokio::time::{Instant, advance};
use tokio_util::sync::CancellationToken;

use super::{Named, SECOND, Wakes, block_on, poll_with, verdict};

static NAME: Key<&str> = Key::new("name");

#[test]
fn c27_token_of_a_context_is_cancelled_before_cancel_returns() {
    let handle = Context::background().with_cancel();
    let below = handle.with_value(&NAME, "n").with_cancel();
    let tokens = [handle.cancellation_token(), below.cancellation_token(), below.cancellation_token()];
    let child = tokens[1].child_token();
    assert!(!tokens.iter().any(CancellationToken::is_cancelled));
    handle.cancel();
    assert!(tokens.iter().all(CancellationToken::is_cancelled) && child.is_cancelled());
}

#[test]
fn c27_token_of_a_done_context_is_cancelled() {
    let handle = Context::background().with_cancel();
    handle.cancel();
    assert!(handle.cancellation_token().is_cancelled());
    assert!(Context::background().with_timeout(std::time::Duration::ZERO).cancellation_token().is_cancelled());
}

#[test]
fn c27_token_of_a_context_that_is_never_done_is_never_cancelled() {
    assert!(!Context::background().cancellation_token().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn c27_token_is_cancelled_by_the_deadline() {
    let started_at = Instant::now();
    let ctx = Context::background().with_timeout(SECOND);
    ctx.cancellation_token().cancelled().await;
    assert_eq!((started_at.elapsed(), verdict(&ctx).as_str()), (SECOND, "D/D"));
}

#[test]
fn c27_token_is_cancelled_by_the_deadline_without_a_runtime() {
    let ctx = Context::background().with_timeout(std::time::Duration::from_millis(5));
    block_on(ctx.cancellation_token().cancelled());
    assert_eq!(verdict(&ctx), "D/D");
}

#[test]
fn c27_cancelling_the_token_does_not_cancel_its_context() {
    let handle = Context::background().with_cancel();
    handle.cancellation_token().cancel();
    assert_eq!(verdict(&handle), "-/-");
    let token = handle.cancellation_token();
    assert!(!token.is_cancelled(), "each call returns its own token");
}

#[test]
fn c27_token_of_a_derived_context_is_cancelled_with_its_ancestor() {
    let handle = Context::background().with_cancel();
    let timed = handle.with_timeout(60 * SECOND);
    let merged = Context::merge(&timed, &Context::background().with_value(&NAME, "m").with_cancel().disarm());
    let free = handle.without_cancel().with_value(&NAME, "free");
    let contexts = [handle.with_value(&NAME, "n"), timed.clone(), timed.with_value(&NAME, "t"), merged];
    let tokens: Vec<_> = contexts.iter().flat_map(|ctx| [ctx.cancellation_token(), ctx.cancellation_token()]).collect();
    let never = free.cancellation_token();
    tokens[0].cancel();
    assert!(!tokens[1..].iter().any(CancellationToken::is_cancelled));
    handle.cancel();
    assert!(tokens.iter().all(CancellationToken::is_cancelled) && !never.is_cancelled());
}

#[test]
fn c27_token_made_during_a_cancellation_is_cancelled() {
    for _ in 0..200 {
        let handle = Context::background().with_cancel();
        let start = Barrier::new(3);
        thread::scope(|scope| {
            let threads = [(); 2].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    let token = handle.cancellation_token();
                    block_on(handle.done());
                    token
                })
            });
            start.wait();
            handle.cancel();
            let before = handle.cancellation_token();
            assert!(before.is_cancelled());
            for token in threads {
                block_on(token.join().unwrap().cancelled());
            }
        });
    }
}

#[test]
fn c27_context_of_a_token_is_cancelled_before_cancel_returns() {
    let token = CancellationToken::new();
    let parent = Context::background().with_value(&NAME, "n").with_timeout(60 * SECOND);
    let ctx = Context::from_token(&parent, &token.child_token());
    let below = ctx.with_cancel();
    let (wakes, waker) = Wakes::new();
    let mut done = pin!(below.done());
    assert!(poll_with(done.as_mut(), &waker).is_pending());
    assert_eq!((ctx.value(&NAME), ctx.deadline(), verdict(&ctx).as_str()), (Some(&"n"), parent.deadline(), "-/-"));
    token.cancel();
    assert_eq!([verdict(&below), verdict(&ctx), verdict(&parent)], ["C/C", "C/C", "-/-"]);
    assert_eq!(wakes.count(), 1);
}

#[test]
fn c27_context_of_a_cancelled_token_is_already_done() {
    let token = CancellationToken::new();
    token.cancel();
    assert_eq!(verdict(&Context::from_token(&Context::background(), &token)), "C/C");
    let done = Context::background().with_cancel();
    done.cancel_with(Named("P"));
    assert_eq!(verdict(&Context::from_token(&done, &token)), "C/P", "a done parent wins");
}

#[tokio::test(start_paused = true)]
async fn c27_cancelled_parent_ends_the_context_but_not_the_token() {
    let token = CancellationToken::new();
    let parent = Context::background().with_cancel();
    let ctx = Context::from_token(&parent, &token);
    let timed = Context::from_token(&Context::background().with_timeout(SECOND), &token);
    parent.cancel_with(Named("P"));
    advance(SECOND).await;
    assert_eq!([verdict(&ctx), verdict(&timed)], ["C/P", "D/D"]);
    assert!(!token.is_cancelled());
}

#[test]
fn c27_derived_contexts_keep_the_link_to_the_token() {
    let token = CancellationToken::new();
    let child = Context::from_token(&Context::background(), &token).with_cancel();
    let merged = Context::merge(&Context::background().with_cancel().disarm(), &child);
    token.cancel();
    assert_eq!([verdict(&child), verdict(&merged)], ["C/C", "C/C"]);
}

#[test]
fn c27_round_trip_ends_on_either_side() {
    let token = CancellationToken::new();
    let handle = Context::from_token(&Context::background(), &token).with_cancel();
    let [first, second] = [handle.cancellation_token(), handle.cancellation_token()];
    let back = Context::from_token(&Context::background(), &first);
    handle.cancel();
    assert!(first.is_cancelled() && second.is_cancelled() && back.is_done() && !token.is_cancelled());
    let back = Context::from_token(&Context::background(), &token);
    token.cancel();
    assert_eq!(back.check(), Err(ContextError::Canceled));
}

#[test]
fn c27_cancellation_during_a_conversion_is_not_lost() {
    for _ in 0..200 {
        let (token, handle) = (CancellationToken::new(), Context::background().with_cancel());
        let start = Barrier::new(3);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                // They hang if the cancellation is lost.
                block_on(Context::from_token(&Context::background(), &token).done());
            });
            scope.spawn(|| {
                start.wait();
                block_on(handle.cancellation_token().cancelled());
            });
            start.wait();
            token.cancel();
            handle.cancel();
        });
    }
}

#[tokio::test]
async fn c27_conversions_use_no_task() {
    let handle = Context::background().with_cancel();
    let token = handle.cancellation_token();
    let ctx = Context::from_token(&handle, &token);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    let ran = Arc::new(());
    let work = ran.clone();
    let running = ctx.run(async move {
        pending::<()>().await;
        drop(work);
    });
    handle.cancel();
    assert_eq!((running.await, Arc::strong_count(&ran)), (Err(ContextError::Canceled), 1));
}
