//! C12 and C13: the earliest event wins for every observer at any time, and observers agree.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use throughline_core::{CancelHandle, Context};
use tokio::time::advance;

use super::{Named, SECOND, verdict};

/// Contexts derived without an earlier deadline. They must all return the same as `ctx`.
fn same_below(ctx: &Context) -> Vec<(&'static str, Context)> {
    static KEY: throughline_core::Key<u8> = throughline_core::Key::new("key");
    let other = Context::background().with_cancel().disarm();
    vec![
        ("clone", ctx.clone()),
        ("with_cancel", ctx.with_cancel().disarm()),
        ("with_value", ctx.with_value(&KEY, 1)),
        ("without_value", ctx.without_value(&KEY)),
        ("far timeout", ctx.with_timeout(3600 * SECOND)),
        ("merge(ctx, live)", Context::merge(ctx, &other)),
        ("merge(live, ctx)", Context::merge(&other, ctx)),
        ("two below", ctx.with_value(&KEY, 2).with_cancel().disarm().with_cancel().disarm()),
    ]
}

fn assert_same_below(case: &str, ctx: &Context, expected: &str) {
    for (how, below) in same_below(ctx) {
        assert_eq!(verdict(&below), expected, "{case}: {how}, seen first");
    }
    assert_eq!(verdict(ctx), expected, "{case}");
    for (how, below) in same_below(ctx) {
        assert_eq!(verdict(&below), expected, "{case}: {how}, seen last");
    }
}

#[tokio::test(start_paused = true)]
async fn c04_done_parent_wins_over_a_past_deadline_of_the_child() {
    let parent = Context::background().with_cancel();
    parent.cancel_with(Named("P"));
    advance(SECOND).await;
    let past = tokio::time::Instant::now().into_std() - SECOND / 2;
    assert_same_below("past deadline", &parent.with_deadline_cause(past, Named("slow")), "C/P");
    assert_same_below("zero timeout", &parent.with_timeout_cause(Duration::ZERO, Named("slow")), "C/P");

    let expired = Context::background().with_timeout_cause(SECOND, Named("first"));
    advance(SECOND).await;
    assert_same_below("below an expired one", &expired.with_deadline_cause(past, Named("slow")), "D/first");
    assert_same_below("below an observed expired one", &expired.with_deadline_cause(past, Named("slow")), "D/first");
}

#[tokio::test(start_paused = true)]
async fn c13_cancellation_stays_first_when_the_clock_moves_past_the_deadline() {
    let parent = Context::background().with_cancel();
    parent.cancel_with(Named("P"));
    // Derived after the cancellation, so that the cancellation stamped no time for it.
    let child = parent.with_timeout_cause(SECOND, Named("slow"));
    let grandchild = child.with_cancel();
    advance(5 * SECOND).await;
    assert_eq!(verdict(&grandchild), "C/P");
    assert_same_below("derived below a cancelled one", &child, "C/P");

    let parent = Context::background().with_cancel();
    let child = parent.with_timeout_cause(SECOND, Named("slow"));
    let grandchild = child.with_cancel();
    parent.cancel_with(Named("P"));
    advance(5 * SECOND).await;
    assert_eq!(verdict(&grandchild), "C/P");
    assert_same_below("cancelled before its deadline", &child, "C/P");
}

#[tokio::test(start_paused = true)]
async fn c13_unobserved_deadline_wins_over_a_later_cancellation() {
    let parent = Context::background().with_cancel();
    let child = parent.with_timeout_cause(SECOND, Named("slow"));
    let own = child.with_cancel();
    advance(2 * SECOND).await;
    own.cancel_with(Named("K"));
    parent.cancel_with(Named("P"));
    assert_eq!(verdict(&own), "D/slow");
    assert_same_below("passed before the cancellation", &child, "D/slow");
    assert_eq!(verdict(&parent), "C/P");
}

#[tokio::test(start_paused = true)]
async fn c13_deadline_wins_over_a_cancellation_at_the_same_instant() {
    for looks in [false, true] {
        let parent = Context::background().with_cancel();
        let child = parent.with_timeout_cause(SECOND, Named("slow"));
        advance(SECOND).await;
        if looks {
            assert_eq!(verdict(&child), "D/slow");
        }
        parent.cancel_with(Named("P"));
        assert_eq!(verdict(&child), "D/slow", "looked in between: {looks}");
    }
}

#[tokio::test(start_paused = true)]
async fn c13_first_of_two_cancellations_at_one_instant_wins() {
    for parent_is_first in [true, false] {
        let parent = Context::background().with_cancel();
        let child = parent.with_timeout(SECOND).with_cancel();
        // The clock is paused, so both have the same instant.
        if parent_is_first {
            parent.cancel_with(Named("P"));
            child.cancel_with(Named("K"));
        } else {
            child.cancel_with(Named("K"));
            parent.cancel_with(Named("P"));
        }
        advance(5 * SECOND).await;
        assert_same_below("both cancelled", &child, if parent_is_first { "C/P" } else { "C/K" });
        assert_eq!(verdict(&parent), "C/P");
    }
}

#[tokio::test(start_paused = true)]
async fn c12_deadline_cause_is_not_used_when_the_parents_deadline_is_earlier() {
    let parent = Context::background().with_timeout_cause(SECOND, Named("parent"));
    let child = parent.with_timeout_cause(2 * SECOND, Named("child"));
    let tighter = parent.with_timeout_cause(SECOND / 2, Named("tighter"));
    advance(5 * SECOND).await;
    assert_eq!(verdict(&tighter), "D/tighter");
    assert_same_below("parent's deadline came first", &child, "D/parent");
}

#[test]
fn c12_cause_does_not_reach_parents_or_siblings() {
    let parent = Context::background().with_cancel();
    let (first, second) = (parent.with_cancel(), parent.with_cancel());
    first.cancel_with(Named("K"));
    assert_eq!([verdict(&parent), verdict(&first), verdict(&second)], ["-/-", "C/K", "-/-"]);
}

#[test]
fn c13_concurrent_observers_agree_on_error_and_cause() {
    for round in 0..200 {
        let parent = Context::background().with_cancel();
        let child = parent.with_cancel();
        let grandchild = child.with_cancel();
        let start = Barrier::new(6);
        let cancel = |handle: &CancelHandle, cause| {
            start.wait();
            handle.cancel_with(Named(cause));
            verdict(handle)
        };
        // Once the context is done, error and cause are both set and never change.
        let observe = |ctx: &Context| {
            start.wait();
            let cause = loop {
                if let Some(cause) = ctx.cause() {
                    break super::named(Some(cause));
                }
                std::hint::spin_loop();
            };
            assert_eq!(verdict(ctx), format!("C/{cause}"), "round {round}");
            cause
        };
        let (of_child, of_grandchild) = thread::scope(|scope| {
            let seen = [scope.spawn(|| observe(&child)), scope.spawn(|| observe(&child))];
            let below = [scope.spawn(|| observe(&grandchild)), scope.spawn(|| observe(&grandchild))];
            let first = scope.spawn(|| cancel(&parent, "P"));
            let second = scope.spawn(|| cancel(&child, "K"));
            assert_eq!(first.join().unwrap(), "C/P");
            second.join().unwrap();
            (seen.map(|thread| thread.join().unwrap()), below.map(|thread| thread.join().unwrap()))
        });
        let expected = super::named(child.cause());
        assert!(["P", "K"].contains(&expected.as_str()), "round {round}: {expected}");
        assert!(of_child.iter().chain(&of_grandchild).all(|seen| *seen == expected), "round {round}: {expected}");
    }
}
