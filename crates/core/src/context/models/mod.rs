//! The tree under model checkers: loom, which runs a small scene in every order that matters and under every result that the memory
//! model allows, and shuttle, which runs large ones in many random orders.
//!
//! ```text
//! RUSTFLAGS="--cfg throughline_loom" cargo test -p throughline-core --release --lib models --target-dir target/loom
//! ```
//!
//! They are built in place of the usual tests, with the model's clock and alarms: no thread runs but those of the model. Each model says
//! which fault in the tree it finds.
#![allow(clippy::unwrap_used)]

pub(super) mod clock;

#[cfg(throughline_loom)]
mod cancel;
#[cfg(throughline_loom)]
mod wake;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Wake, Waker};

use super::{Context, DoneOwned};

/// Runs `scene` in every order.
#[cfg(throughline_loom)]
fn model(scene: impl Fn() + Send + Sync + 'static) {
    explore(None, scene);
}

/// Runs `scene` in every order in which threads that could go on are put aside `preemptions` times at most.
#[cfg(throughline_loom)]
fn model_within(preemptions: usize, scene: impl Fn() + Send + Sync + 'static) {
    explore(Some(preemptions), scene);
}

#[cfg(throughline_loom)]
fn explore(preemption_bound: Option<usize>, scene: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemption_bound);
    builder.max_branches = 10_000;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        scene();
    });
    eprintln!("{}: {} orders", std::thread::current().name().unwrap_or("model"), runs.load(Ordering::Relaxed));
}

/// One who waits for a context, and counts how often it was woken.
struct Waiter {
    done: Pin<Box<DoneOwned>>,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Waiter {
    fn new(ctx: &Context) -> Waiter {
        Waiter { done: Box::pin(ctx.done_owned()), wakes: Arc::default() }
    }

    /// Whether the context is found to be done; if not, the waiter is woken when it is.
    fn poll(&mut self) -> bool {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.done.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_ready()
    }

    fn count(&self) -> usize {
        self.wakes.count()
    }

    /// From the next poll on it is woken, and counts, anew. Returns what counted before.
    fn change_waker(&mut self) -> Arc<Wakes> {
        std::mem::take(&mut self.wakes)
    }

    /// Stops waiting.
    fn forget(self) -> Arc<Wakes> {
        self.wakes
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
