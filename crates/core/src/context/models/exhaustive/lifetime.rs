//! Who frees a node, and when (invariants 1, 2 and 4).

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::{Waiter, model};
use crate::context::{Context, Key};

/// A value whose uses must all come before its destructor: loom says so if anything allows another order.
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

/// Two owners let go, of which the last one sees that it is the only one and skips the read-modify-write. Fails when `is_last` reads the
/// count with `Relaxed`, when `release` gives its own up with that, and without the fence that follows.
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

/// The same through a child: its parent lives as long as it does.
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

/// The last owner of a child that is waited on lets go while its parent is cancelled. Fails when `is_last` takes a child that is linked
/// for free of others, and when `unlink` leaves it in the list. Bounded, as counts, flags and locks are all contended: over 10,000
/// orders without.
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

/// Two siblings that are waited on let go at once: each leaves the parent's list. Fails when `unlink` takes no lock.
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

/// A handle whose context somebody else has is dropped: that one learns of it. Fails when `drop` takes a node with two owners for its own.
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
