//! Births: safe constructors of nodes, and the marks of a deadline on the nodes above.

use std::ptr::{self, NonNull};
use std::time::Instant;

use super::node::{CancelNode, ChildLink, DeadlineNode, Lists, MergeNode, Node, NodeKind, Ref};
use super::ready::Ready;
use super::table::Values;
use crate::context::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Mutex, Ordering, fence};

impl Ref {
    /// A child that can be cancelled.
    #[inline]
    pub(in crate::context) fn with_cancel(parent: Option<&Ref>) -> Ref {
        Ref::new(|| CancelNode::of(Node::below(parent, NodeKind::Cancel)))
    }

    /// A child that inherits only the values of `parent`.
    pub(in crate::context) fn without_cancel(parent: &Ref) -> Ref {
        Ref::new(|| {
            let mut node = Node::below(Some(parent), NodeKind::WithoutCancel);
            (node.up, node.deadline, node.timed_by) = (None, None, None);
            node.state = AtomicPtr::new(ptr::null_mut());
            node
        })
    }

    /// A child with a deadline of its own, earlier than the parent's.
    ///
    /// `now` is the time if the clock was read already; it is before `at`.
    #[inline]
    pub(in crate::context) fn with_deadline(parent: Option<&Ref>, at: Instant, now: Option<Instant>) -> Ref {
        let mut this = Ref::new(|| {
            let mut node = Node::below(parent, NodeKind::Deadline);
            let is_real = AtomicBool::new(node.is_known_real());
            node.deadline = Some(at);
            DeadlineNode { node, is_real, ready: Ready::new(now.is_some()) }
        });
        let own = this.0;
        // SAFETY: nothing else has seen the node yet.
        unsafe { this.0.as_mut() }.timed_by = Some(own);
        mark_timed(this.node().up());
        // If the parent is done already, its outcome wins over a deadline that has passed already.
        if let Some(outcome) = parent.and_then(|parent| parent.node().outcome_at(now)) {
            this.node().latch(outcome);
        }
        this
    }
}

/// Marks `node` and all nodes above as having a deadline below.
///
/// A canceller of one of them either sees the mark and stamps its cancellation, or set its flag
/// early enough for every later observer of the deadline to see it.
///
/// The fence is paid once per node, not once per deadline below it. A thread that finds
/// `timed_fenced` set comes after the fence of the thread that set it. So it sees the flag of every
/// canceller that came too early to see `timed_below`.
#[inline]
pub(super) fn mark_timed(node: Option<&CancelNode>) {
    if node.is_some_and(|node| !node.timed_fenced.load(Ordering::Acquire)) {
        mark_path(node);
    }
}

#[cold]
fn mark_path(node: Option<&CancelNode>) {
    let unfenced = |node: &&CancelNode| !node.timed_fenced.load(Ordering::Acquire);
    let mut next = node.filter(unfenced);
    while let Some(node) = next {
        node.timed_below.store(true, Ordering::SeqCst);
        next = node.node.up().filter(unfenced);
    }
    fence(Ordering::SeqCst);
    let mut next = node.filter(unfenced);
    while let Some(node) = next {
        node.timed_fenced.store(true, Ordering::Release);
        next = node.node.up().filter(unfenced);
    }
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
}

/// A type that a [`Ref`] may point to.
///
/// It begins with a [`Node`], whose `kind` names the type.
pub(super) trait Birth {}

impl Birth for Node {}
impl Birth for CancelNode {}
impl Birth for DeadlineNode {}
impl Birth for MergeNode {}

impl Ref {
    #[inline]
    pub(super) fn new<T: Birth>(node: impl FnOnce() -> T) -> Ref {
        Ref(NonNull::from(Box::leak(build(node))).cast())
    }
}

/// A box whose content is built in place.
///
/// A node is too large to be moved each time one is made.
#[inline]
fn build<T>(content: impl FnOnce() -> T) -> Box<T> {
    let mut uninit = Box::new_uninit();
    uninit.write(content());
    // SAFETY: written above.
    unsafe { uninit.assume_init() }
}
