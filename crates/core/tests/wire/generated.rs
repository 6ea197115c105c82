//! Generated input for every parser: any bytes, nearly valid input and valid input.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::properties as check;

/// Pieces of a grammar in any order, with random bytes between them.
fn pieces(pieces: &'static [&'static str], max: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..4),
    ];
    vec(piece, 0..max).prop_map(|all| all.concat())
}

/// One of `valid` with up to three bytes changed, inserted or removed.
fn nearly(valid: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..3);
    (select(valid), vec(change, 0..4)).prop_map(|(valid, changes)| {
        let mut line = valid.as_bytes().to_vec();
        for (at, byte, kind) in changes {
            let at = at.index(line.len() + 1);
            match kind {
                0 => line.insert(at, byte),
                1 if at < line.len() => line[at] = byte,
                _ => drop(line.splice(at..(at + 1).min(line.len()), [])),
            }
        }
        line
    })
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

const TRACEPARENTS: &[&str] = &[
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    " cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-what-the-future-holds\t",
];
const LISTS: &[&str] = &[
    "a=1",
    "k",
    "key",
    "=",
    ",",
    ";",
    " ",
    "\t",
    "\n",
    "%",
    "%2C",
    "%3D",
    "%ff",
    "%C3%A9",
    "a@b",
    "=v;p=",
    ";ttl=60",
    ",,",
    ", b = 2 ;x",
    "0123456789abcdef",
    "\u{e9}",
    "\u{0}",
    "\r",
    "\\",
    "\"",
    "+",
    "zz=1,zz=2",
];
const B3: &[&str] = &[
    "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90",
    "b3: 0",
    "b3: d",
    "\n",
    "X-B3-TraceId: 64fe8b2a57d3eff7",
    "x-b3-spanid: e457b5a2e4d86bd1",
    "x-b3-sampled: true",
    "x-b3-sampled: 0",
    "x-b3-flags: 1",
    "x-b3-parentspanid: 1",
    "b3: 64fe8b2a57d3eff7-e457b5a2e4d86bd1-d",
    "-",
    "1",
];
const JAEGER: &[&str] =
    &["abc", "17", "0", ":", "%3A", "%3a", "1", "3", "00f067aa0ba902b7", "4bf92f3577b34da6a3ce929d0e0e4736", "%", "+"];
const XRAY: &[&str] = &[
    "Root=1-5759e988-bd862e3fe1be46a994272793",
    "Parent=53995c3f42cd8ad8",
    "Sampled=1",
    "Sampled=?",
    ";",
    " ",
    "Self=1-2-3",
    "=",
    "Root=",
    "Lineage=a:1|b:2",
];
const TIMES: &[&str] = &[
    "0",
    "1",
    "9",
    "99999999",
    "9999999999",
    "H",
    "M",
    "S",
    "m",
    "u",
    "n",
    "-",
    "+",
    " ",
    ".",
    "\n",
    "250m\n",
    "10S\n",
];
const MESSAGES: &[&str] = &[
    "creation-time: ",
    "absolute-expiry-time: ",
    "Creation-Time: 0",
    "absolute-expiry-time: 9999999999999999",
    "1700000000123",
    "0",
    "\n",
    "-1",
    "1700000009999",
];
const HEADERS: &[&str] = &[
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate: rojo=1,congo=t61",
    "tracestate: a=1",
    "\n",
    "\n",
    "baggage: k=v;p=1,j=%2C",
    "baggage: a=1,,b=2",
    "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d",
    "b3: 0",
    "b3: 1",
    "x-b3-traceid: 64fe8b2a57d3eff7",
    "x-b3-spanid: e457b5a2e4d86bd1",
    "x-b3-flags: 1",
    "x-b3-sampled: 0",
    "uber-trace-id: abc:17:0:3",
    "x-amzn-trace-id: Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
    ",",
    "x",
];

proptest! {
    #[test]
    fn a_traceparent_is_valid_or_absent(line in prop_oneof![bytes(80), nearly(TRACEPARENTS)]) {
        check::traceparent(&line);
    }

    #[test]
    fn a_tracestate_is_passed_on_byte_for_byte_or_dropped(lines in prop_oneof![bytes(300), pieces(LISTS, 60)]) {
        check::tracestate(&lines);
    }

    #[test]
    fn baggage_is_passed_on_in_whole_members_and_never_grows(lines in prop_oneof![bytes(300), pieces(LISTS, 200)]) {
        check::baggage(&lines);
    }

    #[test]
    fn written_b3_is_read_back_the_same(lines in prop_oneof![bytes(100), pieces(B3, 10), nearly(B3), nearly(&["X-B3-TraceId: 64fe8b2a57d3eff7\nx-b3-spanid: e457b5a2e4d86bd1"])]) {
        check::b3(&lines);
    }

    #[test]
    fn a_written_jaeger_header_is_read_back_the_same(line in prop_oneof![bytes(100), pieces(JAEGER, 10), nearly(&["4bf92f3577b34da6:00f067aa0ba902b7:0:3"])]) {
        check::jaeger(&line);
    }

    #[test]
    fn a_written_xray_header_is_read_back_the_same(line in prop_oneof![bytes(100), pieces(XRAY, 10), nearly(&["Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"])]) {
        check::xray(&line);
    }

    #[test]
    fn a_peers_timeout_never_extends_the_local_one_and_no_timeout_is_sent_as_zero_or_rounded_up(line in prop_oneof![bytes(12), pieces(TIMES, 4)]) {
        check::timeouts(&line);
    }

    #[test]
    fn a_requested_timeout_only_shortens_the_local_one(secs in any::<u64>(), shift in 0u32..64, nanos in 0u32..1_000_000_000) {
        check::deadline_holds(Duration::new(secs >> shift, nanos));
    }

    #[test]
    fn a_different_clock_never_gives_a_message_more_time_than_it_had(lines in prop_oneof![bytes(60), pieces(MESSAGES, 8)]) {
        check::message(&lines);
    }

    #[test]
    fn passing_headers_on_again_does_not_change_them(lines in prop_oneof![bytes(200), pieces(HEADERS, 16)]) {
        check::propagator(&lines);
    }
}

/// R9: deadlines from a peer, below a local deadline of one minute.
#[test]
fn zero_overflowing_and_invalid_deadlines_are_clamped_or_absent() {
    for line in [
        "0H",
        "00000000n",
        "99999999H",
        "99999999n",
        "1n",
        "9999999999",
        "0",
        "18446744073709551615",
        "-1S",
        "1e9S",
        "\u{0}",
        "",
        "H",
    ] {
        check::timeouts(line.as_bytes());
    }
    for secs in [0, 1, u64::MAX, u64::MAX / 2, i64::MAX as u64] {
        check::deadline_holds(Duration::from_secs(secs));
        check::deadline_holds(Duration::new(secs, 999_999_999));
    }
}

/// The sizes are near the points where buffers grow, limits apply, and lists are full.
#[test]
fn allocations_are_bounded_at_every_size() {
    for piece in
        ["k=v", "k=v,", ",", "k", "\n", "a=1\n", "%ff", "k=%ff,", "\u{0},", "b\u{0}=1,a=1,", "=", ";", "k=v;p;q=1,"]
    {
        for bytes in [1, 2, 7, 8, 9, 63, 64, 65, 500, 1_000, 4_096, 8_191, 8_192, 8_193, 9_000, 20_000, 70_000] {
            let text = piece.repeat(bytes / piece.len() + 1);
            check::baggage(&text.as_bytes()[..bytes]);
            check::tracestate(&text.as_bytes()[..bytes]);
        }
    }
}
