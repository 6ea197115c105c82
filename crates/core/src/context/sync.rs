//! The atomics, locks, cells and threads of contexts and alarms.
//!
//! A model checker replaces them with its own (`--cfg throughline_loom`, `--cfg
//! throughline_shuttle`). Loom's cells also detect two accesses that nothing orders.

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
