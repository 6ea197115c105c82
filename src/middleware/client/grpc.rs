//! Checks gRPC trailers before tonic reads them.

use http::HeaderMap;

use crate::middleware::grpc::{DETAILS, decode};

/// Removes details that are not base64: tonic's client panics on them. The status stays.
pub(super) fn drop_unreadable_details(trailers: &mut HeaderMap) {
    if trailers.get(DETAILS).is_some_and(|details| decode(details).is_none()) {
        trailers.remove(DETAILS);
    }
}
