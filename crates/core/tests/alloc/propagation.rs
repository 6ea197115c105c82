//! P14–P16: the allocations of propagation between processes.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use throughline_core::propagation::deadline::{self, ReplyReserve};
use throughline_core::propagation::{baggage, w3c};
use throughline_core::{Context, Propagator};

use crate::counting::count;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Headers as a server has them: a map with spare capacity, and values that share the buffer they
/// were read into.
fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in lines {
        let value: HeaderValue = value.parse().unwrap();
        headers.append(*name, value.clone());
    }
    headers
}

fn allocations<T>(f: impl FnOnce() -> T) -> u64 {
    count(f).1.allocations
}

fn members(value: &str) -> String {
    (0..64).map(|i| format!("attribute-{i:02}={value}-{i:02}")).collect::<Vec<_>>().join(",")
}

#[test]
fn p14_a_traceparent_is_read_without_allocating() {
    let request = headers(&[("host", "limits.bank"), ("traceparent", TRACEPARENT)]);
    let (span, read) = count(|| w3c::extract(&request));
    assert_eq!((span.is_some(), read.allocations), (true, 0));

    for bad in ["", "00-", &TRACEPARENT.to_uppercase(), &format!(" {TRACEPARENT}-x")] {
        let request = headers(&[("traceparent", bad), ("tracestate", "a=1")]);
        assert_eq!(count(|| w3c::extract(&request)), (None, Default::default()), "{bad}");
    }
}

#[test]
fn p14_a_valid_tracestate_is_copied_once_and_an_invalid_one_never() {
    let with = |state: &str| headers(&[("traceparent", TRACEPARENT), ("tracestate", state)]);
    let request = with("rojo=00f067aa0ba902b7, congo=t61rcWkgMzE");
    assert_eq!(allocations(|| w3c::extract(&request)), 1);
    for bad in ["a=1,b", &format!("{}b", "a=1,".repeat(31)), &",".repeat(9_000)] {
        let request = with(bad);
        assert_eq!(allocations(|| w3c::extract(&request)), 0);
    }
}

#[test]
fn p15_a_traceparent_is_written_with_one_allocation() {
    let span = w3c::extract(&headers(&[("traceparent", TRACEPARENT)])).unwrap();
    let mut request = headers(&[("host", "limits.bank")]);
    assert_eq!(allocations(|| w3c::inject(&span, &mut request)), 1);
    assert_eq!(request["traceparent"], TRACEPARENT);
    assert_eq!(allocations(|| w3c::inject(&span, &mut request)), 1, "replacing the old header");

    let span = span.with_trace_state("rojo=1".parse().unwrap());
    assert_eq!(allocations(|| w3c::inject(&span, &mut request)), 2, "a copy of the tracestate");
}

#[test]
fn p16_baggage_is_read_and_propagated_without_allocating() {
    let request = headers(&[("baggage", &members("4bf92f3577b34da6"))]);
    let (received, read) = count(|| baggage::extract(&request));
    assert_eq!(read.allocations, 0);

    let mut onward = headers(&[("host", "limits.bank")]);
    assert_eq!(allocations(|| baggage::inject(&received, &mut onward)), 0);
    assert_eq!(onward["baggage"], request["baggage"]);

    let (length, all) = count(|| received.iter().map(|member| member.value().len()).sum::<usize>());
    assert_eq!((length, all.allocations), (64 * 19, 0));
    let (one, read) = count(|| received.get("attribute-31"));
    assert_eq!((one.as_deref(), read.allocations), (Some("4bf92f3577b34da6-31"), 0));
}

#[test]
fn p16_each_decoded_value_is_one_allocation() {
    let request = headers(&[("baggage", &members("M%C3%BCller%2Cx;ttl=60"))]);
    let received = baggage::extract(&request);
    let (length, all) = count(|| received.iter().map(|member| member.value().len()).sum::<usize>());
    assert_eq!((length, all.allocations), (64 * "Müller,x".len(), 64));
}

#[test]
fn the_default_formats_allocate_one_node_for_the_span_and_one_for_the_baggage() {
    let (propagator, background) = (Propagator::default(), Context::background());
    let nothing = headers(&[("host", "limits.bank")]);
    assert_eq!(allocations(|| propagator.extract(&background, &nothing)), 0);
    let request = headers(&[("traceparent", TRACEPARENT)]);
    assert_eq!(allocations(|| propagator.extract(&background, &request)), 1);
    let request = headers(&[("traceparent", TRACEPARENT), ("baggage", "tenant=acme")]);
    let (ctx, read) = count(|| propagator.extract(&background, &request));
    assert_eq!(read.allocations, 2);

    let mut onward = headers(&[("host", "limits.bank")]);
    assert_eq!(allocations(|| propagator.inject(&ctx, &mut onward)), 1);
}

#[test]
fn a_deadline_is_extracted_without_allocating_and_injected_with_one_allocation() {
    let request = headers(&[("grpc-timeout", "237500u")]);
    let (timeout, read) = count(|| deadline::extract(&request));
    assert_eq!((timeout, read.allocations), (Some(Duration::from_micros(237_500)), 0));
    let mut onward = headers(&[("host", "limits.bank")]);
    let write = || deadline::inject(Duration::from_secs(1), &ReplyReserve::DEFAULT, &mut onward);
    assert_eq!(allocations(write), 1);
}
