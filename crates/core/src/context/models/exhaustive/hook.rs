//! A callback runs at most once, and `stop` returns whether it prevented that (C22).

use std::sync::Arc;

use loom::thread;

use super::{Count, model};
use crate::context::{Context, hook};

/// A callback is stopped while its context is cancelled.
///
/// Fails when `stop` checks that the callback is there and takes it later.
#[test]
fn stop_against_fire() {
    model(|| {
        let ctx = Arc::new(Context::background().with_cancel());
        let calls = Arc::new(Count::default());
        let called = Arc::clone(&calls);
        let registration = hook::call_when_done(&ctx, move || called.add());
        let canceller = Arc::clone(&ctx);
        let cancelling = thread::spawn(move || canceller.cancel());
        let is_stopped = registration.stop();
        cancelling.join().unwrap();
        assert_eq!(calls.count(), usize::from(!is_stopped));
        assert!(!registration.stop());
        // The callback has been dropped in either case.
        assert_eq!(Arc::strong_count(&calls), 1);
    });
}

/// A callback is registered while its context is cancelled.
///
/// Fails when `on_wake` loses a wake-up that comes while it polls. Bounded, as a hook has two locks
/// and a counter besides its waiter.
#[test]
fn registration_against_cancel() {
    model(|| {
        let ctx = Arc::new(Context::background().with_cancel());
        let calls = Arc::new(Count::default());
        let called = Arc::clone(&calls);
        let canceller = Arc::clone(&ctx);
        let cancelling = thread::spawn(move || canceller.cancel());
        drop(hook::call_when_done(&ctx, move || called.add()));
        cancelling.join().unwrap();
        assert_eq!(calls.count(), 1);
        assert_eq!(Arc::strong_count(&calls), 1);
    });
}
