//! Edge cases: how this library and the peers read unusual and invalid headers.
//!
//! The versions of the peers are pinned. `docs/comparison.md` lists the differences.

use throughline::propagation::Format::{self, B3, B3Multi, Baggage, Jaeger, TraceContext, XRay};

use super::Peer;
use super::propagators::extract;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// Header lines, with `T` and `S` for the ids, and the result of every implementation.
const SAME: &[(Format, &[&str], &str)] = &[
    (TraceContext, &["traceparent: 00-T-S-01 "], "T/S/true"),
    (TraceContext, &["traceparent:00-T-S-01-"], "nothing"),
    (TraceContext, &["traceparent:cc-T-S-01-x"], "T/S/true"),
    (TraceContext, &["traceparent:cc-T-S-01x"], "nothing"),
    (TraceContext, &["traceparent:ff-T-S-01"], "nothing"),
    (TraceContext, &["traceparent:00-T-0000000000000000-01"], "nothing"),
    (TraceContext, &["traceparent:00-T-S-01", "tracestate:a=1", "tracestate:b=2"], "T/S/true a=1 b=2"),
    (TraceContext, &["traceparent:00-T-S-01", "tracestate:a=1,,b=2 "], "T/S/true a=1 b=2"),
    (TraceContext, &["traceparent:00-T-S-01", "tracestate:a= 1"], "T/S/true a= 1"),
    (TraceContext, &["tracestate:a=1"], "nothing"),
    (Baggage, &["baggage:a=b=c"], "a=\"b=c\""),
    (Baggage, &["baggage:a,b=1"], "b=\"1\""),
    (Baggage, &["baggage:a=%C3%BC%2C%20%22"], "a=\"ü, \\\"\""),
    (B3, &["b3:T-S-d"], "T/S/true"),
    (B3, &["b3:0"], "nothing"),
    (B3, &["b3:T-S-1-05e3ac9a4f6e3b90"], "T/S/true"),
    (B3, &["b3:a3ce929d0e0e4736-S-1"], "0000000000000000a3ce929d0e0e4736/S/true"),
    (B3, &["b3:00000000000000000000000000000000-S-1"], "nothing"),
    (B3Multi, &["X-B3-TraceId:T", "X-B3-SpanId:S", "X-B3-Sampled:true"], "T/S/true"),
    (B3Multi, &["x-b3-traceid:T", "x-b3-spanid:S", "x-b3-flags:1"], "T/S/true"),
    (Jaeger, &["uber-trace-id:abc:17:0:1"], "00000000000000000000000000000abc/0000000000000017/true"),
    (Jaeger, &["uber-trace-id:T:S:0"], "nothing"),
    (XRay, &["x-amzn-trace-id:Sampled=1; Parent=S ;Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Self=x"], "T/S/true"),
    (XRay, &["x-amzn-trace-id:Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Sampled=1"], "nothing"),
];

/// The name of the case, the lines, and the results of this library, OpenTelemetry-Python and
/// OpenTelemetry-JS.
type Difference = (&'static str, Format, &'static [&'static str], [&'static str; 3]);

const DIFFERENT: &[Difference] = &[
    (
        "traceparent between several blanks",
        TraceContext,
        &["traceparent: \t00-T-S-01"],
        ["T/S/true", "T/S/true", "nothing"],
    ),
    (
        "traceparent twice",
        TraceContext,
        &["traceparent:00-T-S-01", "traceparent:00-T-S-01"],
        ["nothing", "T/S/true", "T/S/true"],
    ),
    (
        "a tracestate key twice",
        TraceContext,
        &["traceparent:00-T-S-01", "tracestate:a=1,a=2,b=3"],
        ["T/S/true a=1 a=2 b=3", "T/S/true", "T/S/true a=2 b=3"],
    ),
    (
        "tracestate keys of Level 2",
        TraceContext,
        &["traceparent:00-T-S-01", "tracestate:a@b@c=1,0a=2"],
        ["T/S/true a@b@c=1 0a=2", "T/S/true", "T/S/true"],
    ),
    (
        "one bad tracestate member",
        TraceContext,
        &["traceparent:00-T-S-01", "tracestate:a=1,B=2"],
        ["T/S/true", "T/S/true", "T/S/true a=1"],
    ),
    (
        "baggage in two lines",
        Baggage,
        &["baggage:a=1", "baggage:b=2"],
        ["a=\"1\" b=\"2\"", "a=\"1\"", "a=\"1\" b=\"2\""],
    ),
    ("a plus in baggage", Baggage, &["baggage:a=x+y"], ["a=\"x+y\"", "a=\"x y\"", "a=\"x+y\""]),
    ("baggage properties", Baggage, &["baggage:a=1;p=2;q"], ["a=\"1\";p=2;q", "a=\"1;p=2;q\"", "a=\"1\";p=2;q"]),
    (
        "an encoded comma in a property",
        Baggage,
        &["baggage:a=1;p=%2Cb%3D2"],
        ["a=\"1\";p=,b=2", "a=\"1;p=,b=2\"", "a=\"1\";p=%2Cb%3D2"],
    ),
    ("encoded blanks", Baggage, &["baggage:a=%20x%20"], ["a=\" x \"", "a=\"x\"", "a=\" x \""]),
    ("an empty baggage value", Baggage, &["baggage:a="], ["a=\"\"", "a=\"\"", "nothing"]),
    ("a percent sign in a baggage key", Baggage, &["baggage:a%20b=1"], ["a%20b=\"1\"", "a b=\"1\"", "a b=\"1\""]),
    ("bytes that are not UTF-8", Baggage, &["baggage:a=x%ff"], ["a=\"x\u{fffd}\"", "a=\"x\u{fffd}\"", "nothing"]),
    ("blanks within a value", Baggage, &["baggage:a=x y,b=1"], ["b=\"1\"", "b=\"1\"", "a=\"x y\" b=\"1\""]),
    ("a baggage key twice", Baggage, &["baggage:a=1,a=2"], ["a=\"1\" a=\"2\"", "a=\"2\"", "a=\"2\""]),
    ("b3 without a decision", B3, &["b3:T-S"], ["T/S/false", "T/S/true", "T/S/false"]),
    ("b3 with an invalid decision", B3, &["b3:T-S-true"], ["nothing", "T/S/true", "T/S/false"]),
    ("b3 in upper case", B3, &["b3:4BF92F3577B34DA6A3CE929D0E0E4736-S-1"], ["nothing", "T/S/true", "nothing"]),
    ("b3 with an invalid parent", B3, &["b3:T-S-1-xyz"], ["nothing", "T/S/true", "T/S/true"]),
    (
        "uber-trace-id with encoded colons",
        Jaeger,
        &["uber-trace-id:T%3AS%3A0%3A1"],
        ["T/S/true", "nothing", "T/S/true"],
    ),
    ("uber-trace-id with debug alone", Jaeger, &["uber-trace-id:T:S:0:2"], ["T/S/true", "T/S/false", "T/S/false"]),
    (
        "uber-trace-id of zeros",
        Jaeger,
        &["uber-trace-id:0:0:0:1"],
        ["nothing", "nothing", "00000000000000000000000000000000/0000000000000000/true"],
    ),
    (
        "X-Ray that asks for a decision",
        XRay,
        &["x-amzn-trace-id:Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=S;Sampled=?"],
        ["T/S/false", "nothing", "nothing"],
    ),
    (
        "X-Ray without a decision",
        XRay,
        &["x-amzn-trace-id:Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=S"],
        ["T/S/false", "T/S/false", "nothing"],
    ),
];

fn headers(lines: &[&str]) -> Vec<(String, String)> {
    let pair = |line: &&str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_owned(), ids(value))
    };
    lines.iter().map(pair).collect()
}

/// Replaces `T` and `S` by the ids where they are whole fields.
fn ids(text: &str) -> String {
    let fields = text.split_inclusive(['-', ':', '/', ';', '=', '%', ' ']);
    let ids = fields.map(|field| match field.trim_end_matches(['-', ':', '/', ';', '=', '%', ' ']) {
        "T" => field.replacen('T', TRACE, 1),
        "S" => field.replacen('S', SPAN, 1),
        // After `%3A`.
        "3AS" => field.replacen('S', SPAN, 1),
        _ => field.to_owned(),
    });
    ids.collect()
}

fn check(implementation: usize, mut extract: impl FnMut(Format, &[(String, String)]) -> String) {
    let same = SAME.iter().map(|(format, lines, expected)| ("", *format, *lines, *expected));
    let different = DIFFERENT.iter();
    let different = different.map(|(name, format, lines, expected)| (*name, *format, *lines, expected[implementation]));
    let mut failures = Vec::new();
    for (name, format, lines, expected) in same.chain(different) {
        let extracted = extract(format, &headers(lines));
        if extracted != ids(expected) {
            failures.push(format!("{name} {lines:?}: {extracted}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn throughline_reads_the_edge_cases_as_listed() {
    check(0, extract);
}

#[test]
fn opentelemetry_python_reads_the_edge_cases_as_listed() {
    if let Some(mut peer) = Peer::python("otel_peer.py") {
        check(1, |format, headers| peer.extract(format, headers));
    }
}

#[test]
fn opentelemetry_js_reads_the_edge_cases_as_listed() {
    if let Some(mut peer) = Peer::node("otel_peer.mjs") {
        check(2, |format, headers| peer.extract(format, headers));
    }
}
