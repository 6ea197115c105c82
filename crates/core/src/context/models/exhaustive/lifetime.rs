//! Which thread frees a node, and when (invariants 1, 2 and 4).

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::{Waiter, model};
use crate::context::{Context, Key};

/// A value whose uses must all come before its destructor.
///
/// Loom fails if another order is possible.
struct Tracked(AtomicUsize);

static VALUE: Key<Tracked> = Key::new("value");

impl Tracked {
    fn new() -> Tracked {
        Tracked(AtomicUsize::new(0))
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.0.with_mut(|_| ());
    }
}

fn read(ctx: &Context) {
    assert_eq!(ctx.value(&VALUE).unwrap().0.load(Ordering::Relaxed), 0);
}

/// Two owners drop a node.
///
/// The last one finds that it is the sole owner and skips the read-modify-write.
///
/// Fails when `is_last` reads the count with `Relaxed`, when `release` lowers it with `Relaxed`,
/// and without the fence that follows.
#[test]
fn sole_owner() {
    model(|| {
        let ctx = Context::background().with_value(&VALUE, Tracked::new());
        let clone = ctx.clone();
        let reading = thread::spawn(move || {
            read(&clone);
            drop(clone);
        });
        read(&ctx);
        drop(ctx);
        reading.join().unwrap();
    });
}

/// The same through a child, which keeps its parent alive.
#[test]
fn last_child_frees_its_parent() {
    model(|| {
        let ctx = Context::background().with_value(&VALUE, Tracked::new());
        let child = ctx.with_cancel();
        let reading = thread::spawn(move || {
            read(&child);
            drop(child.disarm());
        });
        read(&ctx);
        drop(ctx);
        reading.join().unwrap();
    });
}

/// The last owner drops a child with a waiter while the child's parent is cancelled.
///
/// Fails when `is_last` ignores that a child is linked, and when `unlink` leaves the child in the
/// list. Bounded, as counts, flags and locks are all contended: over 10,000 orders without a bound.
#[test]
fn linked_child_drop_against_cancel() {
    model(|| {
        let parent = Arc::new(Context::background().with_cancel());
        let child = parent.with_value(&VALUE, Tracked::new()).with_cancel().disarm();
        let mut waiter = Waiter::new(&child);
        drop(child);
        assert!(!waiter.poll());
        let canceller = Arc::clone(&parent);
        let cancelling = thread::spawn(move || canceller.cancel());
        read(waiter.context());
        drop(waiter);
        cancelling.join().unwrap();
    });
}

/// Two siblings with waiters are dropped at the same time: each leaves the parent's list.
///
/// Fails when `unlink` takes no lock.
#[test]
fn two_linked_siblings_drop() {
    model(|| {
        let parent = Context::background().with_cancel();
        let [first, second] = [(); 2].map(|()| {
            let mut waiter = Waiter::new(&parent.with_cancel().disarm());
            assert!(!waiter.poll());
            waiter
        });
        let mut stays = Waiter::new(&parent);
        assert!(!stays.poll());
        let dropping = thread::spawn(move || drop(first));
        drop(second);
        dropping.join().unwrap();
        parent.cancel();
        assert_eq!(stays.count(), 1);
    });
}

/// A handle is dropped while another thread waits on its context: that waiter is woken.
///
/// Fails when `drop` treats a node with two owners as if it had one.
#[test]
fn handle_drop_against_wait() {
    model(|| {
        let handle = Context::background().with_cancel();
        let mut waiter = Waiter::new(&handle);
        let waiting = thread::spawn(move || (waiter.poll(), waiter));
        drop(handle);
        let (was_done, mut waiter) = waiting.join().unwrap();
        assert!(was_done || waiter.count() == 1);
        assert!(waiter.poll());
    });
}
