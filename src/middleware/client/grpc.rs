//! gRPC's trailers, before tonic reads them.

use http::HeaderMap;
use http::header::HeaderName;
use tonic::metadata::MetadataMap;

const DETAILS: &str = "grpc-status-details-bin";

/// Takes out details that are no base64: tonic's client panics on them. Like other garbage they are absent, and the status counts.
pub(super) fn drop_unreadable_details(trailers: &mut HeaderMap) {
    let Some(details) = trailers.get(DETAILS) else { return };
    let name = HeaderName::from_static(DETAILS);
    let alone = MetadataMap::from_headers(HeaderMap::from_iter([(name, details.clone())]));
    if alone.get_bin(DETAILS).is_none_or(|details| details.to_bytes().is_err()) {
        trailers.remove(DETAILS);
    }
}
