//! Cancelling reaches all nodes below (C17, C19). All observers agree on the cause (C12, C13).

use std::sync::Arc;

use loom::thread;

use super::{Waiter, clock, model, model_within};
use crate::context::{Cause, Context};

/// Two threads cancel one context, while a third observes its child.
///
/// The cause is the same for all, and never changes.
///
/// Fails when `flag` comes before `set_cause`. Bounded, as each of three threads goes through all
/// flags.
#[test]
fn two_cancels_and_an_observer() {
    model_within(6, || {
        let top = Arc::new(Context::background().with_cancel());
        let child = top.with_cancel();
        let cancel = |cause: Cause| {
            let top = Arc::clone(&top);
            thread::spawn(move || {
                top.cancel_with(cause);
                name(&top).unwrap()
            })
        };
        let cancelling = [cancel(Cause::Shutdown), cancel(Cause::Abandoned)];
        let seen = name(&child);
        let [first, second] = cancelling.map(|cancelling| cancelling.join().unwrap());
        assert_eq!(first, second);
        assert!(seen.is_none_or(|seen| seen == first));
        assert_eq!(name(&child), Some(first));
    });
}

/// One thread cancels a context and another its parent, with a waiter below.
///
/// Each canceller finds all nodes below done, and the waiter is woken once. Fails when `wake_level`
/// takes the lock of the node above while it holds the node's own. Bounded, as both cancellers take
/// the same locks: over 130,000 orders without a bound.
#[test]
fn cancels_of_parent_and_child() {
    model(|| {
        let top = Context::background().with_cancel();
        let middle = top.with_cancel();
        let mut waiter = Waiter::new(&middle);
        assert!(!waiter.poll());
        let cancelling = thread::spawn(move || {
            middle.cancel_with(Cause::Abandoned);
            assert!(middle.is_done());
            middle
        });
        top.cancel_with(Cause::Shutdown);
        assert!(waiter.context().is_done());
        let middle = cancelling.join().unwrap();
        assert_eq!(waiter.count(), 1);
        assert_eq!(name(&top), Some("shutdown"));
        assert!(name(&middle).is_some());
    });
}

/// An outcome observed at a node also holds for the nodes above it.
///
/// A later cancellation there comes too late.
///
/// Fails when `resolve` latches the outcome only in the observed node. Bounded, as each of three
/// threads goes through all flags.
#[test]
fn an_observer_latches_from_the_top_down() {
    model_within(6, || {
        let top = Context::background().with_cancel();
        let middle = Arc::new(top.with_cancel());
        let bottom = middle.with_cancel();
        let also = Arc::clone(&middle);
        let above = thread::spawn(move || {
            top.cancel_with(Cause::Shutdown);
            top
        });
        let between = thread::spawn(move || also.cancel_with(Cause::Abandoned));
        let seen = name(&bottom);
        let _top = above.join().unwrap();
        between.join().unwrap();
        assert!(seen.is_none() || seen == name(&middle));
        assert_eq!(name(&bottom), name(&middle));
    });
}

/// A child is made, and gets a waiter, while its parent is cancelled.
///
/// Fails when `register` does not read the flags again after it has linked.
#[test]
fn birth_under_a_cancelling_parent() {
    model(|| {
        let parent = Arc::new(Context::background().with_cancel());
        let canceller = Arc::clone(&parent);
        let cancelling = thread::spawn(move || canceller.cancel_with(Cause::Shutdown));
        let child = parent.with_cancel();
        let mut waiter = Waiter::new(&child);
        let was_done = waiter.poll();
        cancelling.join().unwrap();
        assert!(was_done || waiter.count() == 1);
        assert_eq!(name(&child), Some("shutdown"));
        assert!(waiter.poll());
    });
}

/// An expired deadline is set below a context that is being cancelled.
///
/// A child is then made below that deadline.
///
/// Whichever event was first, the child has the same outcome. Fails when `below` does not inherit a
/// final outcome, as the child's `up` skips the node that has it.
#[test]
fn birth_below_an_expired_deadline() {
    model(|| {
        let top = Arc::new(Context::background().with_cancel());
        clock::tick();
        let canceller = Arc::clone(&top);
        let cancelling = thread::spawn(move || canceller.cancel_with(Cause::Shutdown));
        let timed = top.with_deadline_cause(clock::at(1), Cause::Abandoned);
        let seen = name(&timed);
        let child = timed.with_cancel();
        assert!(seen.is_some() && name(&child) == seen);
        cancelling.join().unwrap();
        assert!(name(&timed) == seen && name(&child) == seen);
    });
}

fn name(ctx: &Context) -> Option<&'static str> {
    ctx.cause().map(|cause| cause.name())
}
