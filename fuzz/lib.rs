//! The properties that the fuzz targets assert: those of the tests, and a bound on what is allocated, which the tests of the wire have, too.

#![allow(clippy::unwrap_used)]

#[path = "../crates/core/tests/alloc/counting.rs"]
mod counting;
#[path = "../tests/it/error/properties.rs"]
mod error;
#[path = "../crates/core/tests/wire/properties.rs"]
pub mod wire;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// What a peer's errors may allocate: a tree of JSON has 32 bytes a value, which may be written in 2.
pub mod errors {
    use super::{counting, error};

    fn within(data: &[u8], property: impl FnOnce(&[u8])) {
        let ((), bytes) = counting::requested(|| property(data));
        assert!(bytes <= 1_000 * data.len() + 64 * 1024, "{bytes} bytes allocated for {}", data.len());
    }

    pub fn problem(data: &[u8]) {
        within(data, error::problem);
    }

    pub fn grpc_details(data: &[u8]) {
        within(data, error::grpc_details);
    }

    pub fn grpc_trailers(data: &[u8]) {
        within(data, error::grpc_trailers);
    }
}
