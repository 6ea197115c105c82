//! Cancelling reaches all that is below (C17, C19), and all agree on why (C13).

use std::sync::Arc;

use loom::thread;

use super::{Waiter, model};
use crate::context::{Cause, Context, ContextError};

/// Who has cancelled finds all below done, for the one reason that anybody ever sees. Fails when `flag` comes before `set_cause`.
#[test]
fn two_cancels_and_an_observer() {
    model(|| {
        let top = Arc::new(Context::background().with_cancel());
        let child = Arc::new(top.with_cancel());
        let cancel = |cause: Cause| {
            let (top, child) = (Arc::clone(&top), Arc::clone(&child));
            move || {
                top.cancel_with(cause);
                assert_eq!(child.err(), Some(ContextError::Canceled));
                child.cause().unwrap().name()
            }
        };
        let first = thread::spawn(cancel(Cause::Shutdown));
        let second = thread::spawn(cancel(Cause::Abandoned));
        let seen = child.cause().map(|cause| cause.name());
        let said = [first.join().unwrap(), second.join().unwrap()];
        assert_eq!(said[0], said[1]);
        assert!(seen.is_none_or(|seen| seen == said[0]));
        assert_eq!(top.cause().unwrap().name(), said[0]);
    });
}

/// A child that is born, and waited on, while its parent is cancelled. Fails when `below` does not take over its parent's `up`, and when
/// who waits does not look at the flags above again.
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
        assert_eq!(child.cause().unwrap().name(), Cause::Shutdown.name());
        assert!(waiter.poll());
    });
}
