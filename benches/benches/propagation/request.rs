//! Injects into requests.

use criterion::{BatchSize, Bencher};
use http::HeaderMap;

use crate::headers::headers;

/// Times `inject` alone, each time into a request without the injected headers.
pub(crate) fn into_fresh(bencher: &mut Bencher<'_>, mut inject: impl FnMut(&mut HeaderMap)) {
    // As many maps at a time as fit into the cache.
    bencher.iter_batched_ref(|| headers(&[]), |map| inject(map), BatchSize::NumIterations(32));
}
