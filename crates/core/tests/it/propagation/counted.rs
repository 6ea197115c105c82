//! Malformed headers are dropped and counted by kind. Valid and absent headers are not counted.

use http::{HeaderMap, HeaderName, HeaderValue};
use throughline_core::propagation::deadline::{self, TimeoutHeader};
use throughline_core::propagation::{Counted, Dropped, Format, message, values};
use throughline_core::{Codec, Context, Key, Propagator};

static SHARD: Key<u8> = Key::header("x-shard", Codec::text());
static TENANT: Key<u64> = Key::baggage("tenant");

/// Extracts everything from a request, and returns the counts of dropped headers.
fn dropped(lines: &[(&'static str, &str)]) -> [u64; 5] {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let carrier = Counted::new(&headers);
    let all = [Format::TraceContext, Format::Baggage, Format::B3, Format::Jaeger, Format::XRay];
    let ctx = Propagator::new(all).extract(&Context::background(), &carrier);
    let _ = values::extract(&ctx, &[&SHARD, &TENANT], &carrier);
    let timeouts = [
        TimeoutHeader::GrpcTimeout,
        TimeoutHeader::ConnectTimeoutMs,
        TimeoutHeader::XEnvoyExpectedRqTimeoutMs,
        TimeoutHeader::RequestTimeout,
    ];
    deadline::extract_shortest(&timeouts, &carrier);
    message::extract(&carrier);
    let Dropped { spans, trace_states, baggage_members, deadlines, values, .. } = carrier.dropped();
    [spans, trace_states, baggage_members, deadlines, values]
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn valid_and_absent_headers_are_not_counted() {
    assert_eq!(dropped(&[]), [0; 5]);
    assert_eq!(
        dropped(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("baggage", "k=v,what is this,tenant=7"),
            ("grpc-timeout", "1S"),
            ("x-envoy-expected-rq-timeout-ms", "0"),
            ("creation-time", "1"),
            ("x-shard", "3"),
        ]),
        [0; 5]
    );
    assert_eq!(
        dropped(&[("x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793")]),
        [0; 5],
        "a load balancer's"
    );
    assert_eq!(dropped(&[("x-b3-sampled", "0")]), [0; 5]);
}

#[test]
fn malformed_headers_are_counted_by_kind() {
    assert_eq!(dropped(&[("traceparent", "00-0-0-0"), ("tracestate", "a=1,b")]), [1, 0, 0, 0, 0]);
    assert_eq!(dropped(&[("traceparent", PARENT), ("traceparent", PARENT)]), [1, 0, 0, 0, 0], "sent twice");
    assert_eq!(dropped(&[("traceparent", PARENT), ("tracestate", "a=1,b")]), [0, 1, 0, 0, 0]);
    assert_eq!(dropped(&[("baggage", "a=1,b=\u{e9}"), ("baggage", "\u{e9}")]), [0, 0, 2, 0, 0]);
    assert_eq!(
        dropped(&[("b3", "x"), ("x-b3-traceid", "y"), ("uber-trace-id", ""), ("x-amzn-trace-id", "Root=1")]),
        [4, 0, 0, 0, 0]
    );
    assert_eq!(
        dropped(&[
            ("grpc-timeout", "soon"),
            ("grpc-timeout", "1S"),
            ("connect-timeout-ms", "-1"),
            ("request-timeout", "1s"),
            ("creation-time", "today"),
        ]),
        [0, 0, 0, 4, 0]
    );
    assert_eq!(
        dropped(&[("baggage", "tenant=abc,other=abc")]),
        [0, 0, 1, 0, 0],
        "what a key that is listed can't read"
    );
    let b3 = [("b3", "x"), ("x-b3-traceid", "y")];
    let headers: HeaderMap =
        b3.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
    let carrier = Counted::new(&headers);
    assert_eq!(Propagator::new([Format::B3, Format::B3Multi]).extract_span_context(&carrier), None);
    assert_eq!(carrier.dropped().spans, 2, "a header counts once, even if several formats read it");
    assert_eq!(dropped(&[("x-shard", "the third"), ("throughline-principal", "%00")]), [0, 0, 0, 0, 2]);
}
