//! Waiting for a node to be done.

use std::marker::PhantomPinned;
use std::pin::Pin;
use std::ptr;
use std::task::{Context as TaskContext, Poll, RawWakerVTable, Waker};

use super::list::WaiterEntry;
use super::node::Ref;
use crate::context::timer::Alarm;
use crate::context::{Context, ContextError, clock};

/// Who has the context that is waited on: a future that owns it, or one that borrows it.
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

/// One who waits for a context to be done. It costs nothing until the first pending poll, which queues it with the context, and
/// arms an alarm if there is a deadline; dropping it takes both back.
pub(in crate::context) struct Wait<C: Holder> {
    holder: C,
    entry: WaiterEntry,
    /// Of the waker that is queued: to see without a lock whether the task's has changed.
    waker: Option<(*const (), &'static RawWakerVTable)>,
    alarm: Option<Alarm>,
    /// Cancellers hold a pointer to `entry`.
    _pinned: PhantomPinned,
}

// SAFETY: `entry` is reached under the lock of the node, from any thread; the stored pointers are compared and not followed.
unsafe impl<C: Holder + Send> Send for Wait<C> {}
// SAFETY: nothing is done through a shared reference but read `notified`.
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

    /// Whether it waits, with the task's waker: then who cancels calls that, and nothing else needs a look but
    /// [`is_alarmed`](Self::is_alarmed).
    #[inline]
    pub(in crate::context) fn is_waiting(&self, cx: &TaskContext<'_>) -> bool {
        self.waker.is_some_and(|(data, vtable)| same(cx.waker(), data, vtable))
    }

    /// Whether it is known, to one who waits, that the context is done: a canceller has come by, or the context was asked after its
    /// deadline. It costs the same at any depth.
    #[inline]
    pub(in crate::context) fn is_known_over(&self) -> bool {
        self.entry.is_notified() || self.target().is_some_and(Ref::is_latched)
    }

    /// Whether the context has to be asked before work is polled for the first time. It reads no clock.
    #[inline]
    pub(in crate::context) fn may_be_over(&self) -> bool {
        self.target().is_some_and(Ref::may_be_over)
    }

    /// Work was ready without waiting.
    #[inline]
    pub(in crate::context) fn ready_at_once(&self) {
        if let Some(timed) = self.target().and_then(|target| target.node().as_timed()) {
            timed.ready_at_once();
        }
    }

    /// Whether some alarm of the process has gone off, perhaps its own.
    #[inline]
    pub(in crate::context) fn is_alarmed(&self) -> bool {
        self.alarm.as_ref().is_some_and(Alarm::may_have_fired)
    }

    /// Ready once the context is done; else the task is woken when it is.
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

    /// Queues the task's waker, arms the alarm, and looks again.
    pub(in crate::context) fn register(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<ContextError> {
        // SAFETY: nothing is moved out of it, and `entry` is only used through shared references.
        let this = unsafe { self.get_unchecked_mut() };
        let Some(target) = this.holder.context().0.as_ref() else { return Poll::Pending };
        let node = target.node();
        if let Some(anchor) = node.anchor()
            && this.waker.is_none_or(|(data, vtable)| !same(cx.waker(), data, vtable))
        {
            let waker = cx.waker().clone();
            // SAFETY: always the anchor of the one context; `self` is pinned, and `drop` takes the entry out.
            let unneeded = unsafe { anchor.lock().wait(&this.entry, waker) };
            drop(unneeded);
            anchor.link_up();
        }
        this.waker = Some((cx.waker().data(), cx.waker().vtable()));
        let Some(deadline) = node.deadline else {
            return target.error().map_or(Poll::Pending, Poll::Ready);
        };
        if this.alarm.is_none() && node.is_known_real() {
            // No look at the clock: a deadline that has passed sets the alarm off at once.
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

    /// What is over keeps no timer, which would move a paused clock.
    fn disarm(self: Pin<&mut Self>) {
        // SAFETY: nothing is moved out of it but the alarm, which is not pinned.
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
            // SAFETY: the lists it was queued in, if it was.
            let waker = unsafe { anchor.lock().leave(&self.entry) };
            drop(waker);
        }
    }
}
