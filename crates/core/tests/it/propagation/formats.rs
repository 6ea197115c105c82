//! B3, Jaeger and X-Ray: the vectors of their specifications. Then the choice between all formats.

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use throughline_core::propagation::b3::Sampling;
use throughline_core::propagation::{Counted, Format, b3, jaeger, xray};
use throughline_core::{Baggage, Context, Propagator, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

pub(super) const LONG: &str = "80f198ee56343ba864fe8b2a57d3eff7";
pub(super) const SHORT: &str = "64fe8b2a57d3eff7";
pub(super) const SPAN: &str = "e457b5a2e4d86bd1";
pub(super) const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub(super) fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let line =
        |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    lines.iter().map(line).collect()
}

/// Returns the trace id, the span id, and whether the span is sampled.
pub(super) fn parts(span: SpanContext) -> (String, String, bool) {
    assert!(span.is_remote() && span.trace_state().is_empty());
    (span.trace_id().to_string(), span.span_id().to_string(), span.is_sampled())
}

pub(super) fn expected(trace_id: &str, sampled: bool) -> (String, String, bool) {
    (format!("{trace_id:0>32}"), SPAN.to_owned(), sampled)
}

fn single(line: &str) -> Option<b3::Received> {
    b3::extract(&headers(&[("b3", line)]))
}

#[test]
fn b3_in_one_header_is_parsed() {
    let cases = [
        (format!("{LONG}-{SPAN}-1-05e3ac9a4f6e3b90"), LONG, Sampling::Accepted),
        (format!("{LONG}-{SPAN}-0"), LONG, Sampling::Denied),
        (format!("{SHORT}-{SPAN}-d"), SHORT, Sampling::Debug),
        (format!(" {SHORT}-{SPAN}\t"), SHORT, Sampling::Deferred),
    ];
    for (line, trace_id, sampling) in cases {
        let received = single(&line).expect(&line);
        assert_eq!(received.sampling, sampling, "{line}");
        let sampled = matches!(sampling, Sampling::Accepted | Sampling::Debug);
        assert_eq!(parts(received.span.unwrap()), expected(trace_id, sampled), "{line}");
    }
    for (line, sampling) in [("0", Sampling::Denied), ("1", Sampling::Accepted), ("d", Sampling::Debug)] {
        let received = single(line).unwrap();
        assert_eq!((received.span, received.sampling), (None, sampling));
    }
}

#[test]
fn invalid_b3_is_absent() {
    let zeros = "0".repeat(32);
    for line in [
        "",
        "2",
        "true",
        "-",
        LONG,
        &format!("{LONG}-"),
        &format!("{LONG}-{SPAN}-"),
        &format!("{LONG}-{SPAN}-2"),
        &format!("{LONG}-{SPAN}-1-"),
        &format!("{LONG}-{SPAN}-1-05e3"),
        &format!("{LONG}-{SPAN}-1-05e3ac9a4f6e3b90-"),
        &format!("{}-{SPAN}-1", LONG.to_uppercase()),
        &format!("{zeros}-{SPAN}-1"),
        &format!("{LONG}-0000000000000000-1"),
        &format!("{}-{SPAN}-1", &LONG[1..]),
        &format!("0{LONG}-{SPAN}-1"),
        &format!("{LONG}-{}-1", &SPAN[1..]),
        &format!("{LONG}_{SPAN}_1"),
    ] {
        assert_eq!(single(line), None, "{line}");
    }
    let mut twice = headers(&[("b3", "1")]);
    twice.append("b3", HeaderValue::from_static("1"));
    assert_eq!(b3::extract(&twice), None);
}

#[test]
fn b3_in_several_headers_is_read_if_the_single_header_is_absent_or_invalid() {
    let ids = [("x-b3-traceid", SHORT), ("x-b3-spanid", SPAN)];
    let with = |more: &[(&'static str, &str)]| {
        let received = b3::extract(&headers(&[&ids[..], more].concat())).unwrap();
        assert_eq!(parts(received.span.unwrap()).0, format!("{SHORT:0>32}"));
        received.sampling
    };
    assert_eq!(with(&[]), Sampling::Deferred);
    assert_eq!(with(&[("x-b3-sampled", "1"), ("x-b3-parentspanid", "05e3ac9a4f6e3b90")]), Sampling::Accepted);
    assert_eq!(with(&[("x-b3-sampled", "true")]), Sampling::Accepted);
    assert_eq!(with(&[("x-b3-sampled", "0"), ("x-b3-flags", "0")]), Sampling::Denied);
    assert_eq!(with(&[("x-b3-sampled", "false")]), Sampling::Denied);
    assert_eq!(with(&[("x-b3-flags", "perhaps")]), Sampling::Deferred, "flags other than 1 can be ignored");
    assert_eq!(with(&[("x-b3-sampled", "0"), ("x-b3-flags", "1")]), Sampling::Debug);
    assert_eq!(with(&[("b3", "garbage"), ("x-b3-sampled", "1")]), Sampling::Accepted);

    let first = b3::extract(&headers(&[("b3", &format!("{LONG}-{SPAN}-1")), ids[0], ids[1]])).unwrap();
    assert_eq!(parts(first.span.unwrap()), expected(LONG, true), "single first");
    let denied = b3::extract(&headers(&[("x-b3-sampled", "0")])).unwrap();
    assert_eq!((denied.span, denied.sampling), (None, Sampling::Denied));
    for lines in [&ids[..1], &ids[1..], &[("x-b3-traceid", "x"), ids[1]], &[("x-b3-flags", "0")], &[]] {
        assert_eq!(b3::extract(&headers(lines)), None, "{lines:?}");
    }
}

#[test]
fn malformed_b3_is_absent_and_counted_in_either_style() {
    let ids = [("x-b3-traceid", LONG), ("x-b3-spanid", SPAN)];
    let counted = |lines: &[(&'static str, &str)]| {
        let headers = headers(lines);
        let carrier = Counted::new(&headers);
        (b3::extract(&carrier), carrier.dropped().spans)
    };
    for state in ["10", "d", "2", "perhaps", "TRUE", ""] {
        assert_eq!(counted(&[ids[0], ids[1], ("x-b3-sampled", state)]), (None, 1), "{state:?}");
        assert_eq!(counted(&[ids[0], ids[1], ("x-b3-sampled", state), ("x-b3-flags", "1")]), (None, 1), "{state:?}");
        assert_eq!(counted(&[("x-b3-sampled", state)]), (None, 1), "{state:?} alone");
    }
    for state in ["10", "2", "perhaps", "TRUE", ""] {
        assert_eq!(counted(&[("b3", &format!("{LONG}-{SPAN}-{state}"))]), (None, 1), "{state:?}");
    }
    for parent in ["", "05e3", "0000000000000000", "05E3AC9A4F6E3B90"] {
        assert_eq!(counted(&[ids[0], ids[1], ("x-b3-parentspanid", parent)]), (None, 1), "{parent:?}");
        assert_eq!(counted(&[("b3", &format!("{LONG}-{SPAN}-1-{parent}"))]), (None, 1), "{parent:?}");
    }
    let mut twice = headers(&ids);
    twice.append("x-b3-sampled", HeaderValue::from_static("1"));
    twice.append("x-b3-sampled", HeaderValue::from_static("1"));
    assert_eq!(b3::extract(&twice), None);
    let (received, dropped) = counted(&[ids[0], ids[1], ("x-b3-sampled", "0"), ("x-b3-flags", "perhaps")]);
    assert_eq!((received.map(|it| it.sampling), dropped), (Some(Sampling::Denied), 0));
}

#[test]
fn jaeger_is_parsed() {
    let read = |line: &str| jaeger::extract(&headers(&[("uber-trace-id", line)]));
    let cases = [
        (format!("{LONG}:{SPAN}:0:1"), LONG, true, false),
        (format!("{LONG}%3A{SPAN}%3a05e3ac9a4f6e3b90%3A03"), LONG, true, true),
        (format!("{SHORT}:{SPAN}:0:0"), SHORT, false, false),
        (format!("1:{SPAN}:0:2"), "1", true, true),
        (format!("1:{SPAN}:0:8"), "1", false, false),
        (format!("1:{SPAN}:z:1"), "1", true, false),
        (format!("1:{SPAN}::1"), "1", true, false),
        (format!("1:{SPAN}:{}:1", "%ff".repeat(300)), "1", true, false),
    ];
    for (line, trace_id, sampled, debug) in cases {
        let received = read(&line).expect(&line);
        assert_eq!((parts(received.span), received.debug), (expected(trace_id, sampled), debug), "{line}");
    }
    for line in [
        "",
        ":::",
        "0:1:0:1",
        "1:0:0:1",
        "1:1:0",
        "1:1:0:",
        "1:1:0:1:",
        "1:1:0:+1",
        "1:1:0:100",
        "1:1:0:g",
        "x:1:0:1",
        "1:A:0:1",
        &format!("0{LONG}:1:0:1"),
        &format!("1:0{SPAN}:0:1"),
        &"%31".repeat(100),
        &format!("1:{SPAN}:{}:1", "z".repeat(8_192)),
    ] {
        assert_eq!(read(line), None, "{line}");
    }
}

#[test]
fn xray_is_parsed() {
    let read = |line: &str| xray::extract(&headers(&[("x-amzn-trace-id", line)]));
    let (root, other) =
        ("Root=1-80f198ee-56343ba864fe8b2a57d3eff7", "Self=1-67891234-12456789abcdef012345678;Lineage=a:1|b:2");
    for (line, sampled) in [
        (format!("{root};Parent={SPAN};Sampled=1"), true),
        (format!("Sampled=0; Parent={SPAN} ;{root}"), false),
        (format!("{other};{root};Parent={SPAN};Sampled=?"), false),
        (format!("{root};Parent={SPAN}"), false),
    ] {
        assert_eq!(read(&line).map(parts), Some(expected(LONG, sampled)), "{line}");
    }
    for line in [
        "",
        root,
        &format!("Parent={SPAN}"),
        &format!("Root=2-80f198ee-56343ba864fe8b2a57d3eff7;Parent={SPAN}"),
        &format!("Root=1-80f198ee556343ba864fe8b2a57d3eff7;Parent={SPAN}"),
        &format!("Root=1-80F198ee-56343ba864fe8b2a57d3eff7;Parent={SPAN}"),
        &format!("Root=1-00000000-000000000000000000000000;Parent={SPAN}"),
        &format!("{root}0;Parent={SPAN}"),
        &format!("{root};Parent=0000000000000000"),
        &format!("{root};Parent={SPAN}1"),
        &format!("{root};Parent={SPAN};Sampled=10"),
        &format!("{root};Parent={SPAN};Sampled="),
    ] {
        assert_eq!(read(line), None, "{line}");
    }
}

pub(super) fn span(sampled: bool) -> SpanContext {
    let flags = TraceFlags::NONE.with_sampled(sampled);
    SpanContext::new(LONG.parse().unwrap(), SPAN.parse().unwrap(), flags, TraceState::EMPTY, false)
}

#[test]
fn each_format_is_written_and_replaces_existing_values() {
    let mut sent = headers(&[("x-b3-flags", "1"), ("x-b3-parentspanid", "1"), ("b3", "x"), ("uber-trace-id", "x")]);
    b3::inject(&span(true), false, &mut sent);
    assert_eq!(sent["b3"], format!("{LONG}-{SPAN}-1"));
    b3::inject_multi(&span(false), false, &mut sent);
    let multi: Vec<_> = ["x-b3-traceid", "x-b3-spanid", "x-b3-sampled"].map(|name| sent[name].to_str().unwrap()).into();
    assert_eq!(multi, [LONG, SPAN, "0"]);
    assert!(!sent.contains_key("x-b3-flags") && !sent.contains_key("x-b3-parentspanid"));
    b3::inject_multi(&span(true), true, &mut sent);
    assert!(sent["x-b3-flags"] == "1" && !sent.contains_key("x-b3-sampled"));
    jaeger::inject(&span(true), false, &mut sent);
    assert_eq!(sent["uber-trace-id"], format!("{LONG}:{SPAN}:0:1"));
    jaeger::inject(&span(true), true, &mut sent);
    assert_eq!(sent["uber-trace-id"], format!("{LONG}:{SPAN}:0:3"));
    xray::inject(&span(false), &mut sent);
    assert_eq!(sent["x-amzn-trace-id"], format!("Root=1-80f198ee-56343ba864fe8b2a57d3eff7;Parent={SPAN};Sampled=0"));
}

#[test]
fn otel_propagators_names_the_formats() {
    let of = |names: &str| Propagator::from_names(names, |name| panic!("{name} is known"));
    assert_eq!(of("").formats().collect::<Vec<_>>(), [Format::TraceContext, Format::Baggage]);
    let all = [Format::XRay, Format::Jaeger, Format::B3Multi, Format::B3, Format::Baggage, Format::TraceContext];
    assert_eq!(of("xray,jaeger,b3multi, B3 ,xray,,baggage,TraceContext").formats().collect::<Vec<_>>(), all);
    assert_eq!(of("none"), Propagator::NONE);
    assert_eq!(of("none,b3"), Propagator::new([Format::B3]));
    let mut unknown = Vec::new();
    assert_eq!(Propagator::from_names("zipkin,b4", |name| unknown.push(name.to_owned())), Propagator::default());
    assert_eq!(unknown, ["zipkin", "b4"], "unknown names are reported and ignored");
}

#[test]
fn the_last_format_with_a_span_counts() {
    let request = headers(&[("traceparent", W3C), ("b3", &format!("{LONG}-{SPAN}-0")), ("baggage", "k=v")]);
    let trace_id = |formats: &[Format]| {
        let ctx = Propagator::new(formats.iter().copied()).extract(&Context::background(), &request);
        ctx.span_context().map(|span| span.trace_id().to_string())
    };
    let w3c = Some(W3C[3..35].to_owned());
    assert_eq!(trace_id(&[Format::B3, Format::TraceContext]), w3c);
    assert_eq!(trace_id(&[Format::TraceContext, Format::B3]), Some(LONG.to_owned()));
    assert_eq!(trace_id(&[Format::TraceContext, Format::Jaeger, Format::XRay]), w3c, "the last format with a span");
    assert_eq!(trace_id(&[Format::Baggage]), None);
}

#[test]
fn inject_does_not_change_headers_that_the_context_has_no_value_for() {
    let propagator = Propagator::default();
    let ctx = Context::background().with_baggage(Baggage::from_lines([b"base=1".as_slice()]));
    assert_eq!(propagator.extract(&ctx, &HeaderMap::new()).baggage().as_str(), "base=1");
    let mut sent = headers(&[("traceparent", "theirs"), ("baggage", "theirs=1")]);
    propagator.inject(&Context::background(), &mut sent);
    assert_eq!((&sent["traceparent"], &sent["baggage"]), (&"theirs".parse().unwrap(), &"theirs=1".parse().unwrap()));
    Propagator::NONE.inject(&ctx, &mut sent);
    assert_eq!(sent["baggage"], "theirs=1");
}

proptest! {
    #[test]
    fn every_format_reads_what_it_writes(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool, at in 0usize..6) {
        let (Some(trace_id), Some(span_id)) = (TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id)) else { return Ok(()) };
        let all = [Format::TraceContext, Format::Baggage, Format::B3, Format::B3Multi, Format::Jaeger, Format::XRay];
        let propagator = Propagator::new([all[at], Format::Baggage]);
        let span = SpanContext::new(trace_id, span_id, TraceFlags::NONE.with_sampled(sampled), TraceState::EMPTY, true);
        let ctx = Context::background().with_remote_parent(span).with_baggage(Baggage::from_lines([b"k=v".as_slice()]));
        let mut sent = HeaderMap::new();
        propagator.inject(&ctx, &mut sent);
        for name in sent.keys() {
            prop_assert!(propagator.fields().any(|field| field == name));
        }
        let read = propagator.extract(&Context::background(), &sent);
        prop_assert_eq!(read.baggage(), ctx.baggage());
        let expected = ctx.span_context().filter(|_| all[at] != Format::Baggage);
        prop_assert_eq!(read.span_context(), expected);
    }
}
