//! Nodes: their layout, their counts and their death.

use std::mem::{self, ManuallyDrop};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::{self, NonNull};
use std::time::Instant;

use super::cause;
use super::list::{ChildLink, Lists};
use super::ready::Ready;
use super::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Mutex, Ordering, fence};
use super::value::{self, Values};
use crate::context::Cause;

/// What a node was made by: for `Debug`, and for who frees it.
///
/// As wide as a pointer: behind a narrower one the compiler would copy the padding, unaligned, at each birth.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(in crate::context) enum NodeKind {
    Cancel,
    Merge,
    Deadline,
    WithoutCancel,
    Value,
    Nothing,
    /// A table of values of its own, and no more: what crosses a spawn, and the values of a merge.
    Table,
}

/// A context's node. `repr(C)`: a [`CancelNode`] and a [`value::ValueNode`] begin with one.
#[repr(C)]
pub(super) struct Node {
    pub(super) refs: AtomicUsize,
    /// Null, or what [`super::observe`] encodes.
    pub(super) state: AtomicPtr<Node>,
    /// The nearest ancestor that can be cancelled, itself excluded.
    pub(super) up: Option<NonNull<CancelNode>>,
    /// Effective: the earliest of its own and its ancestors'.
    pub(super) deadline: Option<Instant>,
    /// The node that brought the effective deadline, and holds its cause.
    pub(super) timed_by: Option<NonNull<Node>>,
    /// Of its own cancellation, or of its own deadline; null: none given. Set once, freed with the node.
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
    /// When its own cancellation happened, in [`clock::nanos`](crate::context::clock::nanos); 0: not known yet.
    pub(super) stamp: AtomicU64,
    /// In the children of `up`.
    pub(super) link: ChildLink,
    pub(super) lists: Mutex<Lists>,
    /// Whether a deadline was ever set below: for whoever cancels.
    pub(super) timed_below: AtomicBool,
    /// Whether `timed_below` is set here and in all above, and a fence has followed: for whoever sets a deadline below.
    pub(super) timed_fenced: AtomicBool,
    /// Whether a merge ever took something below as its second parent.
    pub(super) merged_below: AtomicBool,
}

/// A node that brings a deadline of its own.
#[repr(C)]
pub(super) struct DeadlineNode {
    pub(super) node: Node,
    /// Somebody who waited has found the clock to be the real one: a context belongs to one clock, so who waits next need not look.
    pub(super) is_real: AtomicBool,
    pub(super) ready: Ready,
}

/// A node with two parents.
#[repr(C)]
pub(super) struct MergeNode {
    pub(super) node: CancelNode,
    /// In the children of the second parent's anchor.
    pub(super) link: ChildLink,
    /// [`free_graph`] takes it out.
    pub(super) second: ManuallyDrop<Ref>,
}

/// What a [`Ref`] may point to: it begins with a [`Node`], whose `kind` says which of these it is.
pub(super) trait Birth {}

impl Birth for Node {}
impl Birth for CancelNode {}
impl Birth for DeadlineNode {}
impl Birth for MergeNode {}

/// A counted pointer to a node.
pub(in crate::context) struct Ref(pub(super) NonNull<Node>);

// SAFETY: nodes change through atomics and under their locks (invariants 2–4); the values they hold and causes are `Send + Sync`.
unsafe impl Send for Ref {}
// SAFETY: as above.
unsafe impl Sync for Ref {}

// A panic leaves nodes whole: they change through atomics, and under locks that no code of a user runs under.
impl UnwindSafe for Ref {}
impl RefUnwindSafe for Ref {}

impl Clone for Ref {
    #[inline]
    fn clone(&self) -> Self {
        let before = self.node().refs.fetch_add(1, Ordering::Relaxed);
        if before > isize::MAX as usize {
            // So many clones can only have been forgotten; going on would free a node that is in use.
            std::process::abort();
        }
        Ref(self.0)
    }
}

impl Drop for Ref {
    #[inline]
    fn drop(&mut self) {
        if self.is_last() {
            // SAFETY: as `is_last` says, nobody else can reach the node.
            unsafe { free_upwards(self.0) };
        }
    }
}

/// Frees a node, its parent if that was the last count of it, and so on: a loop, since a chain may be a million deep.
///
/// # Safety
/// Nobody else reaches the node, now or later.
unsafe fn free_upwards(node: NonNull<Node>) {
    let mut next = node;
    loop {
        // SAFETY: says the caller of the first one, and `is_last` of those above.
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

/// As [`free_upwards`], where there are merges, which have a second parent.
///
/// # Safety
/// Nobody else reaches the node, now or later.
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

    /// The nearest node, upwards from this one, that is done exactly when this one is and may be so by itself; `None`: never.
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

    /// Names the node as long as it lives.
    #[cfg(feature = "tokio-util")]
    pub(in crate::context) fn address(&self) -> usize {
        self.0.addr().get()
    }

    #[inline]
    pub(in crate::context) fn deadline(&self) -> Option<Instant> {
        self.node().deadline
    }

    /// Whether nobody but the holder of this reference can reach the node: no clone, no child, nobody who waits.
    #[inline]
    pub(in crate::context) fn is_sole(&self) -> bool {
        self.node().refs.load(Ordering::Acquire) == 1
    }

    /// Gives up this count, which is not to be used again. Whether it was the last: then nobody else reaches the node, and it is in no
    /// list (invariant 1), and is to be freed.
    #[inline]
    fn is_last(&self) -> bool {
        let node = self.node();
        let linked = node.as_cancel().is_some_and(CancelNode::is_linked);
        // The sole owner needs no read-modify-write. `linked` first: a canceller counts what it takes out before that is unlinked.
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
            // As the fence, which ThreadSanitizer does not know.
            node.refs.load(Ordering::Acquire);
        }
        if let Some(this) = node.as_cancel() {
            this.unlink();
        }
        true
    }
}

/// A box whose content is built where it stays: a node is too large to be moved at each birth.
#[inline]
fn build<T>(content: impl FnOnce() -> T) -> Box<T> {
    let mut uninit = Box::new_uninit();
    uninit.write(content());
    // SAFETY: written above.
    unsafe { uninit.assume_init() }
}

/// Frees a node, and returns its parent. The second one of a merge is the caller's, too.
///
/// # Safety
/// Nobody else reaches the node, now or later.
#[inline(always)]
unsafe fn free(pointer: NonNull<Node>) -> Option<Ref> {
    // SAFETY: ours alone, says the caller.
    let node = unsafe { &mut *pointer.as_ptr() };
    let parent = node.parent.take();
    let cause = node.cause.load(Ordering::Relaxed);
    match node.kind {
        // SAFETY: these are boxed `CancelNode`s.
        NodeKind::Cancel => drop(unsafe { Box::from_raw(pointer.cast::<CancelNode>().as_ptr()) }),
        // SAFETY: these are boxed `DeadlineNode`s.
        NodeKind::Deadline => drop(unsafe { Box::from_raw(pointer.cast::<DeadlineNode>().as_ptr()) }),
        // SAFETY: these are boxed `Node`s.
        NodeKind::WithoutCancel => drop(unsafe { Box::from_raw(pointer.as_ptr()) }),
        // SAFETY: these kinds are made by `value::make` alone.
        NodeKind::Value | NodeKind::Nothing | NodeKind::Table => unsafe { value::free(pointer) },
        // SAFETY: these are boxed `MergeNode`s.
        NodeKind::Merge => drop(unsafe { Box::from_raw(pointer.cast::<MergeNode>().as_ptr()) }),
    }
    // SAFETY: set by `cause::into_raw` alone, and nobody reads it any more.
    unsafe { cause::drop_raw(cause) };
    parent
}

impl Node {
    /// A node below `parent`, with all that it takes over from it: also its final answer, as `up` may skip the node that has it.
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
            // SAFETY: these kinds are made of `CancelNode`s and `MergeNode`s alone, and a `CancelNode` begins with its node.
            NodeKind::Cancel | NodeKind::Merge => Some(unsafe { &*ptr::from_ref(self).cast::<CancelNode>() }),
            _ => None,
        }
    }

    /// The node that brought the effective deadline.
    #[inline]
    pub(super) fn as_timed(&self) -> Option<&DeadlineNode> {
        let node = self.timed_by()?;
        // SAFETY: set to nodes made by `with_deadline` alone, and a `DeadlineNode` begins with its node.
        Some(unsafe { &*ptr::from_ref(node).cast::<DeadlineNode>() })
    }

    /// Whether the effective deadline is known to be on the real clock.
    #[inline]
    pub(super) fn is_known_real(&self) -> bool {
        self.as_timed().is_some_and(|timed| timed.is_real.load(Ordering::Relaxed))
    }

    /// The effective deadline is on the real clock.
    pub(super) fn set_known_real(&self) {
        if let Some(timed) = self.as_timed() {
            timed.is_real.store(true, Ordering::Relaxed);
        }
    }

    /// This node, if it has two parents.
    #[inline]
    pub(super) fn as_merge(&self) -> Option<&MergeNode> {
        match self.kind {
            // SAFETY: this kind is made by `Ref::merge` alone, and a `MergeNode` begins with its node.
            NodeKind::Merge => Some(unsafe { &*ptr::from_ref(self).cast::<MergeNode>() }),
            _ => None,
        }
    }

    /// The nearest node that can be cancelled: this one, or the one above.
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
        // SAFETY: this node, an ancestor, or one of a merge's second parent (invariant 2).
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
        // SAFETY: what is linked is not freed before it has left the list, for which the lock is needed (invariant 4).
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
