//! Contexts that stay live for a time after their parent is done.
//!
//! A shield is a chain of four nodes: without the parent's cancellation, with a cancellation of its
//! own (the *target*), with the parent's deadline plus the grace, and with a value that owns the
//! callbacks. When the last context of the shield is dropped, so is the value, and the callbacks
//! are stopped. So a parent keeps nothing of a shield that is gone.

use std::sync::Arc;
use std::time::Duration;

use super::hook::{AfterFunc, call_when_done};
use super::sync::{Mutex, lock};
use super::tree::Ref;
use super::{Cause, Context, ContextError, Key};

static SHIELD: Key<Arc<Shield>> = Key::new("shield");

/// Called when the grace begins to count: with a context of the shield, the parent's cause and the
/// grace.
pub(crate) type Begun = fn(&Context, &Cause, Duration);

/// The shortest grace.
///
/// The end of a shield is always a timer's. Otherwise the cancellation of a context could end any
/// number of nested shields within one another, on one stack.
const SHORTEST: Duration = Duration::from_millis(1);

struct Shield {
    /// Cancelled when the grace has passed after the parent was cancelled.
    target: Context,
    grace: Duration,
    begun: Begun,
    /// Waits until the parent is done.
    for_parent: Mutex<Option<AfterFunc>>,
    /// Waits until the grace has passed.
    for_grace: Mutex<Option<AfterFunc>>,
}

impl Context {
    /// Derives a child that is done `grace` after this context, with its error and cause.
    pub(crate) fn shield(&self, grace: Duration, begun: Begun) -> Context {
        let Some(parent) = self.0.as_ref().filter(|parent| parent.can_be_done() && !grace.is_zero()) else {
            return self.clone();
        };
        let grace = grace.max(SHORTEST);
        let target = Context(Some(Ref::without_cancel(parent))).with_cancel().disarm();
        let limited = match parent.deadline().and_then(|deadline| deadline.checked_add(grace)) {
            Some(at) => match parent.deadline_cause() {
                Some(cause) => target.with_deadline_cause(at, cause),
                None => target.with_deadline(at),
            },
            None => target.clone(),
        };
        let shield =
            Arc::new(Shield { target, grace, begun, for_parent: Mutex::new(None), for_grace: Mutex::new(None) });
        let ctx = limited.with_value(&SHIELD, Arc::clone(&shield));
        let (waiting, parent) = (Arc::downgrade(&shield), self.clone());
        let for_parent = call_when_done(self, move || {
            if let Some(shield) = waiting.upgrade() {
                shield.begin(&parent);
            }
        });
        *lock(&shield.for_parent) = Some(for_parent);
        ctx
    }
}

impl Shield {
    /// Called when the parent is done.
    fn begin(self: &Arc<Self>, parent: &Context) {
        let Some(cause) = parent.cause() else { return };
        (self.begun)(&self.target, &cause, self.grace);
        if parent.err() == Some(ContextError::DeadlineExceeded) {
            // The shield has a deadline of its own.
            return;
        }
        let done_at = parent.0.as_ref().and_then(Ref::done_at);
        let Some(end) = done_at.and_then(|done_at| done_at.checked_add(self.grace)) else { return };
        let waiting = Arc::downgrade(self);
        let for_grace = call_when_done(&Context::background().with_deadline(end), move || {
            if let Some(target) = waiting.upgrade().and_then(|shield| shield.target.0.clone()) {
                target.cancel(cause);
            }
        });
        *lock(&self.for_grace) = Some(for_grace);
    }
}

impl Drop for Shield {
    fn drop(&mut self) {
        for waiting in [&self.for_parent, &self.for_grace] {
            let waiting = lock(waiting).take();
            if let Some(waiting) = waiting {
                waiting.stop();
            }
        }
    }
}
