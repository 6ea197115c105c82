//! Cancelling: set the flag, then wake all waiters below.

use std::collections::{HashSet, VecDeque};
use std::ptr;
use std::task::Waker;

use super::cause;
use super::node::{CancelNode, Node, Ref};
use crate::context::Cause;
use crate::context::catch::catch_panic;
use crate::context::sync::{Ordering, fence};

impl Ref {
    /// Cancels the node, unless it is done, and wakes its waiters and those below.
    ///
    /// When this returns, the node and all nodes below it are done.
    pub(in crate::context) fn cancel(&self, cause: Cause) {
        let Some(this) = self.node().as_cancel() else { return };
        if this.node.is_flagged() {
            // The first event counts. Its outcome is latched here before any waiter is woken.
            drop(cause);
            this.node.outcome();
        } else {
            this.node.set_cause(cause);
            this.node.flag();
        }
        fence(Ordering::SeqCst);
        if this.node.deadline.is_some() || this.timed_below.load(Ordering::SeqCst) {
            this.stamp();
        }
        if this.merged_below.load(Ordering::SeqCst) {
            latch_merges(self);
        }
        // Even if it was flagged before: an observer that latches a deadline wakes no waiter.
        wake(self);
    }

    /// Sets the cause of its own deadline. Nothing else has seen the node yet.
    pub(in crate::context) fn set_deadline_cause(&self, cause: Cause) {
        self.node().set_cause(cause);
    }
}

impl Node {
    /// Sets the cause unless one is set.
    ///
    /// A reader of the cause has first seen the flag, which is set after the cause.
    fn set_cause(&self, cause: Cause) {
        let raw = cause::into_raw(cause);
        if self.cause.compare_exchange(ptr::null_mut(), raw, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: made above, and nothing else has seen it.
            unsafe { cause::drop_raw(raw) };
        }
    }
}

/// Wakes the waiters of `top` and of all nodes linked below it.
///
/// It goes level by level; within a level, first come, first woken.
fn wake(top: &Ref) {
    let Some(first) = top.node().as_cancel() else { return };
    let mut wakers: Vec<Waker> = Vec::new();
    // Each has a count while it is in here, so no other thread can free it meanwhile.
    let mut below: VecDeque<Ref> = VecDeque::new();
    wake_level(first, &mut wakers, &mut below);
    while let Some(next) = below.pop_front() {
        if let Some(node) = next.node().as_cancel() {
            wake_level(node, &mut wakers, &mut below);
        }
        drop_catching_panic(next);
    }
}

/// Wakes the waiters of `node` and of its linked children, and takes the children out.
fn wake_level(node: &CancelNode, wakers: &mut Vec<Waker>, below: &mut VecDeque<Ref>) {
    loop {
        let mut lists = node.lock();
        let mut more = lists.waiters.take(wakers);
        more |= lists.take_children(wakers, below);
        drop(lists);
        // A waker that panics does not keep the others from being woken.
        wakers.drain(..).for_each(|waker| catch_panic(|| waker.wake()));
        if !more {
            return;
        }
    }
}

/// Latches the outcome in every merge that is below `top` through its second parent.
///
/// An observer only follows the first parent upwards, and would not find it.
fn latch_merges(top: &Ref) {
    let mut seen = HashSet::new();
    let mut pending = vec![top.clone()];
    while let Some(next) = pending.pop() {
        if let Some(node) = next.node().as_cancel().filter(|node| seen.insert(ptr::from_ref(*node))) {
            if let Some(merge) = node.node.as_merge() {
                merge.latch_second();
            }
            node.lock().collect_children(&mut pending);
        }
        drop_catching_panic(next);
    }
}

/// Drops a reference, which may have become the last one.
///
/// If the destructor of a value or a cause panics, the cancellation still reaches the other nodes.
fn drop_catching_panic(node: Ref) {
    catch_panic(|| drop(node));
}
