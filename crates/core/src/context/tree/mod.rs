//! The tree of contexts: the one module of the crate with `unsafe` code. What it offers to the rest is safe.
//!
//! A [`Ref`] is a counted pointer to a [`Node`], which owns a `Ref` to its parent. So a node's ancestors live as long as it does, and
//! whatever it borrows from them (`up`, `timed_by`, a latched origin, the values it has copied into its index) needs no count.
//! [`CancelNode`]s are nodes that can be cancelled; the others (values, deadlines) answer for the nearest of those, `up`.
//!
//! # Invariants
//! Each names the models under loom that show it (`models/exhaustive`).
//!
//! 1. **Counts.** A node is freed by whoever takes `refs` from 1 to 0, or finds itself the sole owner (`refs` is 1) of a node that is
//!    not linked. Nobody raises `refs` from 0: a canceller that meets a linked child takes it only by [`CancelNode::try_ref`].
//!    Models: `lifetime::sole_owner`, `last_child_frees_its_parent`, `linked_child_drop_against_cancel`,
//!    `merge::merge_drop_against_cancel`.
//! 2. **Ancestors.** `parent`, `up`, `timed_by`, `deadline`, `values` do not change after birth, and point to ancestors (or into the
//!    node itself), which `parent` keeps alive. The origin in a latched `state` is an ancestor, the node itself, or for a merge an
//!    ancestor of its second parent, which it owns as well.
//!    Models: `cancel::birth_below_an_expired_deadline`, `merge::merge_drop_against_cancel`.
//! 3. **Flags.** `state` leaves 0 once. It is a node's own cancellation, or a final answer that an observer latched.
//!    Models: `cancel::two_cancels_and_an_observer`, `an_observer_latches_from_the_top_down`, `merge::both_parents_are_cancelled`.
//! 4. **Lists.** A node's waiters and linked children are reached and changed only under its own lock, which also guards the links
//!    inside them. An entry in a list is alive: a waiter leaves in its `Drop`, a child before it is freed. `owner` (of a link) and
//!    `notified` (of a waiter) are the last thing that a canceller touches of what it takes out.
//!    Models: `wake::waiter_drop_against_wake`, `changed_waker_against_wake`, `lifetime::two_linked_siblings_drop`,
//!    `linked_child_drop_against_cancel`, `cancel::cancels_of_parent_and_child`.
//! 5. **Locks.** Under a node's lock that of a child may be taken, and no other one: the older node's comes first. No user code (waker,
//!    destructor, clone) runs under them.
//!    Models, which a second order brings to a deadlock: `wake::two_linkers`, `cancel::cancels_of_parent_and_child`. Tests `c20_…`.
//! 6. **No wake-up is lost.** Who waits: pushes the waiter, links every level up to the top, looks at the flags. Who cancels: sets the
//!    flag, then goes through the lists, level by level, and leaves none out whose link it finds. Take the first level at which the
//!    waiter, or whoever linked before and whose `owner` it has seen, came after the canceller had gone through the list: that
//!    list's lock has let the waiter see the flag. Without such a level the canceller has found each link, and the waiter.
//!    Models: `wake::link_against_cancel`, `two_linkers`, `observer_against_wake`, `cancel::birth_under_a_cancelling_parent`,
//!    `merge::merge_against_cancel_of_the_second`, `lifetime::handle_drop_against_wait`, `hook::registration_against_cancel`.
//! 7. **Who was first.** A cancellation is stamped after it was flagged; a deadline counts as first when it is not later than the stamp.
//!    The outcome is a function of flags, stamp and deadline, so all observers agree. A node's clock is read before its flags: whoever
//!    finds no flag after its deadline knows that any later flag gets a later stamp.
//!    Models: `time::earliest_event_wins`, `own_deadline_against_cancel`, `deadline_set_under_a_cancelling_parent`,
//!    `two_deadlines_under_a_cancelling_grandparent`, `merge::deadline_of_the_second_against_cancel_of_the_first`.
#![allow(unsafe_code)]

mod birth;
mod cancel;
mod cause;
mod list;
mod merge;
mod node;
mod observe;
mod ready;
pub(super) mod sync;
mod value;
mod wait;
mod wire;

pub(super) use node::{NodeKind, Ref};
pub(super) use wait::{Holder, Wait};
pub(super) use wire::{ErasedCodec, WireValue};
