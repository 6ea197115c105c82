//! Attributes and their limits, sizes and times: T3, T7, T10.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use throughline_core::Context;
use throughline_core::trace::{
    Attributes, Event, Link, Sampler, SamplingParameters, SamplingResult, SpanLimits, Status, UnixNanos, Value,
};

use crate::memory::Memory;

#[test]
fn t03_every_type_of_value_is_recorded_and_the_last_write_wins() {
    let (memory, ctx) = Memory::new();
    let span = ctx.span("s").attribute("port", 1).attribute("port", 8080_u16).start();
    span.set_attribute("bool", true);
    span.set_attribute("float", 0.5);
    span.set_attribute("static", "text");
    span.set_attribute("owned", String::from("text"));
    span.set_attribute(String::from("owned key"), Cow::Borrowed("text"));
    span.set_attribute("bools", vec![true, false]);
    span.set_attribute("ints", vec![1_i64, 2]);
    span.set_attribute("floats", vec![0.5]);
    span.set_attribute("texts", vec!["a", "b"]);
    span.set_attribute("static", "new");
    span.set_attribute_with("computed", || 6 * 7);
    span.end();
    let attributes = memory.span("s").attributes;
    let shown: Vec<_> = attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        shown.join(" "),
        "port=8080 bool=true float=0.5 static=new owned=text owned key=text bools=[true,false] ints=[1,2] \
         floats=[0.5] texts=[\"a\",\"b\"] computed=42",
    );
    assert_eq!((attributes.len(), attributes.get("port")), (11, Some(&Value::I64(8080))));
}

#[test]
fn t03_what_exceeds_a_limit_is_dropped_and_counted() {
    let (memory, ctx) = Memory::new();
    let other = ctx.span("other").start().span_context().unwrap().clone();
    let early = (0..100).fold(ctx.span("s"), |span, i| span.attribute(format!("k{i}"), i).link(other.clone()));
    let span = early.start();
    for i in 90..130 {
        span.set_attribute(format!("k{i}"), -1);
        span.add_link(other.clone());
        (0..4).for_each(|_| span.add_event("e", ()));
    }
    span.set_attribute("k0", "still writable");
    let wide: Attributes = (0..200).map(|i| (format!("k{i}"), i)).collect();
    span.end();
    let span = memory.span("s");
    assert_eq!((span.attributes.len(), span.dropped_attributes_count), (128, 2));
    assert_eq!(span.attributes.get("k0"), Some(&"still writable".into()));
    assert_eq!(span.attributes.get("k127"), Some(&Value::I64(-1)));
    assert_eq!((span.links.len(), span.dropped_links_count), (128, 12));
    assert_eq!((span.events.len(), span.dropped_events_count), (128, 32));

    let span = ctx.span("wide").link(Link::new(other, wide.clone())).start();
    span.add_event("wide", wide);
    span.end();
    let span = memory.span("wide");
    assert_eq!((span.links[0].attributes.len(), span.links[0].dropped_attributes_count), (128, 72));
    assert_eq!((span.events[0].attributes.len(), span.events[0].dropped_attributes_count), (128, 72));
}

#[test]
fn t03_the_tracer_sets_the_limits() {
    let limits =
        SpanLimits { attributes: 2, events: 1, links: 0, event_attributes: 0, value_length: 5, ..Default::default() };
    let (memory, ctx) = Memory::with(|config| config.limits = limits);
    let linked = ctx.span("linked").start();
    let span = ctx.span("s").attribute("a", 1).attribute("b", "na\u{ef}vet\u{e9}").attribute("c", 3);
    let span = span.link(linked.span_context().unwrap().clone()).start();
    span.set_attribute("a", vec!["123456".to_owned()]);
    span.add_event("checked", [("k", 1)]);
    span.add_event("again", ());
    span.end();
    let span = memory.span("s");
    assert_eq!(span.attributes.get("b"), Some(&"na\u{ef}ve".into()), "five characters, and six bytes");
    assert_eq!(span.attributes.get("a"), Some(&vec!["12345"].into()));
    assert_eq!((span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count), (1, 1, 1));
    assert_eq!((&*span.events[0].name, span.events[0].attributes.len()), ("checked", 0));
    assert_eq!(span.events[0].dropped_attributes_count, 1);
}

#[test]
fn t03_the_length_limit_counts_characters_and_applies_to_attributes_only() {
    let limits = SpanLimits { value_length: 8, ..Default::default() };
    let (memory, ctx) = Memory::with(|config| config.limits = limits);
    let span = ctx.span("POST /authorizations").attribute("start", "\u{1f600}".repeat(9)).start();
    let exact = "\u{e9}".repeat(8);
    span.set_attribute("exact", exact.clone());
    span.set_attribute("static", "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}");
    span.set_attribute("texts", vec!["\u{e9}".repeat(9), "123456789".to_owned(), String::new()]);
    span.add_event("checked the balance", [("text", "\u{e9}".repeat(9))]);
    span.set_status(Status::Error("account 7 is locked".into()));
    span.end();
    let span = memory.span("POST /authorizations");
    assert_eq!(span.attributes.get("start"), Some(&"\u{1f600}".repeat(8).into()));
    for key in ["exact", "static"] {
        assert_eq!(span.attributes.get(key), Some(&exact.clone().into()), "{key}");
    }
    assert_eq!(span.attributes.get("texts"), Some(&vec![exact.clone(), "12345678".to_owned(), String::new()].into()));
    assert_eq!(
        (&*span.events[0].name, span.events[0].attributes.get("text")),
        ("checked the balance", Some(&exact.into()))
    );
    assert_eq!(span.status, Status::Error("account 7 is locked".into()));

    let none = SpanLimits { value_length: 0, ..Default::default() };
    let (memory, ctx) = Memory::with(|config| config.limits = none);
    ctx.span("renamed").attribute("text", "a").start().end();
    assert_eq!(memory.span("renamed").attributes.get("text"), Some(&"".into()));
}

#[test]
fn t03_a_bad_key_is_dropped_and_counted() {
    let (memory, ctx) = Memory::new();
    let span = ctx.span("s").attribute("", 1).start();
    span.set_attribute("", 2);
    span.set_attribute("k".repeat(1_025), 3);
    span.set_attribute("k".repeat(1_024), 4);
    span.end();
    let span = memory.span("s");
    assert_eq!((span.attributes.len(), span.dropped_attributes_count), (1, 3));
}

#[test]
fn t03_a_bad_key_in_a_set_of_attributes_is_counted_by_the_span_event_or_link() {
    struct SetsBadKey;
    impl Sampler for SetsBadKey {
        fn sample(&self, _: &SamplingParameters<'_>) -> SamplingResult {
            let mut result = SamplingResult::record();
            result.attributes.extend([("".into(), 1.into()), ("rule".into(), 2.into())]);
            result
        }
    }
    let limits = SpanLimits { event_attributes: 1, ..Default::default() };
    let (memory, ctx) = Memory::with(|config| {
        config.sampler = Arc::new(SetsBadKey);
        config.from_context = Some(Arc::new(|_, attributes| assert!(!attributes.set("", 3))));
        config.limits = limits;
    });
    let bad = || Attributes::from([("", 1), ("k", 2), ("", 3)]);
    let mut redacted = bad();
    redacted.retain(|_, _| true);
    let span = ctx.span("s").start();
    let span_context = span.span_context().unwrap().clone();
    span.add_event("one", [("", 1)]);
    span.add_event("also over a limit", [("", 1), ("k", 2), ("l", 3)]);
    span.add_event("redacted", redacted);
    span.add_link(Link::new(span_context, bad()));
    span.span("bare").attribute("", 1).start().end();
    span.end();

    let span = memory.span("s");
    assert_eq!(
        (span.attributes.len(), span.dropped_attributes_count),
        (1, 2),
        "one of the sampler, one of the context"
    );
    let events: Vec<_> = span.events.iter().map(|e| (e.attributes.len(), e.dropped_attributes_count)).collect();
    assert_eq!(events, [(0, 1), (1, 2), (1, 2)]);
    assert_eq!((span.links[0].attributes.len(), span.links[0].dropped_attributes_count), (1, 2));
    assert_eq!(memory.span("bare").dropped_attributes_count, 2, "one of the span, one of the context");
}

#[test]
fn t03_attributes_keep_their_order_and_can_be_redacted() {
    let mut attributes: Attributes = (0..20).map(|i| (format!("k{i}"), i)).collect();
    attributes.retain(|key, value| {
        if key == "k7" {
            *value = "***".into();
        }
        key != "k3"
    });
    let keys: Vec<_> = attributes.iter().map(|(key, _)| key.to_owned()).collect();
    let expected: Vec<_> = (0..20).filter(|i| *i != 3).map(|i| format!("k{i}")).collect();
    assert_eq!(keys, expected);
    assert_eq!(attributes.get("k7"), Some(&"***".into()));
    assert!(Attributes::new().is_empty() && !attributes.is_empty());
}

#[test]
fn t07_times_are_near_the_wall_clock_and_ordered() {
    let (memory, ctx) = Memory::new();
    let before = UnixNanos::from(SystemTime::now());
    let outer = ctx.span("outer").start();
    outer.add_event("e", ());
    outer.span("inner").start().end();
    outer.end();
    let (outer, inner) = (memory.span("outer"), memory.span("inner"));
    assert!(outer.start_time <= outer.events[0].time && outer.events[0].time <= inner.start_time);
    assert!(inner.start_time <= inner.end_time && inner.end_time <= outer.end_time);
    let away = outer.start_time.0.abs_diff(before.0);
    assert!(away < Duration::from_secs(3_600).as_nanos() as u64, "{away} ns from the wall clock");
}

#[test]
fn t07_explicit_times_are_accepted_and_clamped() {
    let (memory, ctx) = Memory::new();
    let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
    let span = ctx.span("explicit").start_time(at(1_000)).start();
    span.add_event_at("e", at(1_001), ());
    span.end_at(at(1_002));
    ctx.span("backwards").start_time(at(1_000)).start().end_at(at(999));
    ctx.span("ancient").start_time(UNIX_EPOCH - Duration::from_secs(1)).start().end_at(at(1));
    ctx.span("future").start_time(at(9_000_000_000)).start().end();
    if let Some(far) = UNIX_EPOCH.checked_add(Duration::from_secs(1 << 40)) {
        ctx.span("beyond").start_time(far).start().end();
        assert_eq!(memory.span("beyond").end_time, UnixNanos(u64::MAX));
    }
    let explicit = memory.span("explicit");
    assert_eq!((explicit.start_time, explicit.duration()), (UnixNanos::from(at(1_000)), Duration::from_secs(2)));
    assert_eq!(explicit.events[0].time, UnixNanos::from(at(1_001)));
    assert_eq!(memory.span("backwards").duration(), Duration::ZERO);
    assert_eq!(memory.span("ancient").start_time, UnixNanos(0));
    assert_eq!(memory.span("future").duration(), Duration::ZERO);
    assert_eq!(SystemTime::from(UnixNanos::from(at(1_000))), at(1_000));
}

#[test]
fn t10_ten_thousand_nested_spans_end_in_any_order() {
    let (memory, ctx) = Memory::new();
    let mut spans = vec![ctx.span("0").start()];
    for depth in 1..10_000 {
        let span = spans[depth - 1].span(depth.to_string()).start();
        spans.push(span);
    }
    // The outer half ends first, then the inner half from the inside out.
    let inner = spans.split_off(5_000);
    drop(spans);
    inner.into_iter().rev().for_each(drop);
    let records = memory.spans();
    assert_eq!(records.len(), 10_000);
    let by_name = |name: &str| records.iter().find(|span| span.name == name).unwrap();
    assert_eq!(by_name("9999").parent_span_id, Some(by_name("9998").span_context.span_id()));
}

#[test]
fn t10_a_hundred_thousand_siblings_have_the_same_parent() {
    let (memory, ctx) = Memory::with(|_| {});
    let parent = ctx.span("parent").start();
    for _ in 0..100_000 {
        parent.span("child").start().end();
    }
    let id = parent.span_context().map(|span| span.span_id());
    let records = memory.spans();
    assert_eq!(records.len(), 100_000);
    assert!(records.iter().all(|span| span.parent_span_id == id));
}

#[test]
fn t10_the_size_of_a_span_is_bounded() {
    let (memory, ctx) = Memory::new();
    let megabyte = "x".repeat(1 << 20);
    let span = ctx.span(megabyte.clone()).start();
    for i in 0..200 {
        span.set_attribute(format!("k{i}"), megabyte.clone());
        span.add_event(megabyte.clone(), [("k", megabyte.clone())]);
    }
    span.set_attribute("texts", vec![megabyte.clone()]);
    span.set_status(Status::Error(megabyte.into()));
    span.end();
    let span = memory.spans().remove(0);
    let length = |value: &Value| value.as_str().map_or(0, str::len);
    let event =
        |event: &Event| event.name.len() + event.attributes.iter().map(|(_, value)| length(value)).sum::<usize>();
    let attributes: usize = span.attributes.iter().map(|(_, value)| length(value)).sum();
    let held = span.name.len() + attributes + span.events.iter().map(event).sum::<usize>();
    assert_eq!(held, (1 + 128 + 2 * 128) * 16 * 1024);
    assert!(matches!(span.status, Status::Error(text) if text.len() == 16 * 1024));
}

#[test]
fn t10_the_context_of_an_ended_span_keeps_no_recording() {
    let (memory, ctx) = Memory::new();
    let span = ctx.span("s").start();
    let kept: Context = span.context().clone();
    span.end();
    assert_eq!(memory.count(), 1);
    assert!(!kept.current_span().is_recording(), "the context outlives the recording");
}
