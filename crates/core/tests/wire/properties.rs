//! Properties of the parsers that hold for any bytes from a peer.
//!
//! There is one function per parser. It panics if a property does not hold. The tests here and the
//! fuzz targets call the same functions.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use throughline_core::propagation::deadline::{self, GrpcTimeout, ReplyReserve, TimeoutHeader};
use throughline_core::propagation::{Counted, Environment, Format, b3, baggage, jaeger, message, w3c, xray};
use throughline_core::{Baggage, Context, Extractor, Propagator, SpanContext, TraceState};

use super::counting::requested;

/// Runs `work`, and asserts that it allocates at most `4 * input + constant` bytes.
pub fn within<T>(input: usize, constant: usize, work: impl FnOnce() -> T) -> T {
    let (result, bytes) = requested(work);
    assert!(bytes <= 4 * input + constant, "{bytes} bytes allocated for {input} of input");
    result
}

/// Header lines from a peer: `name: value`, with any bytes in the value.
pub type Lines = Vec<(String, Vec<u8>)>;

pub fn lines(data: &[u8]) -> Lines {
    let line = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = String::from_utf8_lossy(&line[..colon]).into_owned();
        Some((name, line[colon + 1..].trim_ascii_start().to_vec()))
    };
    data.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// Returns the lines that are valid HTTP headers.
fn header_map(lines: &Lines) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines.iter().take(1_000) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// Asserts that `text` is printable ASCII or tabs, and a valid HTTP header value.
fn assert_sendable(text: &str) {
    assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')), "{text:?}");
    assert!(HeaderValue::from_str(text).is_ok());
}

/// Counts the members of a list, without empty members.
fn members<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> usize {
    let members = lines.into_iter().flat_map(|line| line.split(|byte| *byte == b','));
    members.filter(|member| !member.trim_ascii().is_empty()).count()
}

/// Creates a request with these lines under one name, and a traceparent.
fn carrier(name: &str, lines: &[&[u8]]) -> Lines {
    let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_vec();
    let lines = lines.iter().map(|line| (name.to_owned(), line.to_vec()));
    lines.chain([("traceparent".to_owned(), parent)]).collect()
}

/// Returns the size of the lines on the wire, without HPACK compression.
fn size(lines: &Lines) -> usize {
    lines.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn list(data: &[u8]) -> Vec<&[u8]> {
    data.split(|byte| *byte == b'\n').collect()
}

/// A `traceparent` is absent, or valid and written as version 00.
pub fn traceparent(data: &[u8]) {
    let Some((trace_id, span_id, flags)) = within(0, 0, || w3c::parse_traceparent(data)) else { return };
    let span = SpanContext::new(trace_id, span_id, flags, TraceState::EMPTY, true);
    let line = within(0, 0, || w3c::format_traceparent(&span));
    assert!(line.starts_with(b"00-") && line[53] == b'0' && line[54] <= b'3');
    assert!(!line.iter().any(u8::is_ascii_uppercase));
    assert_eq!(w3c::parse_traceparent(&line), Some((trace_id, span_id, flags)));
    // The digits of the ids are unchanged.
    assert_eq!(&line[3..52], &data.trim_ascii()[3..52]);
}

/// A `tracestate` is passed on byte for byte, or dropped as a whole.
pub fn tracestate(data: &[u8]) {
    let list = list(data);
    let Ok(state) = within(data.len(), 64, || TraceState::from_lines(list.iter().copied())) else { return };
    let carrier = carrier("tracestate", &list);
    let parent = within(size(&carrier), 64, || w3c::extract(&carrier))
        .expect("an invalid tracestate never drops the traceparent");
    assert_eq!(parent.trace_state(), &state);
    assert_sendable(state.as_str());
    assert!(state.as_str().len() <= 8_192 && state.iter().count() <= 32);
    assert_eq!(state.iter().count(), members(list.iter().copied()), "all members or none");
    if !state.is_empty() {
        assert_eq!(state.as_str().as_bytes(), list.join(&b','));
    }
    assert_eq!(TraceState::from_lines([state.as_str().as_bytes()]), Ok(state.clone()));
    for (key, _) in state.iter() {
        let of_key = state.iter().filter(|(name, _)| *name == key).count();
        assert_eq!(state.get(key), state.iter().find(|(name, _)| *name == key).map(|(_, value)| value));
        assert_eq!(state.remove(key).iter().count() + of_key, state.iter().count());
    }
    if let Ok(set) = state.insert("ours", "1") {
        assert_eq!(set.iter().next(), Some(("ours", "1")));
        let others = state.iter().filter(|(key, _)| *key != "ours").count();
        assert_eq!(set.iter().count(), (others + 1).min(32));
        assert_eq!(TraceState::from_lines([set.as_str().as_bytes()]), Ok(set.clone()));
    }
}

/// Baggage is within its limits and has whole members. Drops are counted. A value is never a
/// member.
pub fn baggage(data: &[u8]) {
    let list = list(data);
    let read = within(data.len() + list.len(), 128, || Baggage::from_lines(list.iter().copied()));
    assert_sendable(read.as_str());
    assert!(read.as_str().len() <= Baggage::MAX_BYTES && read.iter().count() <= Baggage::MAX_MEMBERS);
    let kept = members([read.as_str().as_bytes()]);
    assert_eq!(
        kept + read.dropped_count(),
        members(list.iter().copied()),
        "each member is kept, or dropped and counted"
    );
    let lines = carrier("baggage", &list);
    let carrier = Counted::new(&lines);
    let extracted = within(size(&lines), 128, || baggage::extract(&carrier));
    assert_eq!((&extracted, carrier.dropped().baggage_members), (&read, read.dropped_count() as u64));
    let again = Baggage::from_lines([read.as_str().as_bytes()]);
    assert_eq!((&again, again.dropped_count()), (&read, 0), "a round trip changes nothing");
    within(0, 0, || read.iter().count());
    // Decoding turns `%ff`, or half of a character, into U+FFFD, which has 3 bytes.
    within(read.as_str().len(), 64, || read.iter().map(|member| member.value().len()).sum::<usize>());
    for member in read.iter() {
        let value = member.value();
        let _ = within(data.len(), 64, || {
            member.properties().map(|(_, value)| value.map_or(0, |it| it.len())).sum::<usize>()
        });
        assert!(read.get(member.key()).is_some());
        let Ok(set) = Baggage::EMPTY.insert(member.key(), &value) else { continue };
        assert_eq!(members([set.as_str().as_bytes()]), 1, "a value stays one member");
        assert_eq!(set.get(member.key()).as_deref(), Some(&*value));
        assert_sendable(set.as_str());
    }
    if let Ok(set) = within(read.as_str().len(), 256, || read.insert("ours", "1")) {
        assert!(set.iter().count() <= read.iter().count() + 1);
        assert_eq!(set.get("ours").as_deref(), Some("1"));
        assert_sendable(set.as_str());
    }
    assert_eq!(read.remove("ours").get("ours"), None);
}

fn assert_same(read: &SpanContext, sent: &SpanContext) {
    let parts = |span: &SpanContext| (span.trace_id(), span.span_id(), span.is_sampled());
    assert_eq!(parts(read), parts(sent));
    assert!(read.is_remote());
}

fn assert_all_sendable(lines: &Lines) {
    for (_, value) in lines {
        assert_sendable(std::str::from_utf8(value).unwrap());
    }
}

/// B3 in one header and in several headers: a span that was read is written and read back the same.
pub fn b3(data: &[u8]) {
    let lines = lines(data);
    let Some(received) = within(data.len(), 0, || b3::extract(&lines)) else { return };
    let Some(span) = received.span else {
        assert_ne!(received.sampling, b3::Sampling::Deferred, "without a span there must be a decision");
        return;
    };
    let debug = received.sampling == b3::Sampling::Debug;
    assert_eq!(span.is_sampled(), matches!(received.sampling, b3::Sampling::Accepted | b3::Sampling::Debug));
    let (mut one, mut several) = (Lines::new(), Lines::new());
    b3::inject(&span, debug, &mut one);
    b3::inject_multi(&span, debug, &mut several);
    for sent in [one, several] {
        assert_all_sendable(&sent);
        let again = b3::extract(&sent).expect("a written header is valid");
        assert_same(again.span.as_ref().unwrap(), &span);
        assert_eq!(again.sampling, received.sampling, "an open decision stays open");
    }
}

/// `uber-trace-id`: a span that was read is written and read back the same.
pub fn jaeger(data: &[u8]) {
    let lines = vec![("uber-trace-id".to_owned(), data.to_vec())];
    let Some(received) = within(data.len(), 0, || jaeger::extract(&lines)) else { return };
    let mut sent = Lines::new();
    jaeger::inject(&received.span, received.debug, &mut sent);
    assert_all_sendable(&sent);
    let again = jaeger::extract(&sent).expect("a written header is valid");
    assert_same(&again.span, &received.span);
    assert_eq!(again.debug, received.debug);
}

/// `X-Amzn-Trace-Id`: a span that was read is written and read back the same.
pub fn xray(data: &[u8]) {
    let lines = vec![("X-Amzn-Trace-Id".to_owned(), data.to_vec())];
    let Some(span) = within(data.len(), 0, || xray::extract(&lines)) else { return };
    let mut sent = Lines::new();
    xray::inject(&span, &mut sent);
    assert_all_sendable(&sent);
    assert_same(&xray::extract(&sent).expect("a written header is valid"), &span);
}

static CHOSEN: HeaderName = HeaderName::from_static("x-timeout-ms");

const TIMEOUTS: [TimeoutHeader; 4] = [
    TimeoutHeader::GrpcTimeout,
    TimeoutHeader::ConnectTimeoutMs,
    TimeoutHeader::XEnvoyExpectedRqTimeoutMs,
    TimeoutHeader::RequestTimeout,
];

/// Deadline headers never extend the local deadline. They are sent rounded down, and never as zero.
pub fn timeouts(data: &[u8]) {
    let list = list(data);
    for header in TIMEOUTS {
        let carrier: Lines = list.iter().map(|line| (header.name().to_string(), line.to_vec())).collect();
        let shortest = within(0, 0, || deadline::extract_shortest(&[header], &carrier));
        assert_eq!(shortest, list.iter().filter_map(|line| header.parse(line)).min(), "the minimum of all");
        let Some(timeout) = shortest else { continue };
        deadline_holds(timeout);
    }
    // A header of choice has the grammar of `connect-timeout-ms`.
    let carrier: Lines = list.iter().map(|line| (CHOSEN.to_string(), line.to_vec())).collect();
    let shortest = within(0, 0, || deadline::extract_millis_from(&CHOSEN, &carrier));
    assert_eq!(shortest, list.iter().filter_map(|line| TimeoutHeader::ConnectTimeoutMs.parse(line)).min());
}

/// A requested timeout never extends the local one, and the timeout that is sent on is shorter.
pub fn deadline_holds(timeout: Duration) {
    const LOCAL: Duration = Duration::from_secs(60);
    assert!(Context::background().with_timeout(timeout).remaining().is_none_or(|left| left <= timeout));
    let local = Context::background().with_timeout(LOCAL);
    assert!(local.with_timeout(timeout).remaining().unwrap() <= timeout.min(LOCAL));
    for reserve in [
        ReplyReserve::DEFAULT,
        ReplyReserve::NONE,
        ReplyReserve { min: Duration::MAX, percent: 255, max: Duration::MAX },
    ] {
        assert!(reserve.of(timeout) <= timeout / 2);
        let left = timeout - reserve.of(timeout);
        let mut sent = Lines::new();
        if deadline::inject(timeout, &reserve, &mut sent).is_ok() {
            let read = deadline::extract(&sent).unwrap();
            assert!(Duration::ZERO < read && read <= left);
            assert!(sent[0].1.len() <= 9);
        } else {
            assert!(left.is_zero() && sent.is_empty());
        }
        if deadline::inject_connect(timeout, &reserve, &mut sent).is_ok() {
            let read = deadline::extract_shortest(&[TimeoutHeader::ConnectTimeoutMs], &sent).unwrap();
            assert!(Duration::ZERO < read && read <= left);
        } else {
            assert!(left < Duration::from_millis(1));
        }
        match deadline::inject_millis_as(&CHOSEN, timeout, &reserve, &mut sent) {
            Ok(()) => {
                let read = deadline::extract_millis_from(&CHOSEN, &sent).unwrap();
                assert!(Duration::ZERO < read && read <= left);
            }
            Err(_) => {
                assert!(left < Duration::from_millis(1) && !sent.iter().any(|(name, _)| *name == CHOSEN.as_str()))
            }
        }
    }
    if let Some(text) = GrpcTimeout::new(timeout) {
        let read = deadline::parse_grpc_timeout(text.as_str().as_bytes()).expect("a written header is valid");
        assert!(Duration::ZERO < read && read <= timeout);
    }
}

/// The times of a message never grow, at any time of the receiver's clock.
pub fn message(data: &[u8]) {
    let carrier = lines(data);
    let times = within(0, 0, || message::extract(&carrier));
    let most =
        times.sent_at.zip(times.expires_at).map(|(sent, expires)| expires.duration_since(sent).unwrap_or_default());
    let hour = Duration::from_secs(3600);
    for now in
        [UNIX_EPOCH, UNIX_EPOCH - hour, UNIX_EPOCH + 500_000 * hour, UNIX_EPOCH + Duration::from_secs(u32::MAX.into())]
    {
        let left = times.remaining(now);
        assert_eq!(left.is_some(), times.expires_at.is_some());
        assert!(most.is_none_or(|most| left.unwrap() <= most), "never more than the sender's remaining time");
        assert!(times.age(now) <= now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let mut sent = Lines::new();
        if message::inject(now, left, &mut sent).is_ok() {
            assert_all_sendable(&sent);
            let again = message::extract(&sent).remaining(now.max(UNIX_EPOCH));
            assert!(again.is_none_or(|again| again <= left.unwrap()));
        } else {
            assert!(sent.is_empty());
        }
    }
}

/// All formats: extracting is bounded, injected headers are valid, and passing on changes nothing.
pub fn propagator(data: &[u8]) {
    let lines = lines(data);
    let all = [Format::XRay, Format::Jaeger, Format::B3Multi, Format::B3, Format::TraceContext, Format::Baggage];
    for propagator in [Propagator::default(), Propagator::new(all)] {
        let headers = header_map(&lines);
        let child = Environment::from_iter(environment(&lines));
        passes_on(&propagator, &headers);
        passes_on(&propagator, &lines);
        passes_on(&propagator, &child);
    }
}

/// Returns the lines as environment variables.
fn environment(lines: &Lines) -> impl Iterator<Item = (String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).replace('\0', "");
    lines.iter().map(move |(name, value)| (name.to_uppercase().replace('-', "_"), text(value)))
}

fn passes_on<E: Extractor>(propagator: &Propagator, carrier: &E) {
    let carrier = &Counted::new(carrier);
    let ctx = propagator.extract(&Context::background(), carrier);
    let dropped = carrier.dropped();
    assert!(dropped.spans <= 5 && dropped.trace_states <= 1 && dropped.deadlines + dropped.values == 0);
    assert_eq!(dropped.baggage_members, ctx.baggage().dropped_count() as u64);
    let link = propagator.extract_span_context(carrier);
    assert!(link.is_none_or(|link| ctx.span_context().is_some_and(|span| span.trace_id() == link.trace_id())));
    let mut sent = Lines::new();
    propagator.inject(&ctx, &mut sent);
    assert_all_sendable(&sent);
    for name in propagator.fields() {
        assert!(sent.iter().filter(|(sent, _)| sent == name.as_str()).count() <= 1, "{name} is sent once");
    }
    let again = propagator.extract(&Context::background(), &sent);
    assert_eq!(again.baggage(), ctx.baggage());
    match (again.span_context(), ctx.span_context()) {
        (Some(again), Some(span)) => {
            assert_same(again, span);
            // B3 and the other formats have no tracestate.
            assert!(again.trace_state() == span.trace_state());
        }
        (again, span) => assert_eq!(again, span),
    }
    let mut twice = Lines::new();
    propagator.inject(&again, &mut twice);
    assert_eq!(twice, sent, "passing on again changes nothing");
}
