//! Span attributes (OpenTelemetry semantic conventions 1.45, "HTTP spans" and "RPC spans").

use std::borrow::Cow;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use throughline_core::Span;
use throughline_core::trace::SpanBuilder;

use crate::error::{Code, Error};
pub(super) use crate::url::redacted_with;

// Names that the conventions do not define begin with `throughline.`.
/// The time left until the deadline, in milliseconds.
pub(super) const REMAINING_MS: &str = "throughline.deadline.remaining_ms";
/// The code of an error that became a response.
const ERROR_CODE: &str = "throughline.error.code";
/// The message of a 4xx.
///
/// A 4xx is not an error on the span, so the span's status cannot hold it.
pub(super) const ERROR_MESSAGE: &str = "throughline.error.message";
const ERROR_ORIGIN: &str = "throughline.error.origin";
/// Why a handler was not called, or a call was not sent.
pub(super) const SHED: &str = "throughline.shed";

pub(super) const ERROR_TYPE: &str = "error.type";
/// The name of the gRPC status in headers or trailers.
const RPC_STATUS_CODE: &str = "rpc.status_code";
pub(super) const RPC_METHOD: &str = "rpc.method";

/// The most bytes that an attribute holds of a text from a peer.
const MAX_TEXT: usize = 256;

/// Converts a time to milliseconds, with three decimals.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

/// The method for span names and attributes: `_OTHER` for an unknown one.
///
/// A peer can make up any number of methods.
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

/// The name of an HTTP span. An unknown method is `HTTP`.
pub(super) fn span_name(method: &'static str, route: Option<&str>) -> Cow<'static, str> {
    let method = if method == "_OTHER" { "HTTP" } else { method };
    match route {
        Some(route) => format!("{method} {route}").into(),
        None => method.into(),
    }
}

/// The full name of a gRPC method: `package.Service/Method`.
pub(super) fn rpc_method(uri: &Uri) -> String {
    cut(uri.path().strip_prefix('/').unwrap_or(uri.path()))
}

pub(super) fn with_rpc<'a>(span: SpanBuilder<'a>, uri: &Uri) -> SpanBuilder<'a> {
    span.attribute("rpc.system.name", "grpc").attribute(RPC_METHOD, rpc_method(uri))
}

/// Marks a gRPC method that the server does not know.
///
/// A client can make up any name.
pub(super) fn set_unknown_rpc(span: &Span, uri: &Uri) {
    span.set_name("grpc");
    span.set_attribute(RPC_METHOD, "_OTHER");
    span.set_attribute_with("rpc.method_original", || rpc_method(uri));
}

/// Records the status of a gRPC response. `None`: success.
pub(super) fn record_rpc_status(span: &Span, code: Option<Code>) {
    span.set_attribute(RPC_STATUS_CODE, code.map_or("OK", Code::as_str));
}

/// Records the code of an error, and the service in which it began.
pub(super) fn record_error_code(span: &Span, error: &Error) {
    if let Some(origin) = error.origin() {
        span.set_attribute(ERROR_ORIGIN, origin.to_owned());
    }
    span.set_attribute(ERROR_CODE, error.code().as_str());
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

/// Adds `server.address` and `server.port`, as the client named them.
///
/// A missing port is the default port of the scheme.
pub(super) fn with_server<'a>(mut span: SpanBuilder<'a>, uri: &Uri, headers: &HeaderMap) -> SpanBuilder<'a> {
    let named = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    let Some(authority) = uri.authority().cloned().or(named) else { return span };
    let host = authority.host();
    // The brackets around an IPv6 address are part of the URL, not of the address.
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    span = span.attribute("server.address", cut(address));
    let default_port = || match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    match authority.port_u16().or_else(default_port) {
        Some(port) => span.attribute("server.port", port),
        None => span,
    }
}

pub(super) fn user_agent(headers: &HeaderMap) -> Option<String> {
    headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).map(cut)
}

/// The first [`MAX_TEXT`] bytes of a text, or fewer: a character is never split.
pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The status as a value of `error.type`.
pub(super) fn error_type(status: StatusCode) -> Cow<'static, str> {
    Cow::Owned(status.as_str().to_owned())
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
