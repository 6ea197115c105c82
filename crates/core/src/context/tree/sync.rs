//! The atomics, locks and cells of the tree, exchangeable for those of a model checker (`--cfg throughline_loom`,
//! `--cfg throughline_shuttle`). Loom's cells also find an access that is ordered with another by nothing. ThreadSanitizer
//! (`--cfg throughline_tsan`) sees no orders through std's locks, which come compiled without it: it gets other locks.

#[cfg(all(test, throughline_loom))]
pub(in crate::context) use crate::context::models::exhaustive::watched::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize,
};
#[cfg(all(test, throughline_loom))]
pub(in crate::context) use loom::cell::Cell;
#[cfg(all(test, throughline_loom))]
pub(in crate::context) use loom::sync::atomic::{Ordering, fence};
#[cfg(all(test, throughline_loom))]
pub(in crate::context) use loom::sync::{Mutex, MutexGuard};

#[cfg(all(test, throughline_shuttle))]
pub(in crate::context) use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(all(test, throughline_shuttle))]
pub(in crate::context) use shuttle::sync::{Mutex, MutexGuard};

#[cfg(not(all(test, throughline_loom)))]
pub(in crate::context) use std::cell::Cell;
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle))))]
pub(in crate::context) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(any(all(test, any(throughline_loom, throughline_shuttle)), throughline_tsan)))]
pub(in crate::context) use std::sync::{Mutex, MutexGuard};
#[cfg(throughline_tsan)]
pub(in crate::context) use visible::{Mutex, MutexGuard};

#[cfg(throughline_tsan)]
mod visible {
    use std::sync::LockResult;

    pub(in crate::context) use parking_lot::MutexGuard;

    /// With the face of std's; it is never poisoned.
    pub(in crate::context) struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::context) const fn new(content: T) -> Self {
            Mutex(parking_lot::const_mutex(content))
        }

        pub(in crate::context) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            Ok(self.0.lock())
        }
    }
}
