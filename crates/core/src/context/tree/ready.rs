//! Deadlines over work that never waits.
//!
//! A [`run`](crate::Context::run) whose work is ready at its first poll sets no alarm, and reads no clock. So that a loop of such calls
//! ends all the same, the deadline's node counts them, and after a few it sets an alarm of its own.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Wake, Waker};

use super::node::{DeadlineNode, Node};
use crate::context::clock;
use crate::context::timer::Alarm;

/// Nobody has compared the deadline with the clock since the node was made.
const UNCHECKED: u8 = 0;
const CHECKED: u8 = 1;
/// So many calls were ready at once that the next ones have an alarm.
const WATCHED: u8 = CHECKED + 4;

/// What a deadline's node knows of calls that were ready at once. All of it is a hint: whoever follows one looks at the clock.
pub(super) struct Ready {
    count: AtomicU8,
    watch: OnceLock<Box<Watch>>,
}

/// Says that the deadline has passed, to calls that read no clock.
struct Watch {
    due: Arc<Due>,
    /// `None` on a virtual clock, which an alarm would move: there each call reads the clock.
    _alarm: Option<Alarm>,
}

struct Due(AtomicBool);

impl Wake for Due {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Ready {
    /// `is_checked`: whether the deadline is known to have been ahead at birth.
    #[inline]
    pub(super) fn new(is_checked: bool) -> Self {
        Ready { count: AtomicU8::new(if is_checked { CHECKED } else { UNCHECKED }), watch: OnceLock::new() }
    }
}

impl DeadlineNode {
    /// Whether a look at the clock is due before any work is polled under this deadline.
    #[inline]
    pub(super) fn may_be_over(&self) -> bool {
        match self.ready.count.load(Ordering::Relaxed) {
            UNCHECKED => {
                self.ready.count.store(CHECKED, Ordering::Relaxed);
                true
            }
            WATCHED => self.ready.watch.get().is_none_or(|watch| watch.due.0.load(Ordering::Relaxed)),
            _ => false,
        }
    }

    /// Counts one more call that was ready at once. Counts of racing threads may be lost.
    #[inline]
    pub(super) fn ready_at_once(&self) {
        let count = self.ready.count.load(Ordering::Relaxed);
        if count < WATCHED {
            self.count_to(count + 1);
        }
    }

    #[cold]
    fn count_to(&self, count: u8) {
        if count == WATCHED && self.ready.watch.get().is_none() {
            // Whoever comes second drops what it has made.
            let _ = self.ready.watch.set(Box::new(Watch::new(&self.node)));
        }
        self.ready.count.store(count, Ordering::Relaxed);
    }
}

impl Watch {
    fn new(node: &Node) -> Watch {
        let is_virtual = !node.is_known_real() && clock::now_and_kind().1;
        let due = Arc::new(Due(AtomicBool::new(is_virtual)));
        let waker = Waker::from(Arc::clone(&due));
        let alarm = |at| Alarm::new(at, false, &mut TaskContext::from_waker(&waker));
        Watch { due, _alarm: node.deadline.filter(|_| !is_virtual).map(alarm) }
    }
}
