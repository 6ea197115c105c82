//! The request headers that benchmarks read and write, also used by `benches/instructions`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub(crate) const TRACESTATE: &str = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE,dd=s:2;o:rum;t.dm:-4;t.usr.id:baz64";

/// The other headers of a call between two services through a proxy.
const OTHERS: [(&str, &str); 11] = [
    ("host", "limits.bank.internal:8443"),
    ("user-agent", "card-api/4.11.2"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, br"),
    ("content-type", "application/json"),
    ("content-length", "214"),
    ("authorization", "Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjYXJkLWFwaSJ9.c2lnbmF0dXJl"),
    ("x-request-id", "6f1c2b1e-0f4b-4b0e-9e5e-3f6f2f9d7a10"),
    ("x-forwarded-for", "10.20.30.40"),
    ("x-forwarded-proto", "https"),
    ("via", "1.1 gateway"),
];

/// A map as a server makes it: spare capacity, values that share the read buffer.
pub(crate) fn headers(more: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(24);
    for (name, value) in OTHERS.iter().chain(more) {
        map.append(HeaderName::from_static(name), received(value));
    }
    map
}

/// A value as a server has it: a slice of a shared buffer.
fn received(value: &str) -> HeaderValue {
    let buffer = Bytes::from([b"\r\n".as_slice(), value.as_bytes(), b"\r\n"].concat());
    HeaderValue::from_maybe_shared(buffer.slice(2..2 + value.len())).expect("a header value")
}
