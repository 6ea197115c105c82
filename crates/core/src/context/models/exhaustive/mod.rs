//! Scenes of two or three threads under loom.
//!
//! Loom tries every order and every result that the memory model allows, unless the model names a
//! bound. `crates/core/mutants.sh` shows that each model finds the faults that it names.

mod cancel;
mod hook;
mod lifetime;
mod merge;
mod shield;
mod time;
mod wake;
pub(in crate::context) mod watched;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Count, Waiter, clock};

/// Runs `scene` in every order.
fn model(scene: impl Fn() + Send + Sync + 'static) {
    explore(None, scene);
}

/// Runs `scene` in every order with at most so many `preemptions`.
///
/// A preemption is the stop of a thread that could continue.
fn model_within(preemptions: usize, scene: impl Fn() + Send + Sync + 'static) {
    explore(Some(preemptions), scene);
}

fn explore(preemption_bound: Option<usize>, scene: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemption_bound);
    builder.max_branches = 10_000;
    builder.check(move || {
        STARTED.set(0);
        thread_index();
        counted.fetch_add(1, Ordering::Relaxed);
        scene();
    });
    eprintln!("{}: {} orders", std::thread::current().name().unwrap_or("model"), runs.load(Ordering::Relaxed));
}

thread_local! {
    /// How many threads of the model have started.
    ///
    /// All of them run on one thread of the process.
    static STARTED: Cell<usize> = const { Cell::new(0) };
}

loom::thread_local! {
    static INDEX: usize = STARTED.replace(STARTED.get() + 1);
}

/// The index of the calling thread in the model: 0, 1, …
fn thread_index() -> usize {
    INDEX.with(|index| *index)
}
