//! Every carrier returns what was injected, and keeps no old values.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use throughline_core::propagation::deadline::ReplyReserve;
use throughline_core::propagation::{Environment, baggage, deadline, w3c};
use throughline_core::{Baggage, Extractor, Injector, SpanContext, SpanId, TraceFlags, TraceId};

fn span(state: &str) -> SpanContext {
    SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::SAMPLED, state.parse().unwrap(), true)
}

fn inject_all(carrier: &mut (impl Injector + ?Sized), span: &SpanContext, bags: &Baggage) {
    w3c::inject(span, carrier);
    baggage::inject(bags, carrier);
    deadline::inject(Duration::from_secs(2), &ReplyReserve::NONE, carrier).unwrap();
}

fn assert_carries(carrier: &(impl Extractor + ?Sized), span: &SpanContext, bags: &Baggage) {
    assert_eq!(w3c::extract(carrier).as_ref(), Some(span));
    assert_eq!(baggage::extract(carrier), *bags);
    assert_eq!(deadline::extract(carrier), Some(Duration::from_secs(2)));
}

fn round_trip<C: Injector + Extractor>(mut carrier: C) {
    let bags = Baggage::from_lines([b"a=%20;p, b=2".as_slice()]);
    let first = span("congo=t61, rojo=1");
    inject_all(&mut carrier, &first, &bags);
    assert_carries(&carrier, &first, &bags);
    // Inject again with fewer values: no old value is left.
    let second = span("");
    inject_all(&mut carrier, &second, &Baggage::EMPTY);
    assert_carries(&carrier, &second, &Baggage::EMPTY);
    assert!(deadline::inject(Duration::ZERO, &ReplyReserve::NONE, &mut carrier).is_err());
    assert_eq!(deadline::extract(&carrier), None);
}

#[test]
fn every_carrier_returns_what_was_injected() {
    round_trip(HeaderMap::new());
    round_trip(HashMap::<String, String>::new());
    round_trip(HashMap::<String, Vec<u8>>::new());
    round_trip(BTreeMap::<String, String>::new());
    round_trip(BTreeMap::<String, Vec<u8>>::new());
    round_trip(Vec::<(String, String)>::new());
    round_trip(Vec::<(String, Vec<u8>)>::new());
}

#[test]
fn a_child_process_receives_its_context_in_its_environment() {
    let (mut child, first, bags) = (Command::new("x"), span("a=1"), Baggage::from_lines([b"k=v".as_slice()]));
    inject_all(&mut child, &first, &bags);
    let names: Vec<_> = child.get_envs().map(|(name, _)| name.to_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["BAGGAGE", "GRPC_TIMEOUT", "TRACEPARENT", "TRACESTATE"]);
    let given: Environment = child.get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
    assert_carries(&given, &first, &bags);

    baggage::inject(&Baggage::EMPTY, &mut child);
    let removed = child.get_envs().any(|(name, value)| name == "BAGGAGE" && value.is_none());
    assert!(removed, "the child does not inherit the context of this process's parent");
}

#[test]
fn an_environment_is_read_by_upper_case_names() {
    let line = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let of = |name: &'static str| w3c::extract(&Environment::from_iter([(name, line)])).is_some();
    assert!(of("TRACEPARENT"));
    assert!(!of("traceparent") && !of("TRACE_PARENT") && !of("TRACEPARENT_"));
    let is_path = |carrier: &Environment| carrier.get_all(&PATH).next().is_some();
    assert!(is_path(&Environment::current()));
}

static PATH: HeaderName = HeaderName::from_static("path");

#[test]
fn names_are_found_in_any_case_and_more_than_once() {
    let line = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let map = HashMap::from([("TraceParent".to_owned(), line.to_owned())]);
    assert!(w3c::extract(&map).is_some());
    let mut list = vec![("traceparent".to_owned(), line.to_owned()), ("TRACEPARENT".to_owned(), line.to_owned())];
    assert_eq!(w3c::extract(&list), None, "sent twice");
    w3c::inject(&span(""), &mut list);
    assert_eq!(list.len(), 1);
    let lines = vec![("Baggage".to_owned(), b"a=1".to_vec()), ("baggage".to_owned(), b"b=2,c=\xff".to_vec())];
    assert_eq!(baggage::extract(&lines).as_str(), "a=1,b=2");
}

#[test]
fn a_text_carrier_leaves_out_values_that_are_not_ascii() {
    let value = HeaderValue::from_bytes(b"\xe9").unwrap();
    let mut map = HashMap::from([("Path".to_owned(), "stale".to_owned())]);
    map.set(&PATH, value.clone());
    assert!(map.is_empty());
    let mut child = Command::new("x");
    child.set(&PATH, value);
    assert!(child.get_envs().all(|(_, value)| value.is_none()));
}

#[test]
fn baggage_in_one_header_is_shared_and_not_copied() {
    let mut headers = HeaderMap::new();
    headers.insert("baggage", HeaderValue::from_maybe_shared("k=v".to_owned().into_bytes()).unwrap());
    let bytes = |headers: &HeaderMap| headers["baggage"].as_bytes().as_ptr();
    let mut sent = HeaderMap::new();
    baggage::inject(&baggage::extract(&headers), &mut sent);
    assert_eq!(bytes(&sent), bytes(&headers));
}
