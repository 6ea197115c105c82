//! The tree of contexts: the only module of the crate with `unsafe` code.
//!
//! Its interface is safe.
//!
//! A [`Ref`] is a counted pointer to a [`Node`](node::Node), which owns a `Ref` to its parent. So
//! the ancestors of a node live at least as long as the node.
//!
//! A [`CancelNode`](node::CancelNode) can be cancelled. A node of another kind (value, deadline)
//! has no list of waiters and no cancellation of its own: it uses those of `up`, its nearest
//! ancestor that can be cancelled. `state` is null, or says that the node is done. A node with a
//! deadline finds in `timed_by` the node that set it.
//!
//! Read the files in this order. Each one imports only files that stand above it:
//! - `list`, `waiters`: intrusive lists, and the list of waiters
//! - `meta`, `table`: untyped keys, and the table of the values in scope
//! - `cause`, `ready`: two fields of a node
//! - `node`: the kinds of node, and the way from one node to others
//! - `links`: how a canceller finds the waiters below
//! - `value`, `count`: nodes with values; how the last owner frees a node
//! - `observe`, `cancel`, `birth`, `merge`: what contexts do
//! - `wait`, `wire`: waiting for a context; values that are sent to other processes
//!
//! # Glossary
//! - **flagged**: the `state` of the node, or of an ancestor on the path through `up`, is set.
//! - **latched**: an observer has written the final outcome into the node's `state`.
//! - **anchor**: the node itself if it can be cancelled, otherwise `up`. Waiters queue at the
//!   anchor.
//! - **origin** of an outcome: the node that holds the outcome's cause.
//! - **linked**: in the list of children of `up`, or, for a merge, of its second parent's anchor.
//!   A canceller visits linked children only.
//! - **notified**: a waiter that a canceller has taken out of its list.
//!
//! # Invariants
//! Each one names the loom models that check it (`models/exhaustive`).
//!
//! 1. **Counts.** A node is freed in two cases only: an owner lowers `refs` from 1 to 0, or the
//!    sole owner (`refs` is 1) drops a node that is not linked. Nothing raises `refs` from 0: a
//!    canceller takes a linked child only through
//!    [`CancelNode::try_ref`](node::CancelNode::try_ref).
//!
//!    Models: `lifetime::sole_owner`, `last_child_frees_its_parent`,
//!    `linked_child_drop_against_cancel`, `merge::merge_drop_against_cancel`.
//! 2. **Ancestors.** `parent`, `up`, `timed_by`, `deadline` and `values` do not change after birth.
//!    They point to ancestors or into the node itself, and `parent` keeps the ancestors alive. So
//!    they need no count. The origin in a latched `state` needs none either: it is the node itself
//!    or an ancestor. For a merge it may also be an ancestor of the second parent, which the merge
//!    owns as well.
//!
//!    Models: `cancel::birth_below_an_expired_deadline`, `merge::merge_drop_against_cancel`.
//! 3. **Flags.** `state` changes once, from null. It then holds the node's own cancellation, or the
//!    final outcome that an observer latched.
//!
//!    Models: `cancel::two_cancels_and_an_observer`, `an_observer_latches_from_the_top_down`,
//!    `merge::both_parents_are_cancelled`.
//! 4. **Lists.** A node's waiters and linked children are reached and changed only under the node's
//!    own lock, which also guards the list pointers inside them. An item in a list is alive: a
//!    waiter leaves in its `Drop`, a child before it is freed. When a canceller takes an item out,
//!    its last access to the item is the write of `owner` (of a link) or `notified` (of a waiter).
//!
//!    Models: `wake::waiter_drop_against_wake`, `changed_waker_against_wake`,
//!    `lifetime::two_linked_siblings_drop`, `linked_child_drop_against_cancel`,
//!    `cancel::cancels_of_parent_and_child`.
//! 5. **Locks.** A thread that holds a node's lock may take the lock of a child of that node, and
//!    no other lock: the older node's lock comes first. No user code (waker, destructor, clone)
//!    runs under these locks.
//!
//!    Models that deadlock when the order is reversed: `wake::two_linkers`,
//!    `cancel::cancels_of_parent_and_child`. Tests: `c20_…`.
//! 6. **No wake-up is lost.** The waiter:
//!
//!    1. pushes its entry to the list of its anchor;
//!    2. links each level to the one above, from the anchor up to the top;
//!    3. reads the flags.
//!
//!    The canceller:
//!
//!    1. sets the flag;
//!    2. goes through the lists, level by level from the top, and handles every link that it finds.
//!
//!    An item enters each of these lists under the list's lock. The waiter puts it there, or an
//!    earlier thread did, and the waiter has seen the link's `owner` set. Read the lists from the
//!    cancelled node down to the waiter:
//!
//!    - *An item came after the canceller had gone through its list.* Take the first such list. The
//!      flag was set before the canceller took that list's lock, and the item came under the lock
//!      later. So the waiter sees the flag in step 3: through the lock, or through `owner`.
//!    - *There is no such list.* Then the canceller has found each link, and at the end the waiter.
//!
//!    Models: `wake::link_against_cancel`, `two_linkers`, `observer_against_wake`,
//!    `cancel::birth_under_a_cancelling_parent`, `merge::merge_against_cancel_of_the_second`,
//!    `lifetime::handle_drop_against_wait`, `hook::registration_against_cancel`,
//!    `wake::blocked_thread_against_cancel`, `time::blocked_thread_against_deadline`.
//! 7. **The first event wins.** A cancellation is stamped after it was flagged. A deadline counts
//!    as first when it is not later than the stamp. The outcome is a function of flags, stamp and
//!    deadline, so all observers agree. An observer reads the node's clock before its flags: if it
//!    reads a time past the deadline and then finds no flag, any later flag gets a later stamp.
//!
//!    Models: `time::earliest_event_wins`, `own_deadline_against_cancel`,
//!    `deadline_set_under_a_cancelling_parent`, `two_deadlines_under_a_cancelling_grandparent`,
//!    `merge::deadline_of_the_second_against_cancel_of_the_first`.
#![allow(unsafe_code)]

mod birth;
mod cancel;
mod cause;
mod count;
mod links;
mod list;
mod merge;
mod meta;
mod node;
mod observe;
mod ready;
mod table;
mod value;
mod wait;
mod waiters;
mod wire;

pub(crate) use meta::WireKind;
pub(super) use meta::{ErasedCodec, Meta, Wire};
pub(super) use node::{NodeKind, Ref};
pub(super) use wait::{Holder, Wait};
pub(super) use wire::WireValue;
