//! The counts of nodes: who holds a node, and how the last owner frees it.

use std::mem::{self, ManuallyDrop};
use std::ptr::NonNull;

use super::cause;
use super::node::{CancelNode, DeadlineNode, MergeNode, Node, NodeKind, Ref};
use super::value;
use crate::context::sync::{Ordering, fence};

impl Clone for Ref {
    #[inline]
    fn clone(&self) -> Self {
        let before = self.node().refs.fetch_add(1, Ordering::Relaxed);
        if before > isize::MAX as usize {
            // Only leaked clones reach this count. An overflow would free a node that is in use.
            std::process::abort();
        }
        Ref(self.0)
    }
}

impl Drop for Ref {
    #[inline]
    fn drop(&mut self) {
        if self.is_last() {
            // SAFETY: `is_last` has shown that nothing else can reach the node.
            unsafe { free_upwards(self.0) };
        }
    }
}

impl Ref {
    /// Whether only this reference reaches the node: no clone, no child, no waiter.
    #[inline]
    pub(in crate::context) fn is_sole(&self) -> bool {
        self.node().refs.load(Ordering::Acquire) == 1
    }

    /// Gives up this count and returns whether it was the last.
    ///
    /// The caller must not use the reference again. If it was the last, nothing else reaches the
    /// node, it is in no list (invariant 1), and the caller frees it.
    #[inline]
    fn is_last(&self) -> bool {
        let node = self.node();
        let linked = node.as_cancel().is_some_and(CancelNode::is_linked);
        // The sole owner needs no read-modify-write. `linked` is read first: a canceller that takes
        // a child out of its list raises the child's count before it unlinks the child.
        (!linked && node.refs.load(Ordering::Acquire) == 1) || self.release()
    }

    #[inline]
    fn release(&self) -> bool {
        let node = self.node();
        if node.refs.fetch_sub(1, Ordering::Release) != 1 {
            return false;
        }
        fence(Ordering::Acquire);
        if cfg!(throughline_tsan) {
            // The same as the fence, which ThreadSanitizer does not support.
            node.refs.load(Ordering::Acquire);
        }
        if let Some(this) = node.as_cancel() {
            this.unlink();
        }
        true
    }
}

impl CancelNode {
    /// Takes a count, unless the node is being freed.
    ///
    /// # Safety
    /// The caller holds the lock of the list that `this` is linked in.
    pub(super) unsafe fn try_ref(this: NonNull<CancelNode>) -> Option<Ref> {
        // SAFETY: a linked node leaves the list before it is freed, and leaving needs the lock,
        // which the caller holds (invariant 4).
        let refs = unsafe { &this.as_ref().node.refs };
        let mut count = refs.load(Ordering::Relaxed);
        while count != 0 {
            match refs.compare_exchange(count, count + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Ref(this.cast())),
                Err(now) => count = now,
            }
        }
        None
    }
}

/// Frees a node, then each ancestor of which this was the last count.
///
/// It is a loop because a chain may be a million nodes deep.
///
/// # Safety
/// Nothing else reaches the node, now or later.
unsafe fn free_upwards(node: NonNull<Node>) {
    let mut next = node;
    loop {
        // SAFETY: guaranteed by the caller for the first node, and by `is_last` for those above.
        let parent = unsafe {
            if matches!(next.as_ref().kind, NodeKind::Merge) {
                return free_graph(next);
            }
            free(next)
        };
        match parent {
            Some(last) if last.is_last() => next = ManuallyDrop::new(last).0,
            Some(shared) => return mem::forget(shared),
            None => return,
        }
    }
}

/// As [`free_upwards`], from a merge on: a merge has two parents.
///
/// # Safety
/// Nothing else reaches the node, now or later.
#[cold]
unsafe fn free_graph(node: NonNull<Node>) {
    let mut pending = vec![node];
    while let Some(next) = pending.pop() {
        // SAFETY: as in `free_upwards`.
        let parents = unsafe {
            match next.as_ref().kind {
                NodeKind::Merge => {
                    let second = ManuallyDrop::take(&mut next.cast::<MergeNode>().as_mut().second);
                    [free(next), Some(second)]
                }
                _ => [free(next), None],
            }
        };
        for parent in parents.into_iter().flatten().map(ManuallyDrop::new) {
            if parent.is_last() {
                pending.push(parent.0);
            }
        }
    }
}

/// Frees a node and returns its parent.
///
/// The caller takes out the second parent of a merge beforehand.
///
/// # Safety
/// Nothing else reaches the node, now or later.
#[inline(always)]
unsafe fn free(pointer: NonNull<Node>) -> Option<Ref> {
    // SAFETY: exclusive access is guaranteed by the caller.
    let node = unsafe { &mut *pointer.as_ptr() };
    let parent = node.parent.take();
    let cause = node.cause.load(Ordering::Relaxed);
    match node.kind {
        // SAFETY: nodes of this kind are boxed `CancelNode`s.
        NodeKind::Cancel => drop(unsafe { Box::from_raw(pointer.cast::<CancelNode>().as_ptr()) }),
        // SAFETY: nodes of this kind are boxed `DeadlineNode`s.
        NodeKind::Deadline => drop(unsafe { Box::from_raw(pointer.cast::<DeadlineNode>().as_ptr()) }),
        // SAFETY: nodes of this kind are boxed `Node`s.
        NodeKind::WithoutCancel => drop(unsafe { Box::from_raw(pointer.as_ptr()) }),
        // SAFETY: only `value::make` makes nodes of these kinds.
        NodeKind::Value | NodeKind::Nothing | NodeKind::Table => unsafe { value::free(pointer) },
        // SAFETY: nodes of this kind are boxed `MergeNode`s.
        NodeKind::Merge => drop(unsafe { Box::from_raw(pointer.cast::<MergeNode>().as_ptr()) }),
    }
    // SAFETY: only `cause::into_raw` sets it, and nothing reads it any more.
    unsafe { cause::drop_raw(cause) };
    parent
}
