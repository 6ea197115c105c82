//! The atomics, locks, cells and threads of contexts and alarms.
//!
//! A model checker replaces them with its own (`--cfg throughline_loom`, `--cfg
//! throughline_shuttle`). Loom's cells also detect two accesses that nothing orders.

use std::sync::PoisonError;

#[cfg(all(test, throughline_loom))]
pub(super) use crate::context::models::exhaustive::watched::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
#[cfg(all(test, throughline_loom))]
pub(super) use loom::cell::Cell;
#[cfg(all(test, throughline_loom))]
pub(super) use loom::sync::atomic::{Ordering, fence};
#[cfg(all(test, throughline_loom))]
pub(super) use loom::sync::{Mutex, MutexGuard};
#[cfg(all(test, throughline_loom))]
pub(super) use loom::thread;

#[cfg(all(test, throughline_shuttle))]
pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(all(test, throughline_shuttle))]
pub(super) use shuttle::sync::{Mutex, MutexGuard};
#[cfg(all(test, throughline_shuttle))]
pub(super) use shuttle::thread;

#[cfg(not(all(test, throughline_loom)))]
pub(super) use std::cell::Cell;
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle))))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle))))]
pub(super) use std::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle))))]
pub(super) use std::thread;

/// Locks `mutex`, also after a thread has panicked under the lock.
///
/// No user code runs under the locks of contexts and alarms. What can panic there is an allocation,
/// and it leaves the guarded state consistent.
#[inline]
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
