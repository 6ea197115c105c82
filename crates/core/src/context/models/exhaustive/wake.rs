//! No wake-up is lost (invariants 4 and 6).

use std::sync::Arc;

use loom::thread;

use super::{Waiter, model, model_within};
use crate::context::{Context, ContextError};

/// A waiter is queued on a child while the parent is cancelled.
///
/// Fails when `register` does not read the flags again after it has linked.
#[test]
fn link_against_cancel() {
    model(|| {
        let parent = Context::background().with_cancel();
        let child = parent.with_cancel();
        let mut waiter = Waiter::new(&child);
        let waiting = thread::spawn(move || (waiter.poll(), waiter));
        parent.cancel();
        let (was_done, mut waiter) = waiting.join().unwrap();
        assert!(was_done || waiter.count() == 1);
        assert!(waiter.poll());
    });
}

/// The second waiter finds its context linked, but not yet up to the top.
///
/// The first waiter is still linking when the top is cancelled.
///
/// Fails when `link_up` stops at a node that is linked, and when it holds a child's lock while it
/// takes the parent's. Bounded, as flags and locks of three levels are contended; the faults need
/// few preemptions.
#[test]
fn two_linkers() {
    model_within(6, || {
        let top = Context::background().with_cancel();
        let middle = top.with_cancel();
        let bottom = middle.with_cancel();
        let [mut first, mut second] = [(); 2].map(|()| Waiter::new(&bottom));
        let waiting = thread::spawn(move || (first.poll(), first));
        assert!(!second.poll());
        top.cancel();
        assert_eq!(second.count(), 1);
        let (was_done, first) = waiting.join().unwrap();
        assert!(was_done || first.count() == 1);
    });
}

/// Of two waiters on one context, one is dropped while the canceller takes both out.
///
/// Fails when `drop` leaves the entry in the list.
#[test]
fn waiter_drop_against_wake() {
    model(|| {
        let ctx = Arc::new(Context::background().with_cancel());
        let mut dropped = Waiter::new(&ctx);
        let mut stays = Waiter::new(&ctx);
        assert!(!dropped.poll() && !stays.poll());
        let canceller = Arc::clone(&ctx);
        let cancelling = thread::spawn(move || canceller.cancel());
        let wakes = dropped.forget();
        cancelling.join().unwrap();
        assert_eq!(stays.count(), 1);
        assert!(wakes.count() <= 1 && Arc::strong_count(&wakes) == 1);
    });
}

/// A task that polls again with another waker is woken through that one.
///
/// Or it finds the context done.
///
/// Fails when `wait` keeps the first waker.
#[test]
fn changed_waker_against_wake() {
    model(|| {
        let ctx = Arc::new(Context::background().with_cancel());
        let mut waiter = Waiter::new(&ctx);
        assert!(!waiter.poll());
        let before = waiter.change_waker();
        let canceller = Arc::clone(&ctx);
        let cancelling = thread::spawn(move || canceller.cancel());
        let was_done = waiter.poll();
        cancelling.join().unwrap();
        assert!(was_done || waiter.count() == 1);
        assert!(before.count() + waiter.count() <= 1);
        assert!(waiter.poll());
    });
}

/// An observer finds a context done while it is being cancelled.
///
/// It latches the outcome and wakes no waiter.
///
/// The waiters are still woken, and find the context done from then on. Fails when `take_children`
/// skips children that are done already, and when `poll` only checks its own entry.
#[test]
fn observer_against_wake() {
    model(|| {
        let parent = Context::background().with_cancel();
        let child = parent.with_cancel();
        let mut waiter = Waiter::new(&child);
        assert!(!waiter.poll());
        let cancelling = thread::spawn(move || parent.cancel());
        if child.is_done() {
            assert!(waiter.poll());
        }
        cancelling.join().unwrap();
        assert_eq!(waiter.count(), 1);
    });
}

/// A thread blocks until its context is done.
///
/// The cancellation comes before it parks, or after.
///
/// Fails when it parks before it polls, and when `register` does not read the flags again after it
/// has linked: the thread then never continues.
#[test]
fn blocked_thread_against_cancel() {
    model(|| {
        let parent = Context::background().with_cancel();
        let child = parent.with_cancel().disarm();
        let blocked = thread::spawn(move || child.wait_blocking());
        parent.cancel();
        assert_eq!(blocked.join().unwrap(), ContextError::Canceled);
    });
}
