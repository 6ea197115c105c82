//! The intrusive lists of a node: who waits on it, and which of its children are waited on.
//!
//! All of it but `owner` and `notified` is reached under the lock of the node that owns the lists (invariant 4).

use std::collections::VecDeque;
use std::ptr::{self, NonNull};
use std::task::Waker;

use super::node::{CancelNode, NodeKind, Ref};
use super::sync::{AtomicBool, AtomicPtr, Cell, MutexGuard, Ordering};

/// How many waiters or children leave under one hold of the lock.
const BATCH: usize = 32;

/// What a node's lock guards.
pub(super) struct Lists {
    waiters: List<WaiterEntry>,
    children: List<ChildLink>,
}

/// A ring: the first one's `prev` is the last one.
struct List<T> {
    head: Option<NonNull<T>>,
}

/// One who waits, inside the future that does.
pub(super) struct WaiterEntry {
    neighbours: Neighbours<WaiterEntry>,
    waker: Cell<Option<Waker>>,
    is_queued: Cell<bool>,
    /// A canceller has taken it out, and is done with it.
    notified: AtomicBool,
}

/// The place of a child in the list of one parent.
pub(super) struct ChildLink {
    neighbours: Neighbours<ChildLink>,
    /// The child, while it is linked; else null.
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
        // SAFETY: what is in a list is alive (invariant 4).
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
            // SAFETY: what is in a list is alive (invariant 4).
            unsafe { prev.as_ref() }.neighbours().next.set(Some(next));
            // SAFETY: as above.
            unsafe { next.as_ref() }.neighbours().prev.set(Some(prev));
        }
    }
}

impl Lists {
    pub(super) const EMPTY: Lists = Lists { waiters: List::EMPTY, children: List::EMPTY };

    /// Puts `entry` at the end of the waiters, with `waker`, or gives it that waker where it is. One that was taken out by a canceller
    /// stays out. Returns the waker that is not needed.
    ///
    /// # Safety
    /// These are the lists of the node that `entry` waits on; it is pinned, and removed before it is dropped.
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

    /// Takes `entry` out, if it is in. Returns its waker.
    ///
    /// # Safety
    /// As [`wait`](Self::wait).
    pub(super) unsafe fn leave(&mut self, entry: &WaiterEntry) -> Option<Waker> {
        if entry.is_queued.replace(false) {
            self.waiters.remove(entry);
        }
        entry.waker.take()
    }

    /// Takes out a batch of those that have waited for longest. Whether more are left.
    pub(super) fn take_waiters(&mut self, into: &mut Vec<Waker>) -> bool {
        while let Some(first) = self.waiters.head.filter(|_| into.len() < BATCH) {
            // SAFETY: what is in the list is alive (invariant 4).
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
    /// `link` is a part of `owner`, these are the lists of the one parent it is meant for, and [`unlink`](Self::unlink) comes before
    /// `owner` is freed.
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

    /// Takes out a batch of the children that were linked first, and their waiters. Those that have children of their own come to
    /// `below`. Whether more are left.
    ///
    /// It locks each child under the lock of the parent (invariant 5), which keeps the child alive: most have waiters alone, and are not
    /// counted for the visit.
    pub(super) fn take_children(&mut self, waiters: &mut Vec<Waker>, below: &mut VecDeque<Ref>) -> bool {
        for _ in 0..BATCH {
            let Some(first) = self.children.head else { break };
            // SAFETY: what is in the list is alive (invariant 4).
            let link = unsafe { first.as_ref() };
            // SAFETY: its owner is not freed before it has left the list; the caller holds the lock.
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

    /// All children that are not being freed.
    pub(super) fn collect_children(&self, into: &mut Vec<Ref>) {
        let mut next = self.children.head;
        while let Some(link) = next {
            // SAFETY: what is in the list is alive (invariant 4).
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

    /// Whether a canceller has taken it out: only once the context was flagged.
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

    /// Counts the child, unless it is being freed.
    ///
    /// # Safety
    /// It is linked, and the caller holds the lock of the list.
    unsafe fn try_ref(&self) -> Option<Ref> {
        let owner = NonNull::new(self.owner.load(Ordering::Relaxed))?;
        // SAFETY: says the caller.
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

    /// Whether a parent has it in its list.
    #[inline]
    pub(super) fn is_linked(&self) -> bool {
        self.link.is_linked() || matches!(self.node.kind, NodeKind::Merge)
    }

    /// Links this node into the one above, that one into the next, up to the top. It does not stop at one that is linked already:
    /// whoever linked that one may not have come further yet.
    pub(super) fn link_up(&self) {
        let mut node = self;
        while let Some(up) = node.node.up() {
            if !node.link.is_linked() {
                // SAFETY: `node`'s own link, into the lists of its `up`; `unlink` is called before it is freed.
                unsafe { up.lock().link(&node.link, node) };
            }
            node = up;
        }
    }

    /// Leaves the lists of the parents.
    pub(super) fn unlink(&self) {
        if let Some(up) = self.node.up()
            && self.link.is_linked()
        {
            // SAFETY: as in `link_up`.
            unsafe { up.lock().unlink(&self.link) };
        }
        let Some(merge) = self.node.as_merge() else { return };
        if let Some(anchor) = merge.second.node().anchor() {
            // SAFETY: the link was made for these lists, by `merge`.
            unsafe { anchor.lock().unlink(&merge.link) };
        }
    }
}
