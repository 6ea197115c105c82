//! A node with two parents (C7).

use std::sync::Arc;

use loom::thread;

use super::{Waiter, clock, model};
use crate::context::{Cause, Context, ContextError};

/// A merge is made, and gets a waiter, while its second parent is cancelled.
///
/// Fails when `wait_for_second` does not check the second parent after it has linked. Bounded, as a
/// merge links itself, then waits through two parents: over 56,000 orders without a bound.
#[test]
fn merge_against_cancel_of_the_second() {
    model(|| {
        let first = Context::background().with_cancel();
        let second = Arc::new(Context::background().with_cancel());
        let canceller = Arc::clone(&second);
        let cancelling = thread::spawn(move || canceller.cancel_with(Cause::Shutdown));
        let both = Context::merge(&first, &second);
        let mut waiter = Waiter::new(&both);
        let was_done = waiter.poll();
        cancelling.join().unwrap();
        assert!(was_done || waiter.count() == 1);
        assert_eq!(both.cause().map(|cause| cause.name()), Some("shutdown"));
        assert!(!first.is_done());
    });
}

/// Both parents are cancelled.
///
/// The merge has one of their causes, and its waiter is woken once.
///
/// Fails when `cancel` does not latch the merges below. Bounded, as both cancellers go through the
/// merge and its lists.
#[test]
fn both_parents_are_cancelled() {
    model(|| {
        let first = Context::background().with_cancel();
        let second = Context::background().with_cancel();
        let both = Context::merge(&first, &second);
        let mut waiter = Waiter::new(&both);
        assert!(!waiter.poll());
        let theirs = both.clone();
        let cancelling = thread::spawn(move || {
            second.cancel_with(Cause::Shutdown);
            assert!(theirs.is_done());
            (second, theirs)
        });
        first.cancel_with(Cause::Abandoned);
        let seen = both.cause().map(|cause| cause.name());
        assert!(matches!(seen, Some("shutdown" | "abandoned")));
        let _second = cancelling.join().unwrap();
        assert_eq!(both.cause().map(|cause| cause.name()), seen);
        assert_eq!(waiter.count(), 1);
    });
}

/// The last owner drops a merge while its second parent is cancelled.
///
/// The merge leaves that parent's list.
///
/// Fails when a canceller takes a child from a list although the child's count is 0 already.
#[test]
fn merge_drop_against_cancel() {
    model(|| {
        let first = Context::background().with_cancel();
        let second = Arc::new(Context::background().with_cancel());
        let both = Context::merge(&first, &second);
        let canceller = Arc::clone(&second);
        let cancelling = thread::spawn(move || canceller.cancel());
        drop(both);
        cancelling.join().unwrap();
        assert!(!first.is_done());
    });
}

/// The second parent's deadline passes and the first parent is cancelled.
///
/// The earlier event is the merge's outcome.
///
/// Fails when `merge` does not mark the first parent as having a deadline below.
#[test]
fn deadline_of_the_second_against_cancel_of_the_first() {
    model(|| {
        let first = Arc::new(Context::background().with_cancel());
        let second = Context::background().with_deadline(clock::at(1));
        let both = Context::merge(&first, &second);
        let canceller = Arc::clone(&first);
        let cancelling = thread::spawn(move || {
            canceller.cancel();
            clock::now()
        });
        clock::tick();
        let seen = both.err();
        let ended = cancelling.join().unwrap();
        assert!(ended >= clock::at(1) || seen == Some(ContextError::Canceled));
        assert!(seen.is_some() && both.err() == seen);
    });
}
