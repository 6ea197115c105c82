//! The intrusive lists of a node: who waits on it, and which of its children are waited on.
//!
//! All of it but `linked` and `notified` is reached under the lock of the node that owns the lists (invariant 4).

use std::ptr::NonNull;
use std::task::Waker;

use super::node::{CancelNode, Ref};
use super::sync::{AtomicBool, Cell, MutexGuard, Ordering};

/// How many waiters or children leave under one hold of the lock.
pub(super) const BATCH: usize = 32;

/// What a node's lock guards.
pub(super) struct Lists {
    waiters: Ends<Entry>,
    children: Ends<Link>,
}

struct Ends<T> {
    head: Option<NonNull<T>>,
    tail: Option<NonNull<T>>,
}

/// One who waits, inside the future that does.
pub(super) struct Entry {
    neighbours: Neighbours<Entry>,
    waker: Cell<Option<Waker>>,
    is_queued: Cell<bool>,
    /// A canceller has taken it out, and is done with it.
    notified: AtomicBool,
}

/// The place of a child in the list of one parent.
pub(super) struct Link {
    neighbours: Neighbours<Link>,
    owner: Cell<Option<NonNull<CancelNode>>>,
    linked: AtomicBool,
}

struct Neighbours<T> {
    prev: Cell<Option<NonNull<T>>>,
    next: Cell<Option<NonNull<T>>>,
}

trait Listed: Sized {
    fn neighbours(&self) -> &Neighbours<Self>;
}

impl Listed for Entry {
    fn neighbours(&self) -> &Neighbours<Self> {
        &self.neighbours
    }
}

impl Listed for Link {
    fn neighbours(&self) -> &Neighbours<Self> {
        &self.neighbours
    }
}

impl<T> Neighbours<T> {
    fn new() -> Self {
        Neighbours { prev: Cell::new(None), next: Cell::new(None) }
    }
}

impl<T: Listed> Ends<T> {
    const EMPTY: Self = Ends { head: None, tail: None };

    fn push_back(&mut self, item: &T) {
        let pointer = NonNull::from(item);
        item.neighbours().prev.set(self.tail);
        item.neighbours().next.set(None);
        match self.tail {
            // SAFETY: what is in a list is alive (invariant 4).
            Some(tail) => unsafe { tail.as_ref() }.neighbours().next.set(Some(pointer)),
            None => self.head = Some(pointer),
        }
        self.tail = Some(pointer);
    }

    fn remove(&mut self, item: &T) {
        let (prev, next) = (item.neighbours().prev.take(), item.neighbours().next.take());
        match prev {
            // SAFETY: as in `push_back`.
            Some(prev) => unsafe { prev.as_ref() }.neighbours().next.set(next),
            None => self.head = next,
        }
        match next {
            // SAFETY: as in `push_back`.
            Some(next) => unsafe { next.as_ref() }.neighbours().prev.set(prev),
            None => self.tail = prev,
        }
    }
}

impl Lists {
    pub(super) const EMPTY: Lists = Lists { waiters: Ends::EMPTY, children: Ends::EMPTY };

    /// Puts `entry` at the end of the waiters, with `waker`, or gives it that waker where it is. One that was taken out by a canceller
    /// stays out. Returns the waker that is not needed.
    ///
    /// # Safety
    /// These are the lists of the node that `entry` waits on; it is pinned, and removed before it is dropped.
    pub(super) unsafe fn wait(&mut self, entry: &Entry, waker: Waker) -> Option<Waker> {
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
    pub(super) unsafe fn leave(&mut self, entry: &Entry) -> Option<Waker> {
        if entry.is_queued.replace(false) {
            self.waiters.remove(entry);
        }
        entry.waker.take()
    }

    /// Takes out the one that has waited for longest.
    pub(super) fn pop_waiter(&mut self) -> Option<Waker> {
        // SAFETY: what is in the list is alive (invariant 4).
        let entry = unsafe { self.waiters.head?.as_ref() };
        self.waiters.remove(entry);
        entry.is_queued.set(false);
        let waker = entry.waker.take();
        entry.notified.store(true, Ordering::Release);
        waker
    }

    pub(super) fn has_waiters(&self) -> bool {
        self.waiters.head.is_some()
    }

    pub(super) fn has_children(&self) -> bool {
        self.children.head.is_some()
    }

    /// Links `owner` through `link`, unless it is linked.
    ///
    /// # Safety
    /// `link` is a part of `owner`, these are the lists of the one parent it is meant for, and [`unlink`](Self::unlink) comes before
    /// `owner` is freed.
    pub(super) unsafe fn link(&mut self, link: &Link, owner: &CancelNode) {
        if !link.linked.load(Ordering::Relaxed) {
            link.owner.set(Some(NonNull::from(owner)));
            self.children.push_back(link);
            link.linked.store(true, Ordering::Release);
        }
    }

    /// Unlinks `link`, if it is linked.
    ///
    /// # Safety
    /// As [`link`](Self::link).
    pub(super) unsafe fn unlink(&mut self, link: &Link) {
        if link.linked.load(Ordering::Relaxed) {
            self.children.remove(link);
            link.linked.store(false, Ordering::Release);
        }
    }

    /// Takes out the child that was linked first: `Some(None)` for one that is being freed.
    pub(super) fn pop_child(&mut self) -> Option<Option<Ref>> {
        // SAFETY: what is in the list is alive (invariant 4).
        let link = unsafe { self.children.head?.as_ref() };
        // SAFETY: its owner is not freed before it has left the list; the caller holds the lock.
        let child = link.owner.get().and_then(|owner| unsafe { CancelNode::try_ref(owner) });
        self.children.remove(link);
        link.linked.store(false, Ordering::Release);
        Some(child)
    }

    /// All children that are not being freed.
    pub(super) fn children(&self, into: &mut Vec<Ref>) {
        let mut next = self.children.head;
        while let Some(link) = next {
            // SAFETY: what is in the list is alive (invariant 4).
            let link = unsafe { link.as_ref() };
            // SAFETY: as in `pop_child`.
            into.extend(link.owner.get().and_then(|owner| unsafe { CancelNode::try_ref(owner) }));
            next = link.neighbours.next.get();
        }
    }
}

impl Entry {
    pub(super) fn new() -> Self {
        Entry {
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

impl Link {
    pub(super) fn new() -> Self {
        Link { neighbours: Neighbours::new(), owner: Cell::new(None), linked: AtomicBool::new(false) }
    }

    #[inline]
    pub(super) fn is_linked(&self) -> bool {
        self.linked.load(Ordering::Acquire)
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
        self.link.is_linked() || self.second.is_some()
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
        if let Some(up) = self.node.up() {
            if self.link.is_linked() {
                // SAFETY: as in `link_up`.
                unsafe { up.lock().unlink(&self.link) };
            }
        }
        if let Some((second, anchor)) =
            self.second.as_ref().and_then(|second| Some((second, second.parent.node().anchor()?)))
        {
            // SAFETY: the link was made for these lists, by `merge`.
            unsafe { anchor.lock().unlink(&second.link) };
        }
    }
}
