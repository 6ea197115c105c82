//! Observing a node: whether it is done, and for which cause.
//!
//! The `state` of a node is one of:
//! - null: the node has not been found done;
//! - [`OWN`]: the node was cancelled itself;
//! - the origin's address with the error in its low bits: an outcome that an observer has latched.

use std::ptr::{self, NonNull};
use std::time::Instant;

use super::node::{CancelNode, Node, Ref};
use crate::context::sync::Ordering;
use crate::context::{Cause, ContextError, clock};

const OWN: usize = 1;
const CANCELED: usize = 2;
const DEADLINE: usize = 3;

/// A final outcome: the error, and the node that holds its cause.
#[derive(Clone, Copy)]
pub(super) struct Outcome<'a> {
    pub(super) error: ContextError,
    pub(super) origin: &'a Node,
}

impl Outcome<'_> {
    fn encode(self) -> *mut Node {
        let tag = if self.error.is_timeout() { DEADLINE } else { CANCELED };
        ptr::from_ref(self.origin).cast_mut().map_addr(|address| address | tag)
    }

    fn cause(self) -> Cause {
        let given = self.origin.cause.load(Ordering::Acquire);
        // SAFETY: the cause was set before the flag that led here, and it is freed with the node.
        match (unsafe { given.as_ref() }, self.error) {
            (Some(cause), _) => cause.clone(),
            (None, ContextError::Canceled) => Cause::Canceled,
            (None, ContextError::DeadlineExceeded) => Cause::DeadlineExceeded,
        }
    }
}

impl Ref {
    /// The error, or `None` while the node is live.
    ///
    /// Reads the clock if there is a deadline, and latches the outcome.
    #[inline]
    pub(in crate::context) fn error(&self) -> Option<ContextError> {
        self.node().outcome().map(|outcome| outcome.error)
    }

    /// As [`error`](Self::error), with the clock read already.
    pub(in crate::context) fn error_at(&self, now: Instant) -> Option<ContextError> {
        self.node().outcome_at(Some(now)).map(|outcome| outcome.error)
    }

    pub(in crate::context) fn cause(&self) -> Option<Cause> {
        self.node().outcome().map(Outcome::cause)
    }

    /// When the node was done. `None` while it is live.
    ///
    /// A cancellation that nobody has needed the time of until now counts as now.
    pub(in crate::context) fn done_at(&self) -> Option<Instant> {
        let Outcome { error, origin } = self.node().outcome()?;
        match error {
            ContextError::DeadlineExceeded => origin.deadline,
            ContextError::Canceled => origin.as_cancel().and_then(|origin| clock::instant(origin.stamp())),
        }
    }

    /// The cause that was given for the effective deadline.
    pub(in crate::context) fn deadline_cause(&self) -> Option<Cause> {
        let given = self.node().timed_by()?.cause.load(Ordering::Acquire);
        // SAFETY: the cause is freed with the node, which is alive.
        unsafe { given.as_ref() }.cloned()
    }

    /// Whether this node's own `state` is set. Reads no clock.
    #[inline]
    pub(in crate::context) fn is_latched(&self) -> bool {
        !self.node().state.load(Ordering::Acquire).is_null()
    }

    /// Whether there is a deadline, or a node to cancel.
    pub(in crate::context) fn can_be_done(&self) -> bool {
        self.node().deadline.is_some() || self.node().anchor().is_some()
    }

    /// Whether the context has to be checked before any work is polled. Reads no clock.
    ///
    /// That is so if it was cancelled, if an observer has seen its deadline pass, or if
    /// [`Ready`](super::ready::Ready) asks for a check.
    #[inline]
    pub(in crate::context) fn may_be_done(&self) -> bool {
        let node = self.node();
        node.is_flagged()
            || node.deadline_node().is_some_and(|timed| {
                !timed.node.state.load(Ordering::Acquire).is_null() || timed.ready.may_be_done(timed.node.deadline)
            })
    }
}

impl Node {
    /// Whether the `state` of this node, or of a node above it, is set.
    #[inline]
    pub(super) fn is_flagged(&self) -> bool {
        let mut node = self;
        loop {
            if !node.state.load(Ordering::Acquire).is_null() {
                return true;
            }
            match node.up() {
                Some(up) => node = &up.node,
                None => return false,
            }
        }
    }

    #[inline]
    pub(super) fn outcome(&self) -> Option<Outcome<'_>> {
        self.outcome_at(None)
    }

    /// The outcome, if the node is done.
    ///
    /// `now` is the time if the clock was read already.
    #[inline]
    pub(super) fn outcome_at(&self, now: Option<Instant>) -> Option<Outcome<'_>> {
        let state = self.state.load(Ordering::Acquire);
        if !state.is_null() {
            return Some(self.decode(state));
        }
        // The clock before the flags (invariant 7).
        let now = self.deadline.map(|_| now.unwrap_or_else(clock::now));
        let is_late = self.deadline.is_some() && self.deadline <= now;
        if is_late || self.is_flagged() { self.resolve(now) } else { None }
    }

    /// The outcome, latched in every node from its source down to this node.
    ///
    /// It latches from the top down. So once a node has been seen done, no node below it can be
    /// seen live, or done for another reason. `now` was read before.
    #[cold]
    pub(super) fn resolve(&self, now: Option<Instant>) -> Option<Outcome<'_>> {
        let mut path = Path::new();
        let mut next = Some(self);
        let mut outcome = None;
        while let Some(node) = next {
            let state = node.state.load(Ordering::Acquire);
            if !state.is_null() {
                outcome = Some(node.decode(state));
                break;
            }
            path.push(node);
            next = node.up().map(|up| &up.node);
        }
        while let Some(node) = path.pop() {
            outcome = match outcome {
                None if node.deadline.is_some() && node.deadline <= now => Some(node.latch(node.timed_out())),
                None => None,
                Some(above) => Some(node.latch(node.below_done(above))),
            };
        }
        outcome
    }

    /// This node's outcome when the node above has the outcome `above`.
    ///
    /// It is the earlier of `above` and the node's own deadline.
    pub(super) fn below_done<'a>(&'a self, above: Outcome<'a>) -> Outcome<'a> {
        match (self.deadline, above.error) {
            (Some(_), ContextError::DeadlineExceeded) => self.timed_out(),
            (Some(deadline), ContextError::Canceled) if above.origin.cancelled_after(deadline) => self.timed_out(),
            _ => above,
        }
    }

    /// Latches an outcome, unless there is one. Returns the outcome that counts.
    pub(super) fn latch<'a>(&'a self, outcome: Outcome<'a>) -> Outcome<'a> {
        match self.state.compare_exchange(ptr::null_mut(), outcome.encode(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => outcome,
            Err(first) => self.decode(first),
        }
    }

    /// The `state` that a child of this node starts with.
    ///
    /// It is this node's outcome, or null if the node has not been found done.
    #[inline]
    pub(super) fn final_state(&self) -> *mut Node {
        let state = self.state.load(Ordering::Acquire);
        if state.is_null() { state } else { self.latched_for_child(state) }
    }

    #[cold]
    fn latched_for_child(&self, state: *mut Node) -> *mut Node {
        self.decode(state).encode()
    }

    /// Flags the node as cancelled itself, unless it has an outcome.
    pub(super) fn flag(&self) {
        let own = ptr::without_provenance_mut(OWN);
        // Only the first event counts.
        let _ = self.state.compare_exchange(ptr::null_mut(), own, Ordering::AcqRel, Ordering::Acquire);
    }

    #[inline]
    fn decode(&self, state: *mut Node) -> Outcome<'_> {
        let error = match state.addr() & 3 {
            OWN => return self.own_outcome(),
            CANCELED => ContextError::Canceled,
            _ => ContextError::DeadlineExceeded,
        };
        let origin = NonNull::new(state.map_addr(|address| address & !3)).map_or(self, |origin| {
            // SAFETY: the origin's address, stored by `latch` or at birth. The origin is alive
            // (invariant 2).
            unsafe { origin.as_ref() }
        });
        Outcome { error, origin }
    }

    /// The outcome of a node that was cancelled itself.
    fn own_outcome(&self) -> Outcome<'_> {
        match self.deadline {
            Some(deadline) if self.cancelled_after(deadline) => self.timed_out(),
            _ => Outcome { error: ContextError::Canceled, origin: self },
        }
    }

    fn timed_out(&self) -> Outcome<'_> {
        Outcome { error: ContextError::DeadlineExceeded, origin: self.timed_by().unwrap_or(self) }
    }

    /// Whether the cancellation of this node came at `deadline` or later.
    fn cancelled_after(&self, deadline: Instant) -> bool {
        self.as_cancel().is_some_and(|origin| clock::nanos(deadline) <= origin.stamp())
    }
}

impl CancelNode {
    /// The stamp: when the node was cancelled.
    ///
    /// The first caller reads the clock. That is after the flag was set.
    pub(super) fn stamp(&self) -> u64 {
        let stamp = self.stamp.load(Ordering::Acquire);
        if stamp != 0 {
            return stamp;
        }
        let now = clock::nanos(clock::now_anywhere());
        match self.stamp.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => now,
            Err(first) => first,
        }
    }
}

/// A stack of nodes on the path upwards, instead of a recursion.
///
/// The first few need no allocation.
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
            Some(slot) => {
                *slot = Some(node);
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
