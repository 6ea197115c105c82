//! The atomics, locks and cells of the tree.
//!
//! A model checker replaces them with its own (`--cfg throughline_loom`, `--cfg
//! throughline_shuttle`). Loom's cells also detect two accesses that nothing orders.

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
#[cfg(not(all(test, any(throughline_loom, throughline_shuttle))))]
pub(in crate::context) use std::sync::{Mutex, MutexGuard};
