//! Nodes: their layout, and how one node leads to others.

use std::mem::ManuallyDrop;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::{self, NonNull};
use std::time::Instant;

use super::list::{List, Neighbours};
use super::ready::Ready;
use super::table::Values;
use super::waiters::Waiters;
use crate::context::Cause;
use crate::context::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Mutex, Ordering};

/// Which constructor made the node: `Debug` prints it, and [`super::count`] frees by it.
///
/// It is as wide as a pointer. After a narrower field the compiler would copy the padding,
/// unaligned, whenever a node is made.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(in crate::context) enum NodeKind {
    Cancel,
    Merge,
    Deadline,
    WithoutCancel,
    Value,
    Nothing,
    /// Only a table of values: those that cross a spawn, or those of a merge.
    Table,
}

/// A context's node.
///
/// It is `repr(C)` because every other type of node begins with one.
#[repr(C)]
pub(super) struct Node {
    pub(super) refs: AtomicUsize,
    /// Null, or an outcome as [`super::observe`] encodes it.
    pub(super) state: AtomicPtr<Node>,
    /// The nearest ancestor that can be cancelled; never the node itself.
    pub(super) up: Option<NonNull<CancelNode>>,
    /// The effective deadline: the earliest of its own and its ancestors'.
    pub(super) deadline: Option<Instant>,
    /// The node that set the effective deadline and holds its cause.
    pub(super) timed_by: Option<NonNull<Node>>,
    /// The cause of its own cancellation or of its own deadline. Null: none.
    ///
    /// It is set once, and freed with the node.
    pub(super) cause: AtomicPtr<Cause>,
    /// All values in scope.
    pub(super) values: Values,
    pub(super) parent: Option<Ref>,
    pub(super) kind: NodeKind,
}

/// A node that can be cancelled.
#[repr(C)]
pub(super) struct CancelNode {
    pub(super) node: Node,
    /// When it was cancelled itself, in [`clock::nanos`](crate::context::clock::nanos). 0: not
    /// known yet.
    pub(super) stamp: AtomicU64,
    /// Its link in the children of `up`.
    pub(super) link: ChildLink,
    pub(super) lists: Mutex<Lists>,
    /// Whether a deadline was ever set below. A canceller reads it.
    pub(super) timed_below: AtomicBool,
    /// Whether `timed_below` is set here and in all above, and a fence has followed.
    ///
    /// A thread that sets a deadline below reads it.
    pub(super) timed_fenced: AtomicBool,
    /// Whether a merge ever took this node, or one below it, as its second parent.
    pub(super) merged_below: AtomicBool,
}

/// What a node's lock guards.
pub(super) struct Lists {
    pub(super) waiters: Waiters,
    pub(super) children: List<ChildLink>,
}

/// The link of a child in the list of one parent.
///
/// Everything in it except `owner` is accessed under the lock of that parent (invariant 4).
pub(super) struct ChildLink {
    pub(super) neighbours: Neighbours<ChildLink>,
    /// The child while it is linked, otherwise null.
    pub(super) owner: AtomicPtr<CancelNode>,
}

/// A node with a deadline of its own.
#[repr(C)]
pub(super) struct DeadlineNode {
    pub(super) node: Node,
    /// Whether a waiter has found that the clock is the real one.
    ///
    /// A context belongs to one clock, so later waiters need not check.
    pub(super) is_real: AtomicBool,
    pub(super) ready: Ready,
}

/// A node with two parents.
#[repr(C)]
pub(super) struct MergeNode {
    pub(super) node: CancelNode,
    /// Its link in the children of the second parent's anchor.
    pub(super) link: ChildLink,
    /// Taken out when the merge is freed.
    pub(super) second: ManuallyDrop<Ref>,
}

/// A counted pointer to a node.
pub(in crate::context) struct Ref(pub(super) NonNull<Node>);

// SAFETY: nodes change only through atomics and under their locks (invariants 2–4). Values and
// causes are `Send + Sync`.
unsafe impl Send for Ref {}
// SAFETY: as above.
unsafe impl Sync for Ref {}

// A panic leaves nodes consistent: they change through atomics, and under locks that guard no user
// code.
impl UnwindSafe for Ref {}
impl RefUnwindSafe for Ref {}

impl Ref {
    #[inline]
    pub(super) fn node(&self) -> &Node {
        // SAFETY: `self` is counted, so the node is alive (invariant 1).
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(in crate::context) fn same(&self, other: &Ref) -> bool {
        self.0 == other.0
    }

    pub(in crate::context) fn kind(&self) -> NodeKind {
        self.node().kind
    }

    pub(in crate::context) fn parent(&self) -> Option<&Ref> {
        self.node().parent.as_ref()
    }

    /// The nearest node that ends this one: it is done exactly when this one is.
    ///
    /// It is this node or an ancestor, and can be done by itself.
    ///
    /// `None` if this node is never done.
    #[cfg(feature = "tokio-util")]
    pub(in crate::context) fn ended_by(&self) -> Option<&Ref> {
        let mut next = Some(self);
        while let Some(node) = next {
            match node.kind() {
                NodeKind::Cancel | NodeKind::Merge | NodeKind::Deadline => break,
                NodeKind::WithoutCancel => return None,
                NodeKind::Value | NodeKind::Nothing | NodeKind::Table => next = node.parent(),
            }
        }
        next
    }

    /// The node's address, unique while the node is alive.
    #[inline]
    pub(in crate::context) fn address(&self) -> usize {
        self.0.addr().get()
    }

    #[inline]
    pub(in crate::context) fn deadline(&self) -> Option<Instant> {
        self.node().deadline
    }
}

impl Node {
    /// This node, if it can be cancelled.
    #[inline]
    pub(super) fn as_cancel(&self) -> Option<&CancelNode> {
        match self.kind {
            // SAFETY: only `CancelNode`s and `MergeNode`s have these kinds. A `MergeNode` begins
            // with a `CancelNode`, which begins with its node.
            NodeKind::Cancel | NodeKind::Merge => Some(unsafe { &*ptr::from_ref(self).cast::<CancelNode>() }),
            _ => None,
        }
    }

    /// The node that set the effective deadline.
    #[inline]
    pub(super) fn deadline_node(&self) -> Option<&DeadlineNode> {
        let node = self.timed_by()?;
        // SAFETY: `timed_by` only points to nodes made by `with_deadline`, and a `DeadlineNode`
        // begins with its node.
        Some(unsafe { &*ptr::from_ref(node).cast::<DeadlineNode>() })
    }

    /// Whether the effective deadline is known to be on the real clock.
    #[inline]
    pub(super) fn is_known_real(&self) -> bool {
        self.deadline_node().is_some_and(|timed| timed.is_real.load(Ordering::Relaxed))
    }

    /// Records that the effective deadline is on the real clock.
    pub(super) fn set_known_real(&self) {
        if let Some(timed) = self.deadline_node() {
            timed.is_real.store(true, Ordering::Relaxed);
        }
    }

    /// This node, if it has two parents.
    #[inline]
    pub(super) fn as_merge(&self) -> Option<&MergeNode> {
        match self.kind {
            // SAFETY: only `Ref::merge` makes nodes of this kind, and a `MergeNode` begins with its
            // node.
            NodeKind::Merge => Some(unsafe { &*ptr::from_ref(self).cast::<MergeNode>() }),
            _ => None,
        }
    }

    /// The nearest node that can be cancelled: this one, or `up`.
    #[inline]
    pub(super) fn anchor(&self) -> Option<&CancelNode> {
        self.as_cancel().or_else(|| self.up())
    }

    #[inline]
    pub(super) fn up(&self) -> Option<&CancelNode> {
        // SAFETY: an ancestor, alive while this node is (invariant 2).
        self.up.map(|up| unsafe { up.as_ref() })
    }

    #[inline]
    pub(super) fn timed_by(&self) -> Option<&Node> {
        // SAFETY: this node, an ancestor, or an ancestor of a merge's second parent; all alive
        // (invariant 2).
        self.timed_by.map(|node| unsafe { node.as_ref() })
    }
}
