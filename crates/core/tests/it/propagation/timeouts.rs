//! The optional deadline headers, and the times of messages.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use throughline_core::propagation::deadline::{ReplyReserve, TimeoutHeader, extract_shortest, inject_connect};
use throughline_core::propagation::message::{self, MessageTimes};

const ALL: [TimeoutHeader; 4] = [
    TimeoutHeader::GrpcTimeout,
    TimeoutHeader::ConnectTimeoutMs,
    TimeoutHeader::XEnvoyExpectedRqTimeoutMs,
    TimeoutHeader::RequestTimeout,
];

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn each_timeout_header_has_its_grammar() {
    let [_, connect, envoy, seconds] = ALL;
    for (header, line, time) in [
        (connect, "1", Some(ms(1))),
        (connect, "0", Some(ms(0))),
        (connect, "9999999999", Some(ms(9_999_999_999))),
        (envoy, "15000", Some(ms(15_000))),
        (envoy, "0", None),
        (envoy, "000", None),
        (seconds, "30", Some(ms(30_000))),
        (seconds, "0", Some(ms(0))),
    ] {
        assert_eq!(header.parse(line.as_bytes()), time, "{header:?}: {line}");
    }
    for header in &ALL[1..] {
        for line in ["", " 1", "1 ", "+1", "-1", "1.5", "1s", "1m", "0x1", "10000000000", "\u{661}"] {
            assert_eq!(header.parse(line.as_bytes()), None, "{header:?}: {line}");
        }
    }
}

#[test]
fn the_shortest_of_the_trusted_timeouts_counts() {
    let mut headers = HeaderMap::new();
    for (name, line) in [
        ("grpc-timeout", "4S"),
        ("connect-timeout-ms", "3000"),
        ("connect-timeout-ms", "soon"),
        ("x-envoy-expected-rq-timeout-ms", "0"),
        ("x-envoy-expected-rq-timeout-ms", "2000"),
        ("request-timeout", "1"),
    ] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(line));
    }
    for count in 1..=4 {
        assert_eq!(extract_shortest(&ALL[..count], &headers), Some(Duration::from_secs(5 - count as u64)));
    }
    assert_eq!(extract_shortest(&[], &headers), None);
    assert_eq!(extract_shortest(&ALL, &HeaderMap::new()), None);
}

#[test]
fn connect_timeouts_are_written_rounded_down_and_never_zero() {
    let mut headers = HeaderMap::new();
    let mut write = |remaining| {
        let result = inject_connect(remaining, &ReplyReserve::NONE, &mut headers);
        (result.is_ok(), headers.get("connect-timeout-ms").map(|line| line.to_str().unwrap().to_owned()))
    };
    assert_eq!(write(Duration::from_micros(1_999)), (true, Some("1".into())));
    assert_eq!(write(Duration::from_micros(999)), (false, None), "the old value is removed");
    assert_eq!(write(Duration::MAX), (true, Some("9999999999".into())), "at most ten digits");
}

#[test]
fn time_in_the_queue_shortens_the_remaining_time() {
    let sent = UNIX_EPOCH + ms(1_700_000_000_123);
    let mut headers = BTreeMap::<String, String>::new();
    message::inject(sent, Some(ms(1_000)), &mut headers).unwrap();
    assert_eq!(headers["creation-time"], "1700000000123");
    assert_eq!(headers["absolute-expiry-time"], "1700000001123");
    let times = message::extract(&headers);
    assert_eq!((times.remaining(sent + ms(400)), times.age(sent + ms(400))), (Some(ms(600)), ms(400)));
    assert_eq!(times.remaining(sent + ms(1_000)), Some(ms(0)));
    assert_eq!(times.remaining(sent + ms(9_000)), Some(ms(0)));
    // The receiver's clock is one hour behind.
    let early = sent - ms(3_600_000);
    assert_eq!(
        (times.remaining(early), times.age(early)),
        (Some(ms(1_000)), ms(0)),
        "a clock that is behind does not add time"
    );
}

#[test]
fn a_message_without_a_deadline_does_not_expire() {
    let mut headers = BTreeMap::from([("absolute-expiry-time".to_owned(), "1".to_owned())]);
    message::inject(SystemTime::now(), None, &mut headers).unwrap();
    let times = message::extract(&headers);
    assert_eq!((times.expires_at, times.remaining(SystemTime::now())), (None, None));
    assert_eq!(message::extract(&BTreeMap::<String, String>::new()), MessageTimes::default());
}

#[test]
fn an_expired_message_is_not_sent() {
    let mut headers = BTreeMap::from([("Creation-Time".to_owned(), "1".to_owned())]);
    assert!(message::inject(UNIX_EPOCH + ms(5), Some(Duration::ZERO), &mut headers).is_err());
    assert!(headers.is_empty());
    assert!(message::inject(UNIX_EPOCH + ms(5), Some(Duration::MAX), &mut headers).is_ok());
    assert_eq!(headers["absolute-expiry-time"], "9999999999999999");
    assert!(message::inject(UNIX_EPOCH - ms(5), Some(ms(1)), &mut headers).is_ok(), "a clock that is not set");
    assert_eq!(headers["absolute-expiry-time"], "1");
}

#[test]
fn message_times_that_are_not_digits_are_absent() {
    for line in ["", "-1", "+1", "1.0", "soon", "10000000000000000", "2026-11-24T00:00:00Z"] {
        let headers =
            vec![("creation-time".to_owned(), line.to_owned()), ("absolute-expiry-time".to_owned(), line.to_owned())];
        assert_eq!(message::extract(&headers), MessageTimes::default(), "{line}");
    }
    let twice =
        vec![("absolute-expiry-time".to_owned(), "1".to_owned()), ("absolute-expiry-time".to_owned(), "2".to_owned())];
    assert_eq!(message::extract(&twice).expires_at, None);
}

proptest! {
    #[test]
    fn a_connect_timeout_is_read_back_no_longer_than_the_remaining_time(micros in 1_000u64..10_000_000_000, percent in 0u8..=60) {
        let remaining = Duration::from_micros(micros);
        let reserve = ReplyReserve { min: Duration::ZERO, percent, max: Duration::MAX };
        let mut headers = HeaderMap::new();
        if inject_connect(remaining, &reserve, &mut headers).is_ok() {
            let read = extract_shortest(&[TimeoutHeader::ConnectTimeoutMs], &headers).unwrap();
            let left = remaining - reserve.of(remaining);
            prop_assert!(read > Duration::ZERO && read <= left && left - read < Duration::from_millis(1));
        }
    }

    #[test]
    fn a_message_is_read_back_with_no_more_than_the_remaining_time(now in 0u64..4_000_000_000_000_000, left in 0u64..1_000_000_000_000) {
        let (now, left) = (UNIX_EPOCH + Duration::from_micros(now), Duration::from_micros(left));
        let mut headers = BTreeMap::<String, Vec<u8>>::new();
        match message::inject(now, Some(left), &mut headers) {
            Ok(()) => {
                let read = message::extract(&headers).remaining(now).unwrap();
                prop_assert!(read <= left && left - read < Duration::from_millis(1));
            }
            Err(_) => prop_assert!(left < Duration::from_millis(1)),
        }
    }
}
