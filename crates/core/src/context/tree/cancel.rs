//! Cancelling: set the flag, then wake whoever waits below.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::task::Waker;

use std::collections::HashSet;

use super::cause;
use super::list::BATCH;
use super::node::{CancelNode, Kind, Node, Ref};
use super::sync::{Ordering, fence};
use crate::context::Cause;

impl Ref {
    /// Cancels the node, unless it is done, and wakes who waits on it or below it. When this returns all below are done.
    pub(in crate::context) fn cancel(&self, cause: Cause) {
        let Some(this) = self.node().as_cancel() else { return };
        if this.node.is_flagged() {
            // The first one stands. It is latched here before anybody is woken.
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
            flag_merges(self);
        }
        // Also when it was flagged before: an observer of a deadline latches and wakes nobody.
        wake(self);
    }
}

impl Node {
    /// The first cause given is the one; whoever reads it has seen the flag that is set after it.
    fn set_cause(&self, cause: Cause) {
        let raw = cause::into_raw(cause);
        if self.cause.compare_exchange(ptr::null_mut(), raw, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: made above, and nobody else has seen it.
            unsafe { cause::drop_raw(raw) };
        }
    }
}

/// Nodes to visit, the first in first. Each is in one queue at most, and has a count while it is.
struct Queue {
    head: Option<Ref>,
    tail: *const CancelNode,
}

impl Queue {
    fn push(&mut self, item: Ref) {
        let Some(node) = item.node().as_cancel() else { return };
        if node.queued.swap(true, Ordering::AcqRel) {
            // Whoever has queued it has yet to look into its lists, and sees what we would.
            return;
        }
        let pointer = ptr::from_ref(node);
        // SAFETY: the tail is queued, and so counted; `queue_next` belongs to whoever set `queued`.
        match unsafe { self.tail.as_ref() }.filter(|_| self.head.is_some()) {
            Some(tail) => tail.queue_next.set(Some(item)),
            None => self.head = Some(item),
        }
        self.tail = pointer;
    }

    fn pop(&mut self) -> Option<Ref> {
        let first = self.head.take()?;
        if let Some(node) = first.node().as_cancel() {
            self.head = node.queue_next.take();
            // A read-modify-write: it sees what anybody did before finding the node queued.
            node.queued.swap(false, Ordering::AcqRel);
        }
        Some(first)
    }
}

/// Wakes the waiters of `top` and of all that is linked below it, in the order they came, level by level.
fn wake(top: &Ref) {
    let mut queue = Queue { head: None, tail: ptr::null() };
    let mut wakers: Vec<Waker> = Vec::new();
    let mut children: Vec<Ref> = Vec::new();
    queue.push(top.clone());
    while let Some(next) = queue.pop() {
        let Some(node) = next.node().as_cancel() else { continue };
        loop {
            let mut lists = node.lock();
            if !lists.has_waiters() && !lists.has_children() {
                break;
            }
            while wakers.len() < BATCH && lists.has_waiters() {
                wakers.extend(lists.pop_waiter());
            }
            while children.len() < BATCH {
                match lists.pop_child() {
                    Some(child) => children.extend(child),
                    None => break,
                }
            }
            drop(lists);
            children.drain(..).for_each(|child| queue.push(child));
            wakers.drain(..).for_each(wake_one);
        }
    }
}

/// A waker that panics does not keep the others from being woken.
fn wake_one(waker: Waker) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        drop_payload(payload);
    }
}

fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // It panics whenever it is dropped: leave it.
        std::mem::forget(again);
    }
}

/// Latches the answer in every merge that is reached through its second parent: asking upwards alone would not find it.
fn flag_merges(top: &Ref) {
    let mut seen = HashSet::new();
    let mut pending = vec![top.clone()];
    while let Some(next) = pending.pop() {
        let Some(node) = next.node().as_cancel().filter(|node| seen.insert(ptr::from_ref(*node))) else { continue };
        if matches!(node.node.kind, Kind::Merge) {
            node.latch_second();
        }
        node.lock().children(&mut pending);
    }
}
