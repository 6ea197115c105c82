//! An allocator that counts. A test binary whose tests look at memory has it as its global one:
//!
//! ```ignore
//! #[global_allocator]
//! static ALLOCATOR: Counting = Counting;
//! ```
//!
//! Counts are the calling thread's, so tests may run side by side. Only [`in_process`] sees what other threads allocate or free, and
//! asks for a test that has its binary to itself.
#![allow(unsafe_code, dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

pub(crate) struct Counting;

/// What happened between two points of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Calls that allocated, or moved a block to another size.
    pub(crate) allocations: u64,
    /// Bytes allocated, less bytes freed.
    pub(crate) bytes: i64,
}

/// Runs `f`; what it returns still lives when the count is taken.
pub(crate) fn count<T>(f: impl FnOnce() -> T) -> (T, Count) {
    let before = ON_THREAD.get();
    let output = f();
    let after = ON_THREAD.get();
    (output, Count { allocations: after.allocations - before.allocations, bytes: after.bytes - before.bytes })
}

/// Runs `f`; the bytes that it asks for, also those that it frees again, and every size that a block has while it grows.
pub(crate) fn requested<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = REQUESTED.get();
    let output = f();
    (output, REQUESTED.get() - before)
}

/// The bytes that all threads together hold.
pub(crate) fn in_process() -> i64 {
    IN_PROCESS.load(Relaxed)
}

static IN_PROCESS: AtomicI64 = AtomicI64::new(0);

thread_local! {
    // Neither lazy nor to be destroyed, so it can be reached from within an allocation at any time of a thread.
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

// SAFETY: every call goes to `System` as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(1, size(layout));
        request(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(1, size(layout));
        request(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(0, -size(layout));
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        request(new_size);
        add(1, i64::try_from(new_size).expect("a layout is at most isize::MAX bytes") - size(layout));
        // SAFETY: the caller's.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
