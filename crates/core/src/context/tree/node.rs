//! Nodes: their layout, their birth and their death.

use std::ptr::{self, NonNull};
use std::time::Instant;

use super::cause;
use super::list::{Link, Lists};
use super::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Cell, Mutex, Ordering, fence};
use super::value::{self, Values};
use crate::context::Cause;
use crate::context::key::Meta;

/// What a node was made by: for `Debug`, and for who frees it.
#[derive(Clone, Copy)]
pub(in crate::context) enum Kind {
    Cancel,
    Merge,
    Deadline,
    WithoutCancel,
    Value(&'static Meta),
    Nothing(&'static Meta),
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
    pub(super) kind: Kind,
}

/// A node that can be cancelled.
#[repr(C)]
pub(super) struct CancelNode {
    pub(super) node: Node,
    /// When its own cancellation happened, in [`clock::nanos`](crate::context::clock::nanos); 0: not known yet.
    pub(super) stamp: AtomicU64,
    /// Whether a deadline was ever set below.
    pub(super) timed_below: AtomicBool,
    /// Whether a merge ever took something below as its second parent.
    pub(super) merged_below: AtomicBool,
    /// Whether it is in a canceller's queue.
    pub(super) queued: AtomicBool,
    /// The next one in that queue.
    pub(super) queue_next: Cell<Option<Ref>>,
    pub(super) lists: Mutex<Lists>,
    /// In the children of `up`.
    pub(super) link: Link,
    /// In the children of a merge's second parent's anchor.
    pub(super) second: Option<Box<Second>>,
}

/// What a merge has besides its first parent.
pub(super) struct Second {
    pub(super) link: Link,
    pub(super) parent: Ref,
}

/// A counted pointer to a node.
pub(in crate::context) struct Ref(pub(super) NonNull<Node>);

// SAFETY: nodes change through atomics and under their locks (invariants 2–4); the values they hold and causes are `Send + Sync`.
unsafe impl Send for Ref {}
// SAFETY: as above.
unsafe impl Sync for Ref {}

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
        if let Some(freed) = self.release() {
            release_all(freed);
        }
    }
}

/// What a freed node held: the caller's to drop.
struct Freed {
    parent: Option<Ref>,
    second: Option<Ref>,
}

/// Drops a parent, and its parent, …, and the second parents of merges: a loop, since a chain may be a million deep.
fn release_all(mut freed: Freed) {
    let mut pending = Vec::new();
    loop {
        pending.extend(freed.second);
        let Some(next) = freed.parent.or_else(|| pending.pop()) else { return };
        freed = next.release().unwrap_or(Freed { parent: None, second: None });
        std::mem::forget(next);
    }
}

impl Ref {
    #[inline]
    pub(super) fn new(node: Node) -> Ref {
        Ref(NonNull::from(Box::leak(Box::new(node))))
    }

    #[inline]
    pub(super) fn new_cancel(node: CancelNode) -> Ref {
        Ref(NonNull::from(Box::leak(Box::new(node))).cast())
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

    pub(in crate::context) fn kind(&self) -> Kind {
        self.node().kind
    }

    pub(in crate::context) fn parent(&self) -> Option<&Ref> {
        self.node().parent.as_ref()
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

    /// Gives up one count; frees the node when it was the last.
    #[inline]
    fn release(&self) -> Option<Freed> {
        let node = self.node();
        let linked = node.as_cancel().is_some_and(CancelNode::is_linked);
        if linked || node.refs.load(Ordering::Acquire) != 1 {
            if node.refs.fetch_sub(1, Ordering::Release) != 1 {
                return None;
            }
            fence(Ordering::Acquire);
            if let Some(this) = node.as_cancel() {
                this.unlink();
            }
        }
        // SAFETY: the count was the last one and the node is in no list (invariant 1): nobody else can reach it.
        Some(unsafe { free(self.0) })
    }
}

/// Frees a node.
///
/// # Safety
/// Nobody else reaches the node, now or later.
#[inline]
unsafe fn free(pointer: NonNull<Node>) -> Freed {
    // SAFETY: ours alone, says the caller.
    let node = unsafe { &mut *pointer.as_ptr() };
    let mut freed = Freed { parent: node.parent.take(), second: None };
    let cause = node.cause.load(Ordering::Relaxed);
    match node.kind {
        Kind::Cancel | Kind::Merge => {
            // SAFETY: these kinds are boxed `CancelNode`s.
            let this = unsafe { Box::from_raw(pointer.cast::<CancelNode>().as_ptr()) };
            let CancelNode { second, .. } = *this;
            freed.second = second.map(|second| second.parent);
        }
        // SAFETY: these kinds are boxed `Node`s.
        Kind::Deadline | Kind::WithoutCancel => drop(unsafe { Box::from_raw(pointer.as_ptr()) }),
        // SAFETY: these kinds are made by `value::make` alone.
        Kind::Value(_) | Kind::Nothing(_) | Kind::Table => unsafe { value::free(pointer) },
    }
    // SAFETY: set by `cause::into_raw` alone, and nobody reads it any more.
    unsafe { cause::drop_raw(cause) };
    freed
}

impl Node {
    /// A node below `parent`, with all that it takes over from it: also its final answer, as `up` may skip the node that has it.
    #[inline]
    pub(super) fn below(parent: Option<&Ref>, kind: Kind) -> Node {
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
            // SAFETY: these kinds are made by `Ref::new_cancel` alone, and a `CancelNode` begins with its node.
            Kind::Cancel | Kind::Merge => Some(unsafe { &*ptr::from_ref(self).cast::<CancelNode>() }),
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
            timed_below: AtomicBool::new(false),
            merged_below: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            queue_next: Cell::new(None),
            lists: Mutex::new(Lists::EMPTY),
            link: Link::new(),
            second: None,
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

// Making nodes of every kind: the safe face of the tree's births.
impl Ref {
    /// A child that can be cancelled.
    #[inline]
    pub(in crate::context) fn with_cancel(parent: Option<&Ref>) -> Ref {
        Ref::new_cancel(CancelNode::of(Node::below(parent, Kind::Cancel)))
    }

    /// A child with the values of `parent` and nothing else of it.
    pub(in crate::context) fn without_cancel(parent: &Ref) -> Ref {
        let mut node = Node::below(Some(parent), Kind::WithoutCancel);
        (node.up, node.deadline, node.timed_by) = (None, None, None);
        node.state = AtomicPtr::new(ptr::null_mut());
        Ref::new(node)
    }

    /// A child with a deadline of its own, earlier than what the parent has.
    #[inline]
    pub(in crate::context) fn with_deadline(parent: Option<&Ref>, at: Instant, cause: Option<Cause>) -> Ref {
        let mut node = Node::below(parent, Kind::Deadline);
        node.deadline = Some(at);
        if let Some(cause) = cause {
            node.cause = AtomicPtr::new(cause::into_raw(cause));
        }
        let mut this = Ref::new(node);
        let own = this.0;
        // SAFETY: nobody else has seen the node yet.
        unsafe { this.0.as_mut() }.timed_by = Some(own);
        mark_timed(this.node().up());
        fence(Ordering::SeqCst);
        // A parent that is done already wins over a deadline that has passed already.
        if let Some(outcome) = parent.and_then(|parent| parent.node().outcome()) {
            this.node().latch(outcome);
        }
        this
    }
}

/// Says to `node` and all above that a deadline is below: whoever cancels one of them from here on stamps the cancellation, and who
/// did before is seen by whoever asks after a fence.
pub(super) fn mark_timed(node: Option<&CancelNode>) {
    let mut unmarked = Path::new();
    let mut next = node;
    while let Some(node) = next.filter(|node| !node.timed_below.load(Ordering::SeqCst)) {
        unmarked.push(&node.node);
        next = node.node.up();
    }
    // From the top down: a mark promises those above it.
    while let Some(node) = unmarked.pop() {
        node.as_cancel().expect("it came as one").timed_below.store(true, Ordering::SeqCst);
    }
}

/// Nodes from one upwards: what a recursion would keep on its stack. The first few cost no allocation.
pub(super) struct Path<'a> {
    first: [Option<&'a Node>; 8],
    len: usize,
    more: Vec<&'a Node>,
}

impl<'a> Path<'a> {
    pub(super) fn new() -> Self {
        Path { first: [None; 8], len: 0, more: Vec::new() }
    }

    pub(super) fn push(&mut self, node: &'a Node) {
        match self.first.get_mut(self.len) {
            Some(place) => {
                *place = Some(node);
                self.len += 1;
            }
            None => self.more.push(node),
        }
    }

    pub(super) fn pop(&mut self) -> Option<&'a Node> {
        self.more.pop().or_else(|| {
            self.len = self.len.checked_sub(1)?;
            self.first[self.len].take()
        })
    }
}
