//! A node with two parents.

use std::mem::ManuallyDrop;

use super::birth::mark_timed;
use super::node::{CancelNode, ChildLink, MergeNode, Node, NodeKind, Ref};
use super::value;
use crate::context::sync::{Ordering, fence};

impl Ref {
    /// A node that is done when `a` or `b` is done.
    ///
    /// It has the values of `a`, and those of `b` whose keys `a` does not have.
    pub(in crate::context) fn merge(a: &Ref, b: &Ref) -> Ref {
        // Latches the first parent's outcome, if it has one, so that the merge inherits it at
        // birth.
        a.node().outcome();
        let mut node = Node::below(Some(a), NodeKind::Merge);
        let other = b.node();
        if let Some(deadline) = other.deadline.filter(|deadline| node.deadline.is_none_or(|own| *deadline < own)) {
            (node.deadline, node.timed_by) = (Some(deadline), other.timed_by);
        }
        let second = ManuallyDrop::new(b.clone());
        let this = Ref::new(|| MergeNode { node: CancelNode::of(node), link: ChildLink::new(), second });
        if let Some(merge) = this.node().as_merge() {
            merge.wait_for_second();
        }
        if other.values.is_empty() { this } else { value::union(this, &other.values) }
    }
}

impl MergeNode {
    /// Links this merge to its second parent, then checks that parent.
    ///
    /// A canceller of the second parent, or of a node above it, either finds the link, or this
    /// check finds its flag.
    fn wait_for_second(&self) {
        let second = self.second.node();
        if self.node.node.deadline.is_some() {
            mark_timed(self.node.node.up());
        }
        mark_timed(second.anchor());
        let mut above = second.anchor();
        while let Some(node) = above {
            node.merged_below.store(true, Ordering::SeqCst);
            above = node.node.up();
        }
        if let Some(anchor) = second.anchor() {
            // SAFETY: this is the second link of this node, and the lists are those of its second
            // anchor. `unlink` is called before the node is freed.
            unsafe { anchor.lock().link(&self.link, &self.node) };
            anchor.link_up();
        }
        fence(Ordering::SeqCst);
        self.latch_second();
    }

    /// Latches the first parent's outcome if it has one, otherwise the second parent's.
    pub(super) fn latch_second(&self) {
        let this = &self.node.node;
        if !this.final_state().is_null() {
            return;
        }
        let second = self.second.node();
        if this.parent.as_ref().is_some_and(|first| first.node().outcome().is_some()) {
            this.outcome();
        } else if let Some(outcome) = second.outcome() {
            // The second parent's deadline is in `outcome` already. That of the first parent may be
            // earlier.
            let is_of_second = this.timed_by == second.timed_by;
            this.latch(if is_of_second { outcome } else { this.below_done(outcome) });
        }
    }
}
