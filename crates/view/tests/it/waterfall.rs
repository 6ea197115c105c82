//! The waterfall line by line, with fixed times.

use throughline_core::trace::SpanKind;
use throughline_view::Options;

use crate::support::{NARROW, Spans, cancelled, failed, left};

/// A request that runs into its deadline two services away.
fn late() -> Spans {
    let mut spans = Spans::default();
    failed(left(spans.add(0, "api", "POST /pay", SpanKind::Server, [0, 90]), 100.0), "balance");
    let call = left(spans.add(1, "api", "POST", SpanKind::Client, [5, 88]), 95.0);
    call.attributes.set("url.full", "http://balance/reserve?x=1");
    failed(call, "balance");
    failed(left(spans.add(2, "balance", "POST /reserve", SpanKind::Server, [10, 85]), 85.0), "balance");
    let shed = left(spans.add(1, "api", "GET", SpanKind::Client, [89, 89]), 0.0);
    shed.attributes.set("throughline.shed", "not sent");
    spans
}

#[test]
fn a_deadline_is_drawn_where_it_would_have_passed() {
    assert_eq!(
        late().drawn(&NARROW),
        "\
trace 4bf92f3577b34da6a3ce929d0e0e4736  2 services · 4 spans · 90.0 ms · deadline 100 ms
                         0                    102 ms    took    left  ended
api POST /pay            ███████████████████████▊  │ 90.0 ms  100 ms  deadline ← balance
├ balance POST /reserve   ─▐███████████████████▌─  │ 83.0 ms 95.0 ms  DEADLINE_EXCEEDED
└ → GET                                         ▐  │    0 µs    0 µs  not sent
─ on the way   → call   │ deadline
"
    );
}

#[test]
fn without_unicode_the_drawing_is_ascii() {
    let plain = late().drawn(&Options { unicode: false, ..NARROW });
    assert!(plain.is_ascii() && !plain.contains('\u{1b}'));
    assert_eq!(
        plain,
        "\
trace 4bf92f3577b34da6a3ce929d0e0e4736  2 services - 4 spans - 90.0 ms - deadline 100 ms
                         0                    102 ms    took    left  ended
api POST /pay            ########################  | 90.0 ms  100 ms  deadline <- balance
|-balance POST /reserve   -#####################-  | 83.0 ms 95.0 ms  DEADLINE_EXCEEDED
`-> GET                                         #  |    0 us    0 us  not sent
- on the way   > call   | deadline
"
    );
}

#[test]
fn colours_do_not_change_the_text() {
    let coloured = late().drawn(&Options { color: true, ..NARROW });
    let mut text = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        text.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    text.push_str(rest);
    assert_ne!(coloured, text);
    assert_eq!(text, late().drawn(&NARROW));
}

#[test]
fn bars_on_the_critical_path_are_solid_and_those_of_events_are_not() {
    let mut spans = Spans::default();
    spans.add(0, "api", "POST /pay", SpanKind::Server, [0, 60]);
    spans.add(1, "limits", "GET /limits", SpanKind::Server, [0, 20]);
    spans.add(1, "fraud", "GET /score", SpanKind::Server, [0, 50]);
    spans.add(1, "api", "send paid", SpanKind::Producer, [50, 55]);
    spans.add(4, "feed", "process paid", SpanKind::Consumer, [55, 100]);
    assert_eq!(
        spans.drawn(&NARROW),
        "\
trace 4bf92f3577b34da6a3ce929d0e0e4736  4 services · 5 spans · 100 ms
                       0                      100 ms    took    left  ended
api POST /pay          █████████████████▍            60.0 ms
├ limits GET /limits   ▒▒▒▒▒▒                        20.0 ms
├ fraud GET /score     ██████████████▌               50.0 ms
└ ⇢ feed process paid                ─▒▒▒▒▒▒▒▒▒▒▒▒▒▒ 45.0 ms
█ waited for   ▒ not waited for   ─ on the way   ⇢ message
"
    );
}

#[test]
fn work_that_a_cancellation_reaches_late_was_waited_for_until_its_caller_gave_up() {
    let mut spans = Spans::default();
    cancelled(spans.add(0, "api", "POST /pay", SpanKind::Server, [0, 50]));
    cancelled(spans.add(1, "api", "POST", SpanKind::Client, [1, 52]));
    cancelled(spans.add(2, "cards", "POST /status", SpanKind::Server, [2, 54]));
    assert_eq!(
        spans.drawn(&NARROW),
        "\
trace 4bf92f3577b34da6a3ce929d0e0e4736  2 services · 3 spans · 54.0 ms
                      0                      54.0 ms    took    left  ended
api POST /pay         ███████████████████████████▊   50.0 ms          client_disconnected
└ cards POST /status  ─█████████████████████████████ 51.0 ms          client_disconnected
─ on the way
"
    );
}

#[test]
fn names_are_harmless_and_lines_are_no_wider_than_allowed() {
    let mut spans = Spans::default();
    let long: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
    spans.add(
        0,
        "api\u{1b}[2J\r\n",
        "wide 漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字\u{202e}",
        SpanKind::Server,
        [0, 10],
    );
    spans.add(1, long, long, SpanKind::Internal, [u64::MAX / 4_000_000, 0]);
    for width in [0, 60, 90, 120, 300] {
        let drawn = spans.drawn(&Options { width, ..NARROW });
        assert!(!drawn.contains(['\u{1b}', '\r', '\u{202e}']), "{drawn}");
        assert_eq!(drawn.lines().count(), if width < 90 { 6 } else { 5 });
        for line in drawn.lines() {
            let columns: usize = line.chars().map(|c| if ('\u{4e00}'..'\u{a000}').contains(&c) { 2 } else { 1 }).sum();
            assert!(columns <= width.max(60), "{columns} of {width}: {line}");
        }
    }
}

#[test]
fn deep_wide_and_circular_traces_are_drawn() {
    let mut deep = Spans::default();
    for number in 0..100_000 {
        deep.add(number, "deep", "down", SpanKind::Internal, [0, 1]);
    }
    assert_eq!(deep.drawn(&NARROW).lines().count(), 100_002);
    let mut wide = Spans::default();
    for number in 0..10_000 {
        wide.add(usize::from(number > 0), "wide", "across", SpanKind::Internal, [0, 1]);
    }
    assert_eq!(wide.trace().roots().count(), 1);
    assert_eq!(wide.drawn(&NARROW).lines().count(), 7, "what is alike is folded");
    let mut circle = Spans::default();
    circle.add(2, "a", "first", SpanKind::Internal, [0, 1]);
    circle.add(1, "b", "second", SpanKind::Internal, [0, 1]);
    circle.add(3, "c", "its own parent", SpanKind::Internal, [0, 1]);
    assert_eq!(circle.drawn(&NARROW).lines().count(), 5);
}
