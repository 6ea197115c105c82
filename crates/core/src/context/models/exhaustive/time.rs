//! The earliest event wins, observed or not (C13, invariant 7).

use std::sync::Arc;

use loom::thread;

use super::{Waiter, clock, model, model_within};
use crate::context::{CancelHandle, Context, ContextError};

/// Cancels, and returns the expected error of a context below with the deadline 1.
///
/// `None` if either error is correct.
fn cancel(handle: &CancelHandle) -> Option<ContextError> {
    let before = clock::now();
    handle.cancel();
    let after = clock::now();
    if after < clock::at(1) {
        Some(ContextError::Canceled)
    } else if before >= clock::at(1) {
        Some(ContextError::DeadlineExceeded)
    } else {
        None
    }
}

/// A deadline passes and the parent is cancelled, while a third thread observes.
///
/// Fails when `outcome` reads the flags before the clock, when `cancel` reads the clock before it
/// sets the flag, and without its fence between the two. Bounded, as all three threads read or move
/// the clock.
#[test]
fn earliest_event_wins() {
    model(|| {
        let parent = Context::background().with_cancel();
        let timed = parent.with_deadline(clock::at(1));
        let sibling = parent.with_deadline(clock::at(1));
        let cancelling = thread::spawn(move || (cancel(&parent), parent));
        let ticking = thread::spawn(clock::tick);
        let seen = timed.err();
        ticking.join().unwrap();
        let (expected, _parent) = cancelling.join().unwrap();
        let error = timed.err();
        assert!(error.is_some() && seen.is_none_or(|seen| Some(seen) == error));
        assert!(expected.is_none() || error == expected);
        // It has the same deadline and the same parent.
        assert_eq!(sibling.err(), error);
    });
}

/// A context with a deadline and a waiter is cancelled itself while its deadline passes.
///
/// Fails when `own_outcome` does not check the deadline, and when `cancel` does not stamp a node
/// with a deadline. Bounded, as all alarms are behind one lock.
#[test]
fn own_deadline_against_cancel() {
    model(|| {
        let timed = Context::background().with_deadline(clock::at(1)).with_cancel();
        let mut waiter = Waiter::new(&timed);
        assert!(!waiter.poll());
        let cancelling = thread::spawn(move || (cancel(&timed), timed));
        clock::tick();
        let seen = waiter.context().err();
        assert!(seen.is_some() && waiter.poll());
        let (expected, timed) = cancelling.join().unwrap();
        assert!(expected.is_none() || seen == expected);
        assert_eq!(timed.err(), seen);
        assert!(waiter.count() >= 1);
    });
}

/// A deadline is set below a context that is being cancelled, and passes later.
///
/// Fails without the fence in `mark_path`, and when `mark_timed` marks nothing.
#[test]
fn deadline_set_under_a_cancelling_parent() {
    model(|| {
        let top = Arc::new(Context::background().with_cancel());
        let canceller = Arc::clone(&top);
        let cancelling = thread::spawn(move || canceller.cancel());
        let timed = top.with_deadline(clock::at(1));
        cancelling.join().unwrap();
        clock::tick();
        assert_eq!(timed.err(), Some(ContextError::Canceled));
    });
}

/// Two threads set deadlines below one parent, while the grandparent is cancelled.
///
/// A mark that a thread finds implies the marks above it. Fails when `mark_path` marks a node as
/// fenced before the nodes above are marked. Bounded, as three threads go through the marks of
/// three levels.
#[test]
fn two_deadlines_under_a_cancelling_grandparent() {
    model_within(4, || {
        let top = Arc::new(Context::background().with_cancel());
        let middle = Arc::new(top.with_cancel());
        let parent = Arc::clone(&middle);
        let marking = thread::spawn(move || parent.with_deadline(clock::at(1)));
        let timed = middle.with_deadline(clock::at(1));
        let canceller = Arc::clone(&top);
        let cancelling = thread::spawn(move || canceller.cancel());
        cancelling.join().unwrap();
        clock::tick();
        assert_eq!(timed.err(), Some(ContextError::Canceled));
        drop(marking.join().unwrap());
    });
}

/// An alarm fires while its waiter polls with another waker.
///
/// Either the new waker is called, or the waiter finds that the deadline has passed. Fails when
/// `register` does not give the alarm the waker of the task that polls.
#[test]
fn alarm_against_poll() {
    model(|| {
        let timed = Context::background().with_deadline(clock::at(1));
        let mut waiter = Waiter::new(&timed);
        assert!(!waiter.poll());
        let before = waiter.change_waker();
        let ticking = thread::spawn(clock::tick);
        let was_done = waiter.poll();
        ticking.join().unwrap();
        assert!(was_done || waiter.count() >= 1);
        assert!(before.count() <= 1 && waiter.poll());
    });
}

/// A thread blocks until a deadline. The clock moves before the thread parks, or after.
///
/// Fails when `register` sets no alarm: the thread then never continues.
#[test]
fn blocked_thread_against_deadline() {
    model(|| {
        let timed = Context::background().with_deadline(clock::at(1));
        let blocked = thread::spawn(move || timed.wait_blocking());
        clock::tick();
        assert_eq!(blocked.join().unwrap(), ContextError::DeadlineExceeded);
    });
}
