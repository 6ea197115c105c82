//! W3C Trace Context Level 2: the vectors of the specification, and properties.

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use throughline_core::propagation::w3c::{extract, format_traceparent, inject, parse_traceparent};
use throughline_core::{SpanContext, TraceFlags};

const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn parent(traceparent: &str) -> Option<SpanContext> {
    extract(&headers(&[("traceparent", traceparent)]))
}

#[test]
fn valid_traceparents_are_parsed() {
    let flags = |line: String| parent(&line).map(|parent| parent.flags().to_byte());
    assert_eq!(flags(format!("00-{IDS}-00")), Some(0));
    assert_eq!(flags(format!("00-{IDS}-01")), Some(1));
    assert_eq!(flags(format!("00-{IDS}-03")), Some(3), "the random flag is kept");
    assert_eq!(flags(format!("00-{IDS}-ff")), Some(3), "undefined bits are dropped");
    assert_eq!(flags(format!(" \t00-{IDS}-01\t ")), Some(1), "optional whitespace");
    assert_eq!(flags(format!("cc-{IDS}-01")), Some(1), "a higher version");
    assert_eq!(flags(format!("cc-{IDS}-01-what-the-future-holds")), Some(1));
}

#[test]
fn invalid_traceparents_are_absent() {
    for line in [
        String::new(),
        "00".into(),
        format!("ff-{IDS}-01"),
        format!("00-{IDS}-01-"),
        format!("00-{IDS}-01.x"),
        format!("cc-{IDS}-01x"),
        format!("cc-{IDS}-0"),
        format!("00-{IDS}-0"),
        format!("00-{IDS}-0X"),
        format!("0G-{IDS}-01"),
        format!("00_{IDS}-01"),
        format!("00-{}-01", IDS.to_uppercase()),
        format!("00-{}-01", IDS.replace('-', "_")),
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01".into(),
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01".into(),
        format!("00-{}-01", IDS.replace('f', "é")),
    ] {
        assert_eq!(parent(&line), None, "{line}");
    }
    let twice = headers(&[("traceparent", &format!("00-{IDS}-01")), ("traceparent", &format!("00-{IDS}-01"))]);
    assert_eq!(extract(&twice), None);
    assert_eq!(extract(&HeaderMap::new()), None);
}

#[test]
fn a_tracestate_is_passed_on_byte_for_byte_or_not_at_all() {
    let line = format!("00-{IDS}-01");
    let with = |states: &[&str]| {
        let mut all = headers(&[("traceparent", &line)]);
        for state in states {
            all.append("tracestate", state.parse().unwrap());
        }
        let parent = extract(&all).expect("the traceparent is valid");
        let mut sent = HeaderMap::new();
        sent.insert("tracestate", HeaderValue::from_static("stale=1"));
        inject(&parent, &mut sent);
        sent.get("tracestate").map(|state| state.to_str().unwrap().to_owned())
    };
    assert_eq!(with(&["rojo=00f, congo=t61 "]).as_deref(), Some("rojo=00f, congo=t61 "));
    assert_eq!(with(&["a=1", "", "b=2"]).as_deref(), Some("a=1,,b=2"), "lines are combined in order");
    assert_eq!(with(&["a=1,a=2"]).as_deref(), Some("a=1,a=2"), "a duplicate key is passed on");
    assert_eq!(with(&["a=1", "b"]), None, "a bad member");
    let members = |count| (0..count).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
    assert!(with(&[&members(32)]).is_some() && with(&[&members(33)]).is_none());
    assert_eq!(with(&[]), None, "an old value is removed");
    assert_eq!(extract(&headers(&[("tracestate", "a=1")])), None, "without a traceparent it is ignored");
}

/// The callee's spans belong to the same trace, even if they are not recorded.
#[test]
fn a_traceparent_is_sent_for_an_unsampled_span_too() {
    let mut sent = HeaderMap::new();
    inject(&parent(&format!("00-{IDS}-02")).unwrap(), &mut sent);
    assert_eq!(sent["traceparent"], format!("00-{IDS}-02"), "the random flag is passed on unchanged");
}

#[test]
fn the_sent_traceparent_has_version_00_and_only_defined_flags() {
    let parent = parent(&format!("cc-{IDS}-ff-more")).unwrap();
    let mut sent = HeaderMap::new();
    inject(&parent, &mut sent);
    assert_eq!(sent["traceparent"], format!("00-{IDS}-03"));
    assert_eq!(parent.flags(), TraceFlags::SAMPLED | TraceFlags::RANDOM);
}

proptest! {
    #[test]
    fn any_bytes_are_a_valid_traceparent_or_absent(line in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Some((trace_id, span_id, flags)) = parse_traceparent(&line) {
            let span = SpanContext::new(trace_id, span_id, flags, Default::default(), true);
            prop_assert_eq!(parse_traceparent(&format_traceparent(&span)), Some((trace_id, span_id, flags)));
        }
    }

    #[test]
    fn one_changed_byte_changes_the_ids_only_if_it_is_a_digit(at in 0usize..55, byte in any::<u8>()) {
        let mut line = format!("00-{IDS}-01").into_bytes();
        line[at] = byte;
        let is_digit = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let original = format!("00-{IDS}-01");
        if parse_traceparent(&line).is_some() {
            prop_assert!(is_digit || line == original.as_bytes(), "{:?}", String::from_utf8_lossy(&line));
        }
    }
}
