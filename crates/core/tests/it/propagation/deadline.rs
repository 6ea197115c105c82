//! `grpc-timeout` and the reply reserve.

use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;
use throughline_core::propagation::deadline::{GrpcTimeout, ReplyReserve, extract, inject, parse_grpc_timeout};

#[test]
fn an_invalid_timeout_is_absent() {
    for line in ["", "S", "1", "1s", "+1S", "-1S", " 1S", "1 S", "1S ", "123456789n", "1.5S", "0x1S", "١S", "1SS", "H1"]
    {
        assert_eq!(parse_grpc_timeout(line.as_bytes()), None, "{line}");
    }
}

#[test]
fn every_unit_is_parsed() {
    let cases = [("2H", 7200.0), ("2M", 120.0), ("2S", 2.0), ("2m", 0.002), ("2u", 0.000_002), ("2n", 0.000_000_002)];
    for (line, seconds) in cases {
        assert_eq!(parse_grpc_timeout(line.as_bytes()), Some(Duration::from_secs_f64(seconds)), "{line}");
    }
    assert_eq!(parse_grpc_timeout(b"00000000m"), Some(Duration::ZERO));
}

#[test]
fn the_shortest_of_several_timeouts_counts_and_invalid_ones_are_ignored() {
    let mut headers = HeaderMap::new();
    for line in ["3S", "soon", "20m", "1H"] {
        headers.append("grpc-timeout", line.parse().unwrap());
    }
    assert_eq!(extract(&headers), Some(Duration::from_millis(20)));
}

#[test]
fn a_deadline_that_has_passed_is_not_sent() {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-timeout", "1S".parse().unwrap());
    assert!(inject(Duration::ZERO, &ReplyReserve::DEFAULT, &mut headers).is_err());
    assert!(headers.is_empty(), "the caller's header is removed");
    assert!(inject(Duration::from_nanos(1), &ReplyReserve::NONE, &mut headers).is_ok());
    assert_eq!(headers["grpc-timeout"], "1n");
}

#[test]
fn the_reserve_is_1_percent_between_5_and_50_ms_and_at_most_half() {
    let of = |millis| ReplyReserve::DEFAULT.of(Duration::from_millis(millis)).as_micros();
    let reserves = [2, 8, 50, 500, 600, 2_500, 5_000, 60_000, 3_600_000].map(of);
    assert_eq!(reserves, [1_000, 4_000, 5_000, 5_000, 6_000, 25_000, 50_000, 50_000, 50_000]);
    // Five hops of 600 ms: a chain loses little.
    let left = (0..5).fold(Duration::from_millis(600), |left, _| left - ReplyReserve::DEFAULT.of(left));
    assert!(left > Duration::from_millis(570), "{left:?}");
}

proptest! {
    #[test]
    fn a_written_timeout_is_read_back_rounded_down_and_never_zero(nanos in any::<u64>(), shift in 0u32..64) {
        let timeout = Duration::from_nanos(nanos >> shift);
        match GrpcTimeout::new(timeout) {
            None => prop_assert_eq!(timeout, Duration::ZERO),
            Some(text) => {
                prop_assert!(text.as_str().len() <= 9);
                let read = parse_grpc_timeout(text.as_str().as_bytes()).expect("the written timeout is valid");
                prop_assert!(read <= timeout && read > Duration::ZERO);
                prop_assert!(timeout - read <= timeout / 100_000, "the error is less than one unit");
            }
        }
    }

    #[test]
    fn any_bytes_are_a_timeout_or_absent(line in proptest::collection::vec(any::<u8>(), 0..12)) {
        if let Some(timeout) = parse_grpc_timeout(&line) {
            prop_assert!(timeout <= Duration::from_secs(99_999_999 * 3600));
        }
    }

    #[test]
    fn a_reserve_leaves_at_least_half_of_the_time_and_never_adds_time(
        nanos in any::<u64>(), min in any::<u32>(), percent in any::<u8>(), max in any::<u32>(),
    ) {
        let (remaining, max) = (Duration::from_nanos(nanos), Duration::from_nanos(max.into()));
        let reserve = ReplyReserve { min: Duration::from_nanos(min.into()), percent, max };
        prop_assert!(reserve.of(remaining) <= (remaining / 2).min(max));
    }

    #[test]
    fn the_sent_timeout_is_less_than_the_remaining_time(millis in 1u64..1_000_000) {
        let remaining = Duration::from_millis(millis);
        let mut headers = HeaderMap::new();
        inject(remaining, &ReplyReserve::DEFAULT, &mut headers).unwrap();
        let sent = extract(&headers).unwrap();
        prop_assert!(sent < remaining && sent >= remaining / 2 - Duration::from_micros(1));
    }
}
