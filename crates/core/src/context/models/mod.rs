//! The tree under model checkers.
//!
//! - Loom runs a small scene in every order that matters, with every result that the memory model
//!   allows.
//! - Shuttle runs large scenes in many random orders. They also run on real threads under
//!   ThreadSanitizer.
//!
//! ```text
//! .ci/run models sanitizers
//! ```
//!
//! The models are built instead of the usual tests, with a clock and alarms of their own. Only the
//! threads of the model run. The documentation of each model names the faults in the tree that it
//! finds ("Fails when …").
#![allow(clippy::unwrap_used)]

pub(super) mod clock;

#[cfg(throughline_loom)]
pub(super) mod exhaustive;
#[cfg(any(throughline_shuttle, throughline_tsan))]
#[cfg_attr(throughline_shuttle, path = "orders.rs")]
#[cfg_attr(throughline_tsan, path = "threads.rs")]
mod runner;
#[cfg(any(throughline_shuttle, throughline_tsan))]
mod schedules;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Wake, Waker};

use super::Context;
use super::tree::Wait;

/// A waiter for a context, with a count of its wake-ups.
struct Waiter {
    wait: Pin<Box<Wait<Context>>>,
    wakes: Arc<Count>,
}

#[derive(Default)]
struct Count {
    count: AtomicUsize,
    /// Whether it panics when it is woken.
    panics: bool,
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.add();
        if self.panics {
            // Not `panic!`: the checker treats a call of the panic hook as the end of the scene.
            std::panic::resume_unwind(Box::new("a waker that panics"));
        }
    }
}

impl Waiter {
    fn new(ctx: &Context) -> Waiter {
        Waiter { wait: Box::pin(Wait::new(ctx.clone())), wakes: Arc::default() }
    }

    #[cfg(any(throughline_shuttle, throughline_tsan))]
    fn that_panics(ctx: &Context) -> Waiter {
        let wakes = Count { panics: true, ..Count::default() };
        Waiter { wakes: Arc::new(wakes), ..Waiter::new(ctx) }
    }

    /// Polls once. Returns whether the context is done.
    ///
    /// If not, the waiter is woken when it is.
    fn poll(&mut self) -> bool {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.wait.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_ready()
    }

    fn count(&self) -> usize {
        self.wakes.count()
    }

    fn context(&self) -> &Context {
        self.wait.context()
    }

    /// Uses a new waker, with a new count, from the next poll on.
    ///
    /// Returns the old count.
    fn change_waker(&mut self) -> Arc<Count> {
        std::mem::take(&mut self.wakes)
    }

    /// Stops waiting. Returns the count.
    #[cfg(throughline_loom)]
    fn forget(self) -> Arc<Count> {
        self.wakes
    }
}

impl Count {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}
