//! Bytes from a peer never panic, never allocate without bound, and are never sent on invalid.
//!
//! These tests check the [`properties`] with generated input. The fuzz targets in `fuzz/` check the
//! same properties with input from a fuzzer.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../alloc/counting.rs"]
mod counting;
mod generated;
mod properties;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[test]
fn the_allocation_check_fails_beyond_the_bound() {
    let (kept, requested) = counting::requested(|| (vec![0u8; 100], drop(vec![0u8; 1_000])));
    assert_eq!((kept.0.len(), requested), (100, 1_100));
    assert!(std::panic::catch_unwind(|| properties::within(10, 8, || vec![0u8; 49])).is_err());
}
