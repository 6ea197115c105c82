//! gRPC's trailers, before tonic reads them.

use http::HeaderMap;

use crate::middleware::grpc::{DETAILS, decode};

/// Takes out details that are no base64: tonic's client panics on them. Like other garbage they are absent, and the status counts.
pub(super) fn drop_unreadable_details(trailers: &mut HeaderMap) {
    if trailers.get(DETAILS).is_some_and(|details| decode(details).is_none()) {
        trailers.remove(DETAILS);
    }
}
