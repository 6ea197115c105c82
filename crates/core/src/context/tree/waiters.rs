//! The waiters of a node, in the order in which they were queued.

use std::task::Waker;

use super::list::{List, Listed, Neighbours};
use crate::context::sync::{AtomicBool, Cell, Ordering};

/// How many items are taken out at most each time a node's lock is held.
pub(super) const BATCH: usize = 32;

/// The waiters that have an entry at one node.
pub(super) struct Waiters(List<WaiterEntry>);

/// A waiter's entry in the list, stored inside the waiting future.
///
/// Everything in it except `notified` is accessed under the lock of the node (invariant 4).
pub(super) struct WaiterEntry {
    neighbours: Neighbours<WaiterEntry>,
    waker: Cell<Option<Waker>>,
    is_queued: Cell<bool>,
    /// Whether a canceller has taken it out; the canceller does not access it any more.
    notified: AtomicBool,
}

impl Listed for WaiterEntry {
    fn neighbours(&self) -> &Neighbours<Self> {
        &self.neighbours
    }
}

impl WaiterEntry {
    pub(super) fn new() -> Self {
        WaiterEntry {
            neighbours: Neighbours::new(),
            waker: Cell::new(None),
            is_queued: Cell::new(false),
            notified: AtomicBool::new(false),
        }
    }

    /// Whether a canceller has taken it out. The context was flagged before.
    #[inline]
    pub(super) fn is_notified(&self) -> bool {
        self.notified.load(Ordering::Acquire)
    }
}

impl Waiters {
    pub(super) const EMPTY: Waiters = Waiters(List::EMPTY);

    /// Queues `entry` with `waker`, or replaces its waker if it is queued.
    ///
    /// An entry that a canceller has taken out stays out. Returns the waker that is not needed, to
    /// be dropped outside the lock.
    ///
    /// # Safety
    /// `entry` waits on no other node. It is pinned, and [`leave`](Self::leave) is called before it
    /// is dropped, unless it was notified.
    pub(super) unsafe fn wait(&mut self, entry: &WaiterEntry, waker: Waker) -> Option<Waker> {
        if entry.is_notified() {
            return Some(waker);
        }
        let before = entry.waker.replace(Some(waker));
        if !entry.is_queued.replace(true) {
            // SAFETY: it is in no list, as it was not queued. The rest is guaranteed by the caller.
            unsafe { self.0.push_back(entry) };
        }
        before
    }

    /// Takes `entry` out of the list if it is queued. Returns its waker.
    ///
    /// # Safety
    /// As [`wait`](Self::wait).
    pub(super) unsafe fn leave(&mut self, entry: &WaiterEntry) -> Option<Waker> {
        if entry.is_queued.replace(false) {
            // SAFETY: it is queued, and these are the waiters of its node.
            unsafe { self.0.remove(entry) };
        }
        entry.waker.take()
    }

    /// Takes out waiters until `into` holds a batch. Returns whether more are left.
    pub(super) fn take(&mut self, into: &mut Vec<Waker>) -> bool {
        while let Some(first) = self.0.first().filter(|_| into.len() < BATCH) {
            // SAFETY: an item in a list is alive (invariant 4).
            let entry = unsafe { first.as_ref() };
            // SAFETY: it is the first of this list.
            unsafe { self.0.remove(entry) };
            entry.is_queued.set(false);
            into.extend(entry.waker.take());
            entry.notified.store(true, Ordering::Release);
        }
        !self.0.is_empty()
    }
}
