//! The count of pending messages.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The number of messages that are not handled yet, over all groups.
#[derive(Default)]
pub(super) struct Pending {
    count: AtomicUsize,
    /// Notified when the count becomes 0.
    became_zero: Notify,
}

impl Pending {
    /// Adds the messages that a publisher is about to push to `count` groups.
    pub(super) fn offer(&self, count: usize) -> Offered<'_> {
        self.count.fetch_add(count, Ordering::SeqCst);
        Offered { remaining: count, pending: self }
    }

    pub(super) fn subtract(&self, count: usize) {
        if count > 0 && self.count.fetch_sub(count, Ordering::SeqCst) == count {
            self.became_zero.notify_waiters();
        }
    }

    /// Waits until `is_over` returns true. Calls it now, and each time the count becomes 0.
    pub(super) async fn wait_until(&self, mut is_over: impl FnMut() -> bool) {
        loop {
            // Registered before the check, so that no notification is missed.
            let mut became_zero = pin!(self.became_zero.notified());
            became_zero.as_mut().enable();
            if is_over() {
                return;
            }
            became_zero.await;
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }
}

/// Pending messages that no group has taken yet. Dropping this subtracts them from the count.
pub(super) struct Offered<'a> {
    remaining: usize,
    pending: &'a Pending,
}

impl Offered<'_> {
    /// One group has taken its message.
    pub(super) fn record_taken(&mut self) {
        self.remaining -= 1;
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        self.pending.subtract(self.remaining);
    }
}
