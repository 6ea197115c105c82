//! C20: the clone, wake and drop functions of a waker are user code and may use the context.
#![allow(unsafe_code)]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{RawWaker, RawWakerVTable, Waker};

use throughline_core::Context;

use super::{SECOND, poll_once, poll_with};

/// A waker that waits on its context whenever it is cloned, woken or dropped. It hangs if that
/// happens under a lock of the library.
struct UsesContext {
    ctx: Context,
    calls: AtomicUsize,
    woken: Sender<()>,
}

impl UsesContext {
    fn waker(ctx: &Context) -> (Arc<UsesContext>, Receiver<()>, Waker) {
        let (woken, wakes) = channel();
        let uses_context = Arc::new(UsesContext { ctx: ctx.clone(), calls: AtomicUsize::new(0), woken });
        let data = Arc::into_raw(uses_context.clone()).cast();
        // SAFETY: each function of the table gets a pointer from `Arc::into_raw` that owns one
        // count.
        (uses_context, wakes, unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) })
    }

    fn use_context(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let below = self.ctx.with_cancel();
        let mut done = pin!(below.done());
        let _ = (poll_once(done.as_mut()), self.ctx.cause(), self.ctx.after_func(|| {}).stop());
    }

    fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::SeqCst)
    }
}

static TABLE: RawWakerVTable = {
    /// # Safety
    /// `data` comes from `Arc::into_raw` and owns a count.
    unsafe fn use_context(data: *const ()) {
        // SAFETY: guaranteed by the caller.
        unsafe { &*data.cast::<UsesContext>() }.use_context();
    }
    unsafe fn clone(data: *const ()) -> RawWaker {
        // SAFETY: the data of this waker, which owns a count.
        unsafe {
            use_context(data);
            Arc::increment_strong_count(data.cast::<UsesContext>());
        }
        RawWaker::new(data, &TABLE)
    }
    unsafe fn wake(data: *const ()) {
        // SAFETY: as above; the count goes with it.
        unsafe { wake_by_ref(data) };
        // SAFETY: as above.
        unsafe { drop_waker(data) }
    }
    unsafe fn wake_by_ref(data: *const ()) {
        // SAFETY: as above.
        let uses_context = unsafe { &*data.cast::<UsesContext>() };
        uses_context.use_context();
        let _ = uses_context.woken.send(());
    }
    unsafe fn drop_waker(data: *const ()) {
        // SAFETY: as above; the count goes with it.
        unsafe {
            use_context(data);
            drop(Arc::from_raw(data.cast::<UsesContext>()));
        }
    }
    RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker)
};

#[test]
fn c20_wakers_may_use_the_tree_when_cloned_woken_and_dropped() {
    let handle = Context::background().with_cancel();
    for ctx in [handle.context().clone(), handle.with_timeout(60 * SECOND)] {
        let (uses_context, _, waker) = UsesContext::waker(&ctx);
        let (mut dropped, mut replaced) = (Box::pin(ctx.done()), Box::pin(ctx.done()));
        assert!(poll_with(dropped.as_mut(), &waker).is_pending());
        assert!(uses_context.calls() > 0, "cloned");
        drop(dropped);
        assert!(uses_context.calls() > 0, "dropped with the future");
        assert!(poll_with(replaced.as_mut(), &waker).is_pending());
        assert!(poll_with(replaced.as_mut(), Waker::noop()).is_pending());
        assert!(uses_context.calls() > 1, "cloned, and dropped for another");
        assert!(poll_with(replaced.as_mut(), &waker).is_pending());
        drop(waker);
    }
}

#[test]
fn c20_wakers_may_use_the_tree_when_woken_by_a_deadline_or_a_cancellation() {
    let handle = Context::background().with_cancel();
    let soon = Context::background().with_timeout(SECOND / 100);
    for ctx in [handle.context(), &soon] {
        let (_, wakes, waker) = UsesContext::waker(ctx);
        let mut done = pin!(ctx.done());
        while !ctx.is_done() && poll_with(done.as_mut(), &waker).is_pending() {
            handle.cancel();
            wakes.recv().unwrap();
        }
        assert!(poll_with(done, &waker).is_ready());
    }
}
