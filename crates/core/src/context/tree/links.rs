//! The links from a node to its children: how a canceller finds them.
//!
//! A child is linked to the node above once a waiter has queued at the child or below it. A merge
//! is linked to its second parent from birth. Children without waiters cost a canceller nothing.

use std::collections::VecDeque;
use std::ptr::{self, NonNull};
use std::task::Waker;

use super::list::{List, Listed, Neighbours};
use super::node::{CancelNode, ChildLink, Lists, NodeKind, Ref};
use super::waiters::{BATCH, Waiters};
use crate::context::sync::{AtomicPtr, MutexGuard, Ordering, lock};

impl CancelNode {
    pub(super) fn lock(&self) -> MutexGuard<'_, Lists> {
        lock(&self.lists)
    }

    /// Whether it may be in a parent's list.
    ///
    /// A merge may always be, in that of its second parent.
    #[inline]
    pub(super) fn is_linked(&self) -> bool {
        self.link.is_linked() || matches!(self.node.kind, NodeKind::Merge)
    }

    /// Links this node to the one above, that one to the next, and so on.
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

impl Lists {
    pub(super) const EMPTY: Lists = Lists { waiters: Waiters::EMPTY, children: List::EMPTY };

    /// Links `owner` through `link`, unless it is linked.
    ///
    /// # Safety
    /// `link` is a part of `owner`. These are the lists of the one parent that `link` is meant for.
    /// [`unlink`](Self::unlink) is called before `owner` is freed.
    pub(super) unsafe fn link(&mut self, link: &ChildLink, owner: &CancelNode) {
        if link.owner.load(Ordering::Relaxed).is_null() {
            // SAFETY: it is in no list, as it has no owner. The rest is guaranteed by the caller.
            unsafe { self.children.push_back(link) };
            link.owner.store(ptr::from_ref(owner).cast_mut(), Ordering::Release);
        }
    }

    /// Unlinks `link`, if it is linked.
    ///
    /// # Safety
    /// As [`link`](Self::link).
    pub(super) unsafe fn unlink(&mut self, link: &ChildLink) {
        if !link.owner.load(Ordering::Relaxed).is_null() {
            // SAFETY: it has an owner, so it is in the list of its one parent: this one.
            unsafe { self.children.remove(link) };
            link.owner.store(ptr::null_mut(), Ordering::Release);
        }
    }

    /// Takes out a batch of children, first linked first, and their waiters.
    ///
    /// Returns whether more are left.
    ///
    /// Children with linked children of their own are added to `below`. Each child is locked under
    /// the lock of the parent (invariant 5), which keeps the child alive. So a child that only has
    /// waiters, the common case, is visited without raising its count.
    pub(super) fn take_children(&mut self, waiters: &mut Vec<Waker>, below: &mut VecDeque<Ref>) -> bool {
        for _ in 0..BATCH {
            let Some(first) = self.children.first() else { break };
            // SAFETY: an item in a list is alive (invariant 4).
            let link = unsafe { first.as_ref() };
            // SAFETY: the owner leaves the list before it is freed, and the caller holds the list's
            // lock.
            if let Some(child) = unsafe { link.owner.load(Ordering::Relaxed).as_ref() } {
                let mut lists = child.lock();
                if lists.waiters.take(waiters) {
                    return true;
                }
                if !lists.children.is_empty() {
                    // SAFETY: as above.
                    below.extend(unsafe { link.try_ref() });
                }
            }
            // SAFETY: it is the first of this list.
            unsafe { self.children.remove(link) };
            link.owner.store(ptr::null_mut(), Ordering::Release);
        }
        !self.children.is_empty()
    }

    /// Adds all linked children to `into`, except those that are being freed.
    pub(super) fn collect_children(&self, into: &mut Vec<Ref>) {
        // SAFETY: as in `take_children`.
        into.extend(self.children.iter().filter_map(|link| unsafe { link.try_ref() }));
    }
}

impl Listed for ChildLink {
    fn neighbours(&self) -> &Neighbours<Self> {
        &self.neighbours
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
