//! A shield ends when its grace has passed after its parent was cancelled (C30).

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::{Waiter, clock, model};
use crate::context::{Cause, Context, ContextError};

fn shielded(ctx: &Context) -> Context {
    ctx.shield(Duration::from_secs(1), |_, _, _| {})
}

/// A shield is made, and gets a waiter, while its parent is cancelled. Then the grace passes.
///
/// Fails when the end of the grace cancels nothing, and when the shield sees the cancellation of
/// its parent.
#[test]
fn shield_against_cancel() {
    model(|| {
        let request = Arc::new(Context::background().with_cancel());
        let canceller = Arc::clone(&request);
        let cancelling = thread::spawn(move || canceller.cancel_with(Cause::Shutdown));
        let shield = shielded(&request);
        let mut waiter = Waiter::new(&shield);
        assert!(!waiter.poll());
        cancelling.join().unwrap();
        assert!(request.is_done() && !shield.is_done());
        clock::tick();
        assert_eq!(shield.err(), Some(ContextError::Canceled));
        assert_eq!(shield.cause().map(|cause| cause.name()), Some("shutdown"));
        assert_eq!(waiter.count(), 1);
    });
}

/// The last context of a shield is dropped while its parent is cancelled.
///
/// The parent keeps nothing of it. Nor does a live parent. Fails when `Shield` stops no callback.
#[test]
fn shield_drop_against_cancel() {
    model(|| {
        let request = Arc::new(Context::background().with_cancel());
        let shield = shielded(&request);
        let canceller = Arc::clone(&request);
        let cancelling = thread::spawn(move || canceller.cancel());
        drop(shield);
        cancelling.join().unwrap();
        let live = Context::background().with_cancel();
        drop(shielded(&live));
        // Only the handles are left.
        for handle in [&*request, &live] {
            assert!(handle.0.as_ref().is_some_and(|node| node.is_sole()));
        }
    });
}

/// The grace passes while a waiter polls.
///
/// The waiter finds the end, or is woken. Fails when `register` does not read the flags after it
/// has linked.
#[test]
fn end_of_grace_against_poll() {
    model(|| {
        let request = Context::background().with_cancel();
        let shield = shielded(&request);
        request.cancel();
        let mut waiter = Waiter::new(&shield);
        let ticking = thread::spawn(clock::tick);
        let was_done = waiter.poll();
        ticking.join().unwrap();
        assert!(was_done || waiter.count() == 1);
        assert_eq!(shield.err(), Some(ContextError::Canceled));
    });
}
