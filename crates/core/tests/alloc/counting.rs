//! An allocator that counts. A test binary that checks memory makes it the global allocator:
//!
//! ```ignore
//! #[global_allocator]
//! static ALLOCATOR: Counting = Counting;
//! ```
//!
//! Counts are per thread, so tests may run in parallel. Only [`in_process`] includes other threads;
//! a test that uses it must be the only one in its binary.
#![allow(unsafe_code, dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

pub(crate) struct Counting;

/// The allocations of one thread between two points in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// The number of allocations and reallocations.
    pub(crate) allocations: u64,
    /// Bytes allocated minus bytes freed.
    pub(crate) bytes: i64,
}

/// Runs `f` and counts its allocations. Its output is not dropped before the count is taken.
pub(crate) fn count<T>(f: impl FnOnce() -> T) -> (T, Count) {
    let before = ON_THREAD.get();
    let output = f();
    let after = ON_THREAD.get();
    (output, Count { allocations: after.allocations - before.allocations, bytes: after.bytes - before.bytes })
}

/// The number of allocations and reallocations of this thread so far.
pub(crate) fn total() -> u64 {
    ON_THREAD.get().allocations
}

/// Runs `f`. Returns its output and the number of bytes that it requested.
///
/// That includes bytes that it frees again, and every size that a growing block has.
pub(crate) fn requested<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = REQUESTED.get();
    let output = f();
    (output, REQUESTED.get() - before)
}

/// The number of bytes that all threads together have allocated and not freed.
pub(crate) fn in_process() -> i64 {
    IN_PROCESS.load(Relaxed)
}

static IN_PROCESS: AtomicI64 = AtomicI64::new(0);

thread_local! {
    // Constant, and without a destructor: an allocation may access it at any time in the life of a
    // thread.
    static ON_THREAD: Cell<Count> = const { Cell::new(Count { allocations: 0, bytes: 0 }) };
    static REQUESTED: Cell<usize> = const { Cell::new(0) };
}

fn add(allocations: u64, bytes: i64) {
    IN_PROCESS.fetch_add(bytes, Relaxed);
    let count = ON_THREAD.get();
    ON_THREAD.set(Count { allocations: count.allocations + allocations, bytes: count.bytes + bytes });
}

fn request(size: usize) {
    REQUESTED.set(REQUESTED.get() + size);
}

fn size(layout: Layout) -> i64 {
    i64::try_from(layout.size()).expect("a layout is at most isize::MAX bytes")
}

// SAFETY: every call is forwarded to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(1, size(layout));
        request(layout.size());
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(1, size(layout));
        request(layout.size());
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(0, -size(layout));
        // SAFETY: guaranteed by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        request(new_size);
        add(1, i64::try_from(new_size).expect("a layout is at most isize::MAX bytes") - size(layout));
        // SAFETY: guaranteed by the caller.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
