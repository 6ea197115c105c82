//! The timeout of a call, in the header of its protocol.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName};
use throughline_core::propagation::deadline;

use super::layer::Config;
use crate::middleware::timeout_format::TimeoutFormat;

/// Writes the timeout into the header of the callee's protocol.
///
/// A shorter timeout that the request already has stays.
///
/// Returns the timeout that the callee gets: the time left less the reply reserve, or the shorter
/// one of the request. An external host gets none over plain HTTP.
pub(super) fn inject_timeout(
    config: &Config,
    remaining: Option<Duration>,
    is_external: bool,
    headers: &mut HeaderMap,
) -> Result<Option<Duration>, deadline::Expired> {
    let protocol = Protocol::of(headers);
    let is_private = is_external && matches!(protocol, Protocol::Http);
    if is_private {
        let known = [
            &deadline::GRPC_TIMEOUT,
            &deadline::CONNECT_TIMEOUT_MS,
            &deadline::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
            &deadline::REQUEST_TIMEOUT,
        ];
        for name in known.into_iter().chain(config.timeout_header.as_ref().map(|(name, _)| name)) {
            headers.remove(name);
        }
        return Ok(None);
    }
    let (name, format) = match (&protocol, &config.timeout_header) {
        (Protocol::Connect, _) => (&deadline::CONNECT_TIMEOUT_MS, TimeoutFormat::Millis),
        (Protocol::Http, Some((name, format))) => (name, *format),
        _ => (&deadline::GRPC_TIMEOUT, TimeoutFormat::Grpc),
    };
    let requested = format.extract(name, headers);
    let Some(remaining) = remaining else { return Ok(requested) };
    let timeout = remaining.saturating_sub(config.reserve.of(remaining));
    if requested.is_some_and(|requested| requested <= timeout) {
        // The request already carries a shorter timeout; keep it.
        return Ok(requested);
    }
    format.inject(name, remaining, &config.reserve, headers)?;
    Ok(Some(timeout))
}

/// The protocol of a call, on top of HTTP.
enum Protocol {
    Grpc,
    Connect,
    Http,
}

impl Protocol {
    fn of(headers: &HeaderMap) -> Self {
        // Connect protocol, "Unary-Request": a unary call has a version header, a stream has a
        // media type of its own.
        static CONNECT_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
        let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |media_type| media_type.as_bytes());
        // This matches gRPC-Web, too.
        if media_type.starts_with(b"application/grpc") {
            Protocol::Grpc
        } else if media_type.starts_with(b"application/connect+") || headers.contains_key(&CONNECT_PROTOCOL_VERSION) {
            Protocol::Connect
        } else {
            Protocol::Http
        }
    }
}
