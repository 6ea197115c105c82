//! Real threads in whatever order they run, for ThreadSanitizer.

use std::hash::{BuildHasher, Hasher, RandomState};

pub(super) use std::thread;

use super::clock;

/// Runs `scene` a tenth of `orders` times.
pub(super) fn explore(orders: usize, scene: fn()) {
    for _ in 0..orders / 10 {
        clock::begin();
        scene();
    }
}

pub(super) fn below(n: usize) -> usize {
    RandomState::new().build_hasher().finish() as usize % n
}
