//! Sampling decisions that come without a span, or are left open, and debug.

use http::{HeaderMap, HeaderValue};
use throughline_core::propagation::Format;
use throughline_core::trace::{AlwaysOff, ParentBased, SpanKind, TraceIdRatio, Tracer};
use throughline_core::{Context, Propagator};

use super::formats::{LONG, SHORT, SPAN, W3C, headers};
use crate::memory::Memory;

#[test]
fn a_decision_without_a_span_applies_to_the_new_trace() {
    let both = Propagator::new([Format::TraceContext, Format::B3]);
    let root = Context::background();
    let ctx = both.extract(&root, &headers(&[("b3", "0")]));
    assert!(!ctx.span_context().unwrap().is_sampled());
    assert_eq!(both.extract_span_context(&headers(&[("b3", "0")])), None, "there is no span to link to");
    let ctx = both.extract(&root, &headers(&[("b3", "0"), ("traceparent", W3C)]));
    assert_eq!(ctx.span_context().unwrap().trace_id().to_string(), W3C[3..35], "a span counts before a decision");
    for (line, expected) in
        [(("b3", "1"), "1"), (("b3", "d"), "d"), (("x-b3-sampled", "1"), "1"), (("x-b3-flags", "1"), "d")]
    {
        let (memory, root) = Memory::with_sampler(ParentBased::new(TraceIdRatio::new(0.0)));
        let span = both.extract(&root, &headers(&[line])).span("GET /").start();
        let (mut sent, ids) = (HeaderMap::new(), span.span_context().unwrap().clone());
        both.inject(&span, &mut sent);
        span.end();
        assert_eq!(memory.count(), 1, "{line:?}");
        assert_eq!(sent["b3"], format!("{}-{}-{expected}", ids.trace_id(), ids.span_id()));
        assert!(!ids.flags().is_random(), "the random flag is not set by default");
    }
}

/// openzipkin/b3-propagation, "Sampling State": "Absent means defer the decision to the receiver of
/// this header."
#[test]
fn a_decision_that_b3_leaves_open_is_made_by_the_sampler_or_passed_on_open() {
    let formats = [Format::Jaeger, Format::B3, Format::B3Multi];
    let ids = format!("{LONG}-{SPAN}");
    let requests = [headers(&[("b3", &ids)]), headers(&[("x-b3-traceid", LONG), ("x-b3-spanid", SPAN)])];
    for (format, request) in formats[1..].iter().flat_map(|format| requests.iter().map(move |it| (*format, it))) {
        let propagator = Propagator::new([format]);
        for (sampler, recorded) in [(ParentBased::default(), 1), (ParentBased::new(AlwaysOff), 0)] {
            let (memory, root) = Memory::with_sampler(sampler);
            let span = propagator.extract(&root, request).span("GET /").start();
            let mut sent = HeaderMap::new();
            Propagator::new(formats).inject(&span, &mut sent);
            let ids = span.span_context().unwrap().clone();
            span.end();
            assert_eq!((memory.count(), ids.trace_id().to_string().as_str()), (recorded, LONG));
            assert_eq!(sent["b3"], format!("{LONG}-{}-{recorded}", ids.span_id()));
            assert_eq!(sent["x-b3-sampled"], recorded.to_string());
            assert_eq!(sent["uber-trace-id"], format!("{LONG}:{}:0:{recorded}", ids.span_id()));
        }
        let undecided = propagator.extract(&Context::background().with_tracer(&Tracer::noop()), request);
        let server = undecided.span("GET /").kind(SpanKind::Server).start();
        let client = server.span("call").kind(SpanKind::Client).start();
        for ctx in [&undecided, server.context(), client.context()] {
            let mut sent = headers(&[("x-b3-sampled", "1"), ("x-b3-flags", "1")]);
            Propagator::new(formats).inject(ctx, &mut sent);
            assert_eq!(sent["b3"], format!("{LONG}-{}", ctx.span_context().unwrap().span_id()));
            assert!(!sent.contains_key("x-b3-sampled") && !sent.contains_key("x-b3-flags"), "{sent:?}");
        }
    }
}

#[test]
fn a_decision_stays_open_beside_a_traceparent_of_the_same_span() {
    let both = Propagator::new([Format::B3, Format::TraceContext]);
    let passed_on = |b3: &str, traceparent: &str| {
        let request = headers(&[("b3", b3), ("traceparent", traceparent)]);
        let mut sent = HeaderMap::new();
        both.inject(&both.extract(&Context::background(), &request), &mut sent);
        sent["b3"].to_str().unwrap().to_owned()
    };
    let ids = format!("{LONG}-{SPAN}");
    assert_eq!(passed_on(&ids, &format!("00-{ids}-00")), ids);
    assert_eq!(passed_on(&ids, &format!("00-{ids}-01")), format!("{ids}-1"), "the decision is made");
    let below = format!("{LONG}-{SHORT}");
    assert_eq!(passed_on(&ids, &format!("00-{below}-00")), format!("{below}-0"), "a child span makes the decision too");
}

#[test]
fn debug_is_passed_on() {
    let all = Propagator::new([Format::B3, Format::B3Multi, Format::Jaeger]);
    for request in [("b3", format!("{LONG}-{SPAN}-d")), ("uber-trace-id", format!("{LONG}:{SPAN}:0:3"))] {
        let ctx = all.extract(&Context::background(), &headers(&[(request.0, &request.1)]));
        let mut sent = HeaderMap::new();
        all.inject(&ctx, &mut sent);
        assert_eq!(sent["b3"], format!("{LONG}-{SPAN}-d"));
        assert_eq!((&sent["x-b3-flags"], sent.get("x-b3-sampled")), (&HeaderValue::from_static("1"), None));
        assert_eq!(sent["uber-trace-id"], format!("{LONG}:{SPAN}:0:3"));
    }
}

#[test]
fn debug_applies_to_one_trace_and_not_to_a_new_trace_below_it() {
    let all = Propagator::new([Format::B3, Format::B3Multi, Format::Jaeger]);
    let (_, root) = Memory::new();
    for line in
        [("b3", format!("{LONG}-{SPAN}-d")), ("b3", "d".into()), ("uber-trace-id", format!("{LONG}:{SPAN}:0:3"))]
    {
        let request = all.extract(&root, &headers(&[(line.0, &line.1)]));
        let server = request.span("GET /").start();
        for (span, state, flags) in [
            (server.span("below").start(), "d", "3"),
            (server.detach_linked("audit"), "1", "1"),
            (server.span("batch").new_root().start(), "1", "1"),
        ] {
            let mut sent = HeaderMap::new();
            all.inject(&span, &mut sent);
            let ids = span.span_context().unwrap();
            assert_eq!(sent["b3"], format!("{}-{}-{state}", ids.trace_id(), ids.span_id()));
            assert_eq!(sent.contains_key("x-b3-flags"), state == "d");
            assert_eq!(sent["uber-trace-id"], format!("{}:{}:0:{flags}", ids.trace_id(), ids.span_id()));
        }
    }
}

#[test]
fn debug_is_passed_on_beside_a_traceparent_of_the_same_trace() {
    let both = Propagator::new([Format::B3, Format::TraceContext]);
    let passed_on = |b3: &str, ids: &str| {
        let request = headers(&[("b3", b3), ("traceparent", &format!("00-{ids}-01"))]);
        let mut sent = HeaderMap::new();
        both.inject(&both.extract(&Context::background(), &request), &mut sent);
        sent["b3"].to_str().unwrap().to_owned()
    };
    let ids = format!("{LONG}-{SPAN}");
    assert_eq!(passed_on(&format!("{ids}-d"), &ids), format!("{ids}-d"));
    assert_eq!(
        passed_on(&format!("{SHORT}-{SPAN}-d"), &ids),
        format!("{ids}-1"),
        "another trace's says nothing of this one"
    );
}
