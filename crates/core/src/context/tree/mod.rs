//! The tree of contexts: the one module of the crate with `unsafe` code. What it offers to the rest is safe.
//!
//! A [`Ref`] is a counted pointer to a [`Node`], which owns a `Ref` to its parent. So a node's ancestors live as long as it does, and
//! whatever it borrows from them (`up`, `timed_by`, a latched origin, the values it has copied into its index) needs no count.
//! [`CancelNode`]s are nodes that can be cancelled; the others (values, deadlines) answer for the nearest of those, `up`.
//!
//! # Invariants
//! 1. **Counts.** A node is freed by whoever takes `refs` from 1 to 0, or finds itself the sole owner (`refs` is 1) of a node that is
//!    not linked. Nobody raises `refs` from 0: a canceller that meets a linked child takes it only by [`Node::try_ref`].
//! 2. **Ancestors.** `parent`, `up`, `timed_by`, `deadline`, `values` do not change after birth, and point to ancestors (or into the
//!    node itself), which `parent` keeps alive. The origin in a latched `state` is an ancestor, the node itself, or for a merge an
//!    ancestor of its second parent, which it owns as well.
//! 3. **Flags.** `state` leaves 0 once. It is a node's own cancellation, or a final answer that an observer latched.
//! 4. **Lists.** A node's waiters and linked children are reached and changed only under its own lock, which also guards the links
//!    inside them. An entry in a list is alive: a waiter leaves in its `Drop`, a child before it is freed. `owner` (of a link) and
//!    `notified` (of a waiter) are the last thing that a canceller touches of what it takes out.
//! 5. **Locks.** Under a node's lock that of a child may be taken, and no other one: the older node's comes first. No user code (waker,
//!    destructor, clone) runs under them.
//! 6. **No wake-up is lost.** Who waits: pushes the waiter, links every level up to the top, fences (SeqCst), looks at the flags. Who
//!    cancels: sets the flag, fences (SeqCst), then goes through the lists. One of them sees the other.
//! 7. **Who was first.** A cancellation is stamped after it was flagged; a deadline counts as first when it is not later than the stamp.
//!    The outcome is a function of flags, stamp and deadline, so all observers agree. A node's clock is read before its flags: whoever
//!    finds no flag after its deadline knows that any later flag gets a later stamp.
#![allow(unsafe_code)]

mod cancel;
mod cause;
mod list;
mod merge;
mod node;
mod observe;
pub(super) mod sync;
mod value;
mod wait;

pub(super) use node::{Kind, Ref};
pub(super) use value::Encode;
pub(super) use wait::Wait;
