//! Each side extracts what the other side injects. The generated cases are the same in every run.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use throughline::propagation::Format;
use throughline::{Baggage, Context, Propagator, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use super::{Peer, describe};

const CASES: usize = 200;
const SPANS: [Format; 5] = [Format::TraceContext, Format::B3, Format::B3Multi, Format::Jaeger, Format::XRay];

/// Extracts with this library, and returns the result in the notation of the peers.
pub fn extract(format: Format, headers: &[(String, String)]) -> String {
    let ctx = Propagator::new([format]).extract(&Context::background(), &headers.to_vec());
    // A decision without a span creates a generated span, which no peer sent.
    let span =
        ctx.span_context().filter(|_| Propagator::new([format]).extract_span_context(&headers.to_vec()).is_some());
    let ids = span.map(|span| (span.trace_id().to_string(), span.span_id().to_string(), span.is_sampled()));
    let state = span.map(|span| span.trace_state().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
    let members = ctx.baggage().iter().map(|member| {
        let properties: Vec<_> = member
            .properties()
            .map(|(key, value)| value.map_or(key.to_owned(), |value| format!("{key}={value}")))
            .collect();
        [member.key().to_owned(), member.value().into_owned(), properties.join(";")]
    });
    describe(ids, state.unwrap_or_default(), members.collect())
}

fn inject(format: Format, ctx: &Context) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    Propagator::new([format]).inject(ctx, &mut headers);
    headers
}

fn cases<S: Strategy>(strategy: S) -> impl Iterator<Item = S::Value> {
    let mut runner = TestRunner::deterministic();
    std::iter::repeat_with(move || strategy.new_tree(&mut runner).unwrap().current()).take(CASES)
}

fn check_spans_both_ways(mut peer: Peer) {
    // Keys and values that are valid in both levels of W3C Trace Context.
    let state = prop::collection::btree_map("[a-z][a-z0-9_*/-]{0,20}", "[!-+--<>-~]{1,20}", 0..=8);
    let all = (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<bool>(), state);
    for format in SPANS {
        for (trace, span, sampled, state) in cases(all.clone()) {
            let state = if format == Format::TraceContext { state } else { BTreeMap::new() };
            let (Some(trace), Some(span)) = (TraceId::from_bytes(trace), SpanId::from_bytes(span)) else { continue };
            let list = state.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
            let pairs: Vec<_> = state.into_iter().collect();
            let expected = describe(Some((trace.to_string(), span.to_string(), sampled)), pairs.clone(), Vec::new());

            let what =
                json!({ "trace": trace.to_string(), "span": span.to_string(), "sampled": sampled, "state": pairs });
            let headers = peer.inject(format, what);
            assert_eq!(extract(format, &headers), expected, "{headers:?}");

            let flags = TraceFlags::NONE.with_sampled(sampled);
            let local = SpanContext::new(trace, span, flags, list.parse::<TraceState>().unwrap(), true);
            let headers = inject(format, &Context::background().with_remote_parent(local));
            assert_eq!(peer.extract(format, &headers), expected, "{headers:?}");
        }
    }
}

/// Checks baggage both ways.
///
/// `writes` and `reads` describe how the peer is known to change values.
fn check_baggage_both_ways(mut peer: Peer, writes: fn(&str) -> String, reads: fn(&str) -> Option<String>) {
    let format = Format::Baggage;
    for members in cases(prop::collection::btree_map("[a-z_.][a-z0-9_.-]{0,8}", ".{0,12}|[ -~]{0,12}|\\PC{0,8}", 1..=8))
    {
        let expect = |value: fn(&str) -> Option<String>| {
            let each = members.iter().filter_map(|(key, text)| Some([key.clone(), value(text)?, String::new()]));
            describe(None, Vec::new(), each.collect())
        };
        let pairs: Vec<_> = members.iter().collect();
        let headers = peer.inject(format, json!({ "baggage": pairs }));
        let each = members.iter().map(|(key, text)| [key.clone(), writes(text), String::new()]);
        assert_eq!(extract(format, &headers), describe(None, Vec::new(), each.collect()), "{headers:?}");

        let mut baggage = Baggage::EMPTY;
        for (key, value) in &members {
            baggage = baggage.insert(key, value).unwrap();
        }
        let headers = inject(format, &Context::background().with_baggage(baggage));
        assert_eq!(peer.extract(format, &headers), expect(reads), "{headers:?}");
    }
}

#[test]
fn opentelemetry_python_spans() {
    Peer::python("otel_peer.py").into_iter().for_each(check_spans_both_ways);
}

#[test]
fn opentelemetry_js_spans() {
    Peer::node("otel_peer.mjs").into_iter().for_each(check_spans_both_ways);
}

#[test]
fn opentelemetry_python_baggage() {
    // It writes a blank as `+`, which is read as a plus. It strips decoded values.
    let strip = |text: &str| {
        let is_blank = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
        Some(text.trim_matches(is_blank).to_owned())
    };
    if let Some(peer) = Peer::python("otel_peer.py") {
        check_baggage_both_ways(peer, |text| text.replace(' ', "+"), strip);
    }
}

#[test]
fn opentelemetry_js_baggage() {
    // It ignores members with an empty value.
    let not_empty = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    if let Some(peer) = Peer::node("otel_peer.mjs") {
        check_baggage_both_ways(peer, str::to_owned, not_empty);
    }
}

/// From this library to the peer, and back: each member keeps its properties.
///
/// OpenTelemetry-Python does not support properties.
#[test]
fn opentelemetry_js_baggage_properties_and_back() {
    let Some(mut peer) = Peer::node("otel_peer.mjs") else { return };
    let property = ("[a-z][a-z0-9]{0,5}", prop::option::of(r"[!#-$&-+.-:<>-\[\]-~]{1,6}"))
        .prop_map(|(key, value)| value.map_or(key.clone(), |value| format!("{key}={value}")));
    let member = (r"[!#-$&-+.-:<-\[\]-~]{1,8}", prop::collection::vec(property, 0..=3));
    for members in cases(prop::collection::btree_map("[a-z_.][a-z0-9_.-]{0,8}", member, 1..=8)) {
        let all =
            || members.iter().map(|(key, (value, properties))| [key.clone(), value.clone(), properties.join(";")]);
        let expected = describe(None, Vec::new(), all().collect());
        let line: Vec<_> = all()
            .map(|[key, value, properties]| match &properties[..] {
                "" => format!("{key}={value}"),
                _ => format!("{key}={value};{properties}"),
            })
            .collect();
        let sent = Baggage::from_lines([line.join(",").as_bytes()]);
        let headers = inject(Format::Baggage, &Context::background().with_baggage(sent));
        assert_eq!(peer.extract(Format::Baggage, &headers), expected, "{headers:?}");
        let headers = peer.inject(Format::Baggage, json!({ "baggage": all().collect::<Vec<_>>() }));
        assert_eq!(extract(Format::Baggage, &headers), expected, "{headers:?}");
    }
}
