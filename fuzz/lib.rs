//! The properties that the fuzz targets assert.
//!
//! They are the properties of the tests. For errors there is also a bound on allocated bytes. The
//! wire properties already have one.

#![allow(clippy::unwrap_used)]

#[path = "../crates/core/tests/alloc/counting.rs"]
mod counting;
#[path = "../tests/it/error/properties.rs"]
mod error;
#[path = "../crates/core/tests/wire/properties.rs"]
pub mod wire;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// The parsers of errors from a peer, with a bound on allocated bytes.
///
/// The bound is large because a JSON value that is written in 2 bytes takes 32 bytes in memory.
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
