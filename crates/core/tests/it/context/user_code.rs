//! C20: what a waker does when it is cloned, woken or dropped is the user's own, and may use what it came from.
#![allow(unsafe_code)]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{RawWaker, RawWakerVTable, Waker};

use throughline_core::Context;

use super::{SECOND, poll_once, poll_with};

/// A waker that waits on its context whenever it is cloned, woken or dropped. It hangs if that happens under a lock of ours.
struct Nosy {
    ctx: Context,
    calls: AtomicUsize,
    woken: Sender<()>,
}

impl Nosy {
    fn waker(ctx: &Context) -> (Arc<Nosy>, Receiver<()>, Waker) {
        let (woken, wakes) = channel();
        let nosy = Arc::new(Nosy { ctx: ctx.clone(), calls: AtomicUsize::new(0), woken });
        let data = Arc::into_raw(nosy.clone()).cast();
        // SAFETY: each function of the table gets a pointer that `Arc::into_raw` has returned, with a count of its own.
        (nosy, wakes, unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) })
    }

    fn look(&self) {
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
    /// `data` is from `Arc::into_raw`, and has a count.
    unsafe fn look(data: *const ()) {
        // SAFETY: says the caller.
        unsafe { &*data.cast::<Nosy>() }.look();
    }
    unsafe fn clone(data: *const ()) -> RawWaker {
        // SAFETY: a waker's own data.
        unsafe {
            look(data);
            Arc::increment_strong_count(data.cast::<Nosy>());
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
        let nosy = unsafe { &*data.cast::<Nosy>() };
        nosy.look();
        let _ = nosy.woken.send(());
    }
    unsafe fn drop_waker(data: *const ()) {
        // SAFETY: as above; the count goes with it.
        unsafe {
            look(data);
            drop(Arc::from_raw(data.cast::<Nosy>()));
        }
    }
    RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker)
};

#[test]
fn c20_wakers_may_use_the_tree_when_cloned_woken_and_dropped() {
    let handle = Context::background().with_cancel();
    for ctx in [handle.context().clone(), handle.with_timeout(60 * SECOND)] {
        let (nosy, _, waker) = Nosy::waker(&ctx);
        let (mut dropped, mut replaced) = (Box::pin(ctx.done()), Box::pin(ctx.done()));
        assert!(poll_with(dropped.as_mut(), &waker).is_pending());
        assert!(nosy.calls() > 0, "cloned");
        drop(dropped);
        assert!(nosy.calls() > 0, "dropped with the future");
        assert!(poll_with(replaced.as_mut(), &waker).is_pending());
        assert!(poll_with(replaced.as_mut(), Waker::noop()).is_pending());
        assert!(nosy.calls() > 1, "cloned, and dropped for another");
        assert!(poll_with(replaced.as_mut(), &waker).is_pending());
        drop(waker);
    }
}

#[test]
fn c20_wakers_may_use_the_tree_when_woken_by_a_deadline_or_a_cancellation() {
    let handle = Context::background().with_cancel();
    let soon = Context::background().with_timeout(SECOND / 100);
    for ctx in [handle.context(), &soon] {
        let (_, wakes, waker) = Nosy::waker(ctx);
        let mut done = pin!(ctx.done());
        while !ctx.is_done() && poll_with(done.as_mut(), &waker).is_pending() {
            handle.cancel();
            wakes.recv().unwrap();
        }
        assert!(poll_with(done, &waker).is_ready());
    }
}
