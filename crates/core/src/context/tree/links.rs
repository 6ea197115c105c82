//! The intrusive lists of a node: its waiters, and its children with waiters.
//!
//! Everything in them except `owner` and `notified` is accessed under the lock of the node that
//! owns the lists (invariant 4).

use std::collections::VecDeque;
use std::ptr::{self, NonNull};
use std::task::Waker;

use super::node::{CancelNode, NodeKind, Ref};
use crate::context::sync::{AtomicBool, AtomicPtr, Cell, MutexGuard, Ordering};

/// How many waiters or children are taken out each time the lock is held.
const BATCH: usize = 32;

/// The lists that a node's lock guards.
pub(super) struct Lists {
    waiters: List<WaiterEntry>,
    children: List<ChildLink>,
}

/// A ring: the `prev` of the first item is the last item.
struct List<T> {
    head: Option<NonNull<T>>,
}

/// A waiter's entry in the list, stored inside the waiting future.
pub(super) struct WaiterEntry {
    neighbours: Neighbours<WaiterEntry>,
    waker: Cell<Option<Waker>>,
    is_queued: Cell<bool>,
    /// Whether a canceller has taken it out; the canceller does not access it any more.
    notified: AtomicBool,
}

/// The link of a child in the list of one parent.
pub(super) struct ChildLink {
    neighbours: Neighbours<ChildLink>,
    /// The child while it is linked, otherwise null.
    owner: AtomicPtr<CancelNode>,
}

struct Neighbours<T> {
    prev: Cell<Option<NonNull<T>>>,
    next: Cell<Option<NonNull<T>>>,
}

trait Listed: Sized {
    fn neighbours(&self) -> &Neighbours<Self>;
}

impl Listed for WaiterEntry {
    fn neighbours(&self) -> &Neighbours<Self> {
        &self.neighbours
    }
}

impl Listed for ChildLink {
    fn neighbours(&self) -> &Neighbours<Self> {
        &self.neighbours
    }
}

impl<T> Neighbours<T> {
    fn new() -> Self {
        Neighbours { prev: Cell::new(None), next: Cell::new(None) }
    }
}

impl<T: Listed> List<T> {
    const EMPTY: Self = List { head: None };

    fn push_back(&mut self, item: &T) {
        let pointer = Some(NonNull::from(item));
        let own = item.neighbours();
        // SAFETY: an item in a list is alive (invariant 4).
        let Some(head) = self.head.map(|head| unsafe { head.as_ref() }.neighbours()) else {
            own.prev.set(pointer);
            own.next.set(pointer);
            self.head = pointer;
            return;
        };
        let last = head.prev.replace(pointer);
        own.prev.set(last);
        own.next.set(self.head);
        if let Some(last) = last {
            // SAFETY: as above.
            unsafe { last.as_ref() }.neighbours().next.set(pointer);
        }
    }

    fn remove(&mut self, item: &T) {
        let pointer = Some(NonNull::from(item));
        let (prev, next) = (item.neighbours().prev.take(), item.neighbours().next.take());
        if next == pointer {
            self.head = None;
            return;
        }
        if self.head == pointer {
            self.head = next;
        }
        if let (Some(prev), Some(next)) = (prev, next) {
            // SAFETY: an item in a list is alive (invariant 4).
            unsafe { prev.as_ref() }.neighbours().next.set(Some(next));
            // SAFETY: as above.
            unsafe { next.as_ref() }.neighbours().prev.set(Some(prev));
        }
    }
}

impl Lists {
    pub(super) const EMPTY: Lists = Lists { waiters: List::EMPTY, children: List::EMPTY };

    /// Queues `entry` with `waker`, or replaces its waker if it is queued.
    ///
    /// An entry that a canceller has taken out stays out. Returns the waker that is not needed, to
    /// be dropped outside the lock.
    ///
    /// # Safety
    /// These are the lists of the node that `entry` waits on. `entry` is pinned, and removed before
    /// it is dropped.
    pub(super) unsafe fn wait(&mut self, entry: &WaiterEntry, waker: Waker) -> Option<Waker> {
        if entry.is_notified() {
            return Some(waker);
        }
        let before = entry.waker.replace(Some(waker));
        if !entry.is_queued.replace(true) {
            self.waiters.push_back(entry);
        }
        before
    }

    /// Takes `entry` out of the list if it is queued. Returns its waker.
    ///
    /// # Safety
    /// As [`wait`](Self::wait).
    pub(super) unsafe fn leave(&mut self, entry: &WaiterEntry) -> Option<Waker> {
        if entry.is_queued.replace(false) {
            self.waiters.remove(entry);
        }
        entry.waker.take()
    }

    /// Takes out a batch of the waiters that were queued first. Returns whether more are left.
    pub(super) fn take_waiters(&mut self, into: &mut Vec<Waker>) -> bool {
        while let Some(first) = self.waiters.head.filter(|_| into.len() < BATCH) {
            // SAFETY: an item in a list is alive (invariant 4).
            let entry = unsafe { first.as_ref() };
            self.waiters.remove(entry);
            entry.is_queued.set(false);
            into.extend(entry.waker.take());
            entry.notified.store(true, Ordering::Release);
        }
        self.waiters.head.is_some()
    }

    /// Links `owner` through `link`, unless it is linked.
    ///
    /// # Safety
    /// `link` is a part of `owner`. These are the lists of the one parent that `link` is meant for.
    /// [`unlink`](Self::unlink) is called before `owner` is freed.
    pub(super) unsafe fn link(&mut self, link: &ChildLink, owner: &CancelNode) {
        if link.owner.load(Ordering::Relaxed).is_null() {
            self.children.push_back(link);
            link.owner.store(ptr::from_ref(owner).cast_mut(), Ordering::Release);
        }
    }

    /// Unlinks `link`, if it is linked.
    ///
    /// # Safety
    /// As [`link`](Self::link).
    pub(super) unsafe fn unlink(&mut self, link: &ChildLink) {
        if !link.owner.load(Ordering::Relaxed).is_null() {
            self.children.remove(link);
            link.owner.store(ptr::null_mut(), Ordering::Release);
        }
    }

    /// Takes out a batch of the children that were linked first, and their waiters. Returns whether
    /// more are left.
    ///
    /// Children with linked children of their own are added to `below`. Each child is locked under
    /// the lock of the parent (invariant 5), which keeps the child alive. So a child that only has
    /// waiters, the common case, is visited without raising its count.
    pub(super) fn take_children(&mut self, waiters: &mut Vec<Waker>, below: &mut VecDeque<Ref>) -> bool {
        for _ in 0..BATCH {
            let Some(first) = self.children.head else { break };
            // SAFETY: an item in a list is alive (invariant 4).
            let link = unsafe { first.as_ref() };
            // SAFETY: the owner leaves the list before it is freed, and the caller holds the list's
            // lock.
            if let Some(child) = unsafe { link.owner.load(Ordering::Relaxed).as_ref() } {
                let mut lists = child.lock();
                if lists.take_waiters(waiters) {
                    return true;
                }
                if lists.children.head.is_some() {
                    // SAFETY: as above.
                    below.extend(unsafe { link.try_ref() });
                }
            }
            self.children.remove(link);
            link.owner.store(ptr::null_mut(), Ordering::Release);
        }
        self.children.head.is_some()
    }

    /// Adds all linked children to `into`, except those that are being freed.
    pub(super) fn collect_children(&self, into: &mut Vec<Ref>) {
        let mut next = self.children.head;
        while let Some(link) = next {
            // SAFETY: an item in a list is alive (invariant 4).
            let link = unsafe { link.as_ref() };
            // SAFETY: as in `take_children`.
            into.extend(unsafe { link.try_ref() });
            next = link.neighbours.next.get().filter(|_| link.neighbours.next.get() != self.children.head);
        }
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

impl ChildLink {
    pub(super) fn new() -> Self {
        ChildLink { neighbours: Neighbours::new(), owner: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline]
    pub(super) fn is_linked(&self) -> bool {
        !self.owner.load(Ordering::Acquire).is_null()
    }

    /// A counted reference to the child, unless it is being freed.
    ///
    /// # Safety
    /// The link is in a list, and the caller holds the lock of that list.
    unsafe fn try_ref(&self) -> Option<Ref> {
        let owner = NonNull::new(self.owner.load(Ordering::Relaxed))?;
        // SAFETY: guaranteed by the caller.
        unsafe { CancelNode::try_ref(owner) }
    }
}

impl CancelNode {
    pub(super) fn lock(&self) -> MutexGuard<'_, Lists> {
        // Nothing that can panic runs under the lock.
        match self.lists.lock() {
            Ok(lists) => lists,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    /// Whether it may be in a parent's list. A merge may always be, in that of its second parent.
    #[inline]
    pub(super) fn is_linked(&self) -> bool {
        self.link.is_linked() || matches!(self.node.kind, NodeKind::Merge)
    }

    /// Links this node into the one above, that one into the next, up to the top.
    ///
    /// It does not stop at a node that is linked already: the thread that linked that node may not
    /// have linked the nodes above yet.
    pub(super) fn link_up(&self) {
        let mut node = self;
        while let Some(up) = node.node.up() {
            if !node.link.is_linked() {
                // SAFETY: this is `node`'s own link, and the lists are those of its `up`. `unlink`
                // is called before `node` is freed.
                unsafe { up.lock().link(&node.link, node) };
            }
            node = up;
        }
    }

    /// Takes the node out of its parents' lists.
    pub(super) fn unlink(&self) {
        if let Some(up) = self.node.up()
            && self.link.is_linked()
        {
            // SAFETY: as in `link_up`.
            unsafe { up.lock().unlink(&self.link) };
        }
        let Some(merge) = self.node.as_merge() else { return };
        if let Some(anchor) = merge.second.node().anchor() {
            // SAFETY: `merge` made the link for these lists.
            unsafe { anchor.lock().unlink(&merge.link) };
        }
    }
}
