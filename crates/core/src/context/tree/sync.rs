//! The atomics and locks of the tree, exchangeable for those of a model checker (`--cfg throughline_loom`, `--cfg throughline_shuttle`).

#[cfg(throughline_loom)]
pub(super) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(throughline_loom)]
pub(super) use loom::sync::{Mutex, MutexGuard};

#[cfg(throughline_shuttle)]
pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(throughline_shuttle)]
pub(super) use shuttle::sync::{Mutex, MutexGuard};

#[cfg(not(any(throughline_loom, throughline_shuttle)))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(any(throughline_loom, throughline_shuttle)))]
pub(super) use std::sync::{Mutex, MutexGuard};
