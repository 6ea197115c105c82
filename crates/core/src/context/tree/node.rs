//! Nodes: their layout, their reference counts, and how they are freed.

use std::mem::{self, ManuallyDrop};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::{self, NonNull};
use std::time::Instant;

use super::cause;
use super::links::{ChildLink, Lists};
use super::ready::Ready;
use super::value::{self, Values};
use crate::context::Cause;
use crate::context::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Mutex, Ordering, fence};

/// Which constructor made the node. `Debug` and [`free`] depend on it.
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
    /// Only a table of values: the values that cross a spawn, or those of a merge.
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
    /// The cause of its own cancellation or of its own deadline. Null: none given. Set once, freed
    /// with the node.
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
    /// Whether `timed_below` is set here and in all above, and a fence has followed. A thread that
    /// sets a deadline below reads it.
    pub(super) timed_fenced: AtomicBool,
    /// Whether a merge ever took this node, or one below it, as its second parent.
    pub(super) merged_below: AtomicBool,
}

/// A node with a deadline of its own.
#[repr(C)]
pub(super) struct DeadlineNode {
    pub(super) node: Node,
    /// A waiter has found that the clock is the real one. A context belongs to one clock, so later
    /// waiters need not check.
    pub(super) is_real: AtomicBool,
    pub(super) ready: Ready,
}

/// A node with two parents.
#[repr(C)]
pub(super) struct MergeNode {
    pub(super) node: CancelNode,
    /// Its link in the children of the second parent's anchor.
    pub(super) link: ChildLink,
    /// [`free_graph`] takes it.
    pub(super) second: ManuallyDrop<Ref>,
}

/// A type that a [`Ref`] may point to. It begins with a [`Node`], whose `kind` names the type.
pub(super) trait Birth {}

impl Birth for Node {}
impl Birth for CancelNode {}
impl Birth for DeadlineNode {}
impl Birth for MergeNode {}

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

/// Frees a node, then its parent if this held the parent's last count, and so on.
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

impl Ref {
    #[inline]
    pub(super) fn new<T: Birth>(node: impl FnOnce() -> T) -> Ref {
        Ref(NonNull::from(Box::leak(build(node))).cast())
    }

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

    /// The nearest node, from this one upwards, that can be done by itself and is done exactly when
    /// this one is.
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
    #[cfg(feature = "tokio-util")]
    pub(in crate::context) fn address(&self) -> usize {
        self.0.addr().get()
    }

    #[inline]
    pub(in crate::context) fn deadline(&self) -> Option<Instant> {
        self.node().deadline
    }

    /// Whether only this reference reaches the node: it has no clone, no child and no waiter.
    #[inline]
    pub(in crate::context) fn is_sole(&self) -> bool {
        self.node().refs.load(Ordering::Acquire) == 1
    }

    /// Gives up this count and returns whether it was the last. The caller must not use the
    /// reference again.
    ///
    /// If it was the last, nothing else reaches the node, it is in no list (invariant 1), and the
    /// caller frees it.
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

/// A box whose content is built in place: a node is too large to be moved each time one is made.
#[inline]
fn build<T>(content: impl FnOnce() -> T) -> Box<T> {
    let mut uninit = Box::new_uninit();
    uninit.write(content());
    // SAFETY: written above.
    unsafe { uninit.assume_init() }
}

/// Frees a node and returns its parent. The caller takes the second parent of a merge beforehand.
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

impl Node {
    /// A node below `parent`, with everything that it inherits.
    ///
    /// It also inherits a final outcome, since `up` may skip the node that has it.
    #[inline]
    pub(super) fn below(parent: Option<&Ref>, kind: NodeKind) -> Node {
        let (up, deadline, timed_by, values, state) = match parent {
            None => (None, None, None, Values::NONE, ptr::null_mut()),
            Some(parent) => {
                let node = parent.node();
                (node.anchor().map(NonNull::from), node.deadline, node.timed_by, node.values, node.final_state())
            }
        };
        Node {
            refs: AtomicUsize::new(1),
            state: AtomicPtr::new(state),
            up,
            deadline,
            timed_by,
            cause: AtomicPtr::new(ptr::null_mut()),
            values,
            parent: parent.cloned(),
            kind,
        }
    }

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
    pub(super) fn as_timed(&self) -> Option<&DeadlineNode> {
        let node = self.timed_by()?;
        // SAFETY: `timed_by` only points to nodes made by `with_deadline`, and a `DeadlineNode`
        // begins with its node.
        Some(unsafe { &*ptr::from_ref(node).cast::<DeadlineNode>() })
    }

    /// Whether the effective deadline is known to be on the real clock.
    #[inline]
    pub(super) fn is_known_real(&self) -> bool {
        self.as_timed().is_some_and(|timed| timed.is_real.load(Ordering::Relaxed))
    }

    /// Records that the effective deadline is on the real clock.
    pub(super) fn set_known_real(&self) {
        if let Some(timed) = self.as_timed() {
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

impl CancelNode {
    #[inline]
    pub(super) fn of(node: Node) -> CancelNode {
        CancelNode {
            node,
            stamp: AtomicU64::new(0),
            link: ChildLink::new(),
            lists: Mutex::new(Lists::EMPTY),
            timed_below: AtomicBool::new(false),
            timed_fenced: AtomicBool::new(false),
            merged_below: AtomicBool::new(false),
        }
    }

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
