//! Waiting for a node to be done.

use std::marker::PhantomPinned;
use std::pin::Pin;
use std::ptr;
use std::task::{Context as TaskContext, Poll, RawWakerVTable, Waker};

use super::node::Ref;
use super::waiters::WaiterEntry;
use crate::context::timer::Alarm;
use crate::context::{Context, ContextError, clock};

/// Holds the context to wait for: owned or borrowed.
pub(in crate::context) trait Holder {
    fn context(&self) -> &Context;
}

impl Holder for Context {
    #[inline]
    fn context(&self) -> &Context {
        self
    }
}

impl Holder for &Context {
    #[inline]
    fn context(&self) -> &Context {
        self
    }
}

/// A waiter for a context to be done.
///
/// It costs nothing until the first pending poll. That poll queues the waiter at the context, and
/// arms an alarm if there is a deadline. Dropping the waiter takes both back.
pub(in crate::context) struct Wait<C: Holder> {
    holder: C,
    entry: WaiterEntry,
    /// The parts of the queued waker: a changed waker is noticed without the lock.
    waker: Option<(*const (), &'static RawWakerVTable)>,
    alarm: Option<Alarm>,
    /// Cancellers hold a pointer to `entry`.
    _pinned: PhantomPinned,
}

// SAFETY: `entry` is accessed from any thread under the node's lock. The stored pointers are
// compared and never followed.
unsafe impl<C: Holder + Send> Send for Wait<C> {}
// SAFETY: through a shared reference the fields are only read, and `notified` is atomic.
unsafe impl<C: Holder + Sync> Sync for Wait<C> {}

impl<C: Holder> Wait<C> {
    #[inline]
    pub(in crate::context) fn new(holder: C) -> Self {
        Wait { holder, entry: WaiterEntry::new(), waker: None, alarm: None, _pinned: PhantomPinned }
    }

    #[inline]
    pub(in crate::context) fn holder(&self) -> &C {
        &self.holder
    }

    #[inline]
    pub(in crate::context) fn context(&self) -> &Context {
        self.holder.context()
    }

    #[inline]
    fn target(&self) -> Option<&Ref> {
        self.holder.context().0.as_ref()
    }

    /// Whether it is queued with the task's current waker.
    ///
    /// If so, a canceller will call that waker, and only [`is_alarmed`](Self::is_alarmed) is left
    /// to check.
    #[inline]
    pub(in crate::context) fn is_waiting(&self, cx: &TaskContext<'_>) -> bool {
        self.waker.is_some_and(|(data, vtable)| same(cx.waker(), data, vtable))
    }

    /// Whether a queued waiter knows that the context is done.
    ///
    /// Either a canceller has notified the waiter, or an observer has latched the outcome. The cost
    /// is the same at any depth.
    #[inline]
    pub(in crate::context) fn is_known_done(&self) -> bool {
        self.entry.is_notified() || self.target().is_some_and(Ref::is_latched)
    }

    /// Whether the context has to be checked before the first poll of work.
    ///
    /// Reads no clock.
    #[inline]
    pub(in crate::context) fn may_be_done(&self) -> bool {
        self.target().is_some_and(Ref::may_be_done)
    }

    /// Counts one work that was ready at its first poll.
    #[inline]
    pub(in crate::context) fn ready_at_once(&self) {
        if let Some(timed) = self.target().and_then(|target| target.node().deadline_node()) {
            timed.ready.count(&timed.is_real);
        }
    }

    /// Whether some alarm of the process has fired, perhaps its own.
    #[inline]
    pub(in crate::context) fn is_alarmed(&self) -> bool {
        self.alarm.as_ref().is_some_and(Alarm::may_have_fired)
    }

    /// Ready once the context is done; otherwise the task is woken when it is.
    pub(in crate::context) fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<ContextError> {
        let Some(target) = self.target() else { return Poll::Pending };
        if let Some(error) = target.error() {
            self.disarm();
            return Poll::Ready(error);
        }
        if self.is_waiting(cx) && !self.is_alarmed() {
            return Poll::Pending;
        }
        self.register(cx)
    }

    /// Queues the task's waker, arms the alarm, and checks the context again.
    pub(in crate::context) fn register(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<ContextError> {
        // SAFETY: nothing is moved out of `self`, and `entry` is only used through shared
        // references.
        let this = unsafe { self.get_unchecked_mut() };
        let Some(target) = this.holder.context().0.as_ref() else { return Poll::Pending };
        let node = target.node();
        if let Some(anchor) = node.anchor()
            && this.waker.is_none_or(|(data, vtable)| !same(cx.waker(), data, vtable))
        {
            let waker = cx.waker().clone();
            // SAFETY: the anchor is always that of the same context. `self` is pinned, and `drop`
            // takes the entry out.
            let unneeded = unsafe { anchor.lock().waiters.wait(&this.entry, waker) };
            drop(unneeded);
            anchor.link_up();
        }
        this.waker = Some((cx.waker().data(), cx.waker().vtable()));
        let Some(deadline) = node.deadline else {
            return target.error().map_or(Poll::Pending, Poll::Ready);
        };
        if this.alarm.is_none() && node.is_known_real() {
            // No need to read the clock: if the deadline has passed, the alarm fires at once.
            if node.is_flagged() {
                return target.error().map_or(Poll::Pending, Poll::Ready);
            }
            this.alarm = Some(Alarm::new(deadline, false, cx));
            return Poll::Pending;
        }
        // The clock before the flags (invariant 7).
        let (now, is_virtual) = clock::now_and_kind();
        let now = this.alarm.as_ref().filter(|_| is_virtual).map_or(now, |alarm| alarm.now(now));
        if (now >= deadline || node.is_flagged())
            && let Some(outcome) = node.resolve(Some(now))
        {
            this.alarm = None;
            return Poll::Ready(outcome.error);
        }
        match &mut this.alarm {
            Some(alarm) => alarm.rearm(cx),
            None => {
                if !is_virtual {
                    node.set_known_real();
                }
                this.alarm = Some(Alarm::new(deadline, is_virtual, cx));
            }
        }
        Poll::Pending
    }

    /// Drops the alarm, as the timer of a done context would move a paused clock.
    fn disarm(self: Pin<&mut Self>) {
        // SAFETY: only the alarm is moved out of `self`, and it is not pinned.
        unsafe { self.get_unchecked_mut() }.alarm = None;
    }
}

fn same(waker: &Waker, data: *const (), vtable: &'static RawWakerVTable) -> bool {
    ptr::eq(waker.data(), data) && ptr::eq(waker.vtable(), vtable)
}

impl<C: Holder> Drop for Wait<C> {
    fn drop(&mut self) {
        if self.waker.is_none() || self.entry.is_notified() {
            return;
        }
        if let Some(anchor) = self.target().and_then(|target| target.node().anchor()) {
            // SAFETY: these are the lists that the entry was queued in, if it was.
            let waker = unsafe { anchor.lock().waiters.leave(&self.entry) };
            drop(waker);
        }
    }
}
