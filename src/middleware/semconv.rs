//! Attributes of spans (OpenTelemetry semantic conventions 1.45, "HTTP spans" and "RPC spans").

use std::borrow::Cow;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use throughline_core::Span;
use throughline_core::trace::{SpanBuilder, Value};

pub(super) use crate::url::redacted_with;

/// The names that are ours.
pub(super) const REMAINING_MS: &str = "throughline.deadline.remaining_ms";
/// Of an error that became a response; for a 4xx, which is no error of the span, with its message.
pub(super) const ERROR_CODE: &str = "throughline.error.code";
pub(super) const ERROR_MESSAGE: &str = "throughline.error.message";
pub(super) const ERROR_ORIGIN: &str = "throughline.error.origin";
/// Why a request was answered without its handler, or a call not sent.
pub(super) const SHED: &str = "throughline.shed";

pub(super) const ERROR_TYPE: &str = "error.type";
/// The name of gRPC's status, from headers or trailers.
pub(super) const RPC_STATUS_CODE: &str = "rpc.status_code";
pub(super) const RPC_METHOD: &str = "rpc.method";

/// Longer texts of a peer's are cut off.
const MAX_TEXT: usize = 256;

/// A time in milliseconds, with three decimals.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

/// The method as names and attributes show it: one that is not known could be anything.
pub(super) fn method(method: &Method) -> &'static str {
    const KNOWN: [(Method, &str); 9] = [
        (Method::GET, "GET"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::DELETE, "DELETE"),
        (Method::PATCH, "PATCH"),
        (Method::HEAD, "HEAD"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::CONNECT, "CONNECT"),
        (Method::TRACE, "TRACE"),
    ];
    KNOWN.iter().find(|(known, _)| known == method).map_or("_OTHER", |(_, name)| name)
}

pub(super) fn with_method<'a>(span: SpanBuilder<'a>, sent: &Method) -> SpanBuilder<'a> {
    let name = method(sent);
    let span = span.attribute("http.request.method", name);
    if name == "_OTHER" { span.attribute("http.request.method_original", cut(sent.as_str())) } else { span }
}

/// What a request calls by gRPC: `package.Service/Method`.
pub(super) fn rpc_method(uri: &Uri) -> String {
    cut(uri.path().strip_prefix('/').unwrap_or(uri.path()))
}

pub(super) fn with_rpc<'a>(span: SpanBuilder<'a>, uri: &Uri) -> SpanBuilder<'a> {
    span.attribute("rpc.system.name", "grpc").attribute(RPC_METHOD, rpc_method(uri))
}

/// Of a method that the server does not know, as anybody can make up names.
pub(super) fn set_unknown_rpc(span: &Span, uri: &Uri) {
    span.set_name("grpc");
    span.set_attribute(RPC_METHOD, "_OTHER");
    span.set_attribute_with("rpc.method_original", || rpc_method(uri));
}

pub(super) fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// `server.address` and `server.port`, as the client named them; a port that it left out is its scheme's.
pub(super) fn with_server<'a>(mut span: SpanBuilder<'a>, uri: &Uri, headers: &HeaderMap) -> SpanBuilder<'a> {
    let named = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    let Some(authority) = uri.authority().cloned().or(named) else { return span };
    let host = authority.host();
    // The brackets of an IPv6 address belong to the URL.
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    span = span.attribute("server.address", cut(address));
    let of_scheme = || match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    match authority.port_u16().or_else(of_scheme) {
        Some(port) => span.attribute("server.port", port),
        None => span,
    }
}

pub(super) fn user_agent(headers: &HeaderMap) -> Option<String> {
    headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).map(cut)
}

pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The status as `error.type` has it.
pub(super) fn error_type(status: StatusCode) -> Value {
    Value::Str(Cow::Owned(status.as_str().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millis_have_three_decimals() {
        for (time, shown) in
            [(1_804_342_919, "1804.342"), (100_000, "0.1"), (999, "0"), (u64::MAX, "18446744073709.55")]
        {
            assert_eq!(millis(Duration::from_nanos(time)).to_string(), shown);
        }
    }

    #[test]
    fn an_unknown_method_is_other() {
        assert_eq!(method(&Method::PATCH), "PATCH");
        assert_eq!(method(&Method::from_bytes(b"BREW").expect("a token")), "_OTHER");
    }
}
