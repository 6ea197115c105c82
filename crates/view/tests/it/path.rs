//! The bars of spans that the root waited for are solid.

use throughline_core::trace::SpanKind;

use crate::support::{NARROW, Spans, cancelled, left};

#[test]
fn a_spawned_child_that_outlives_its_parent_was_not_waited_for() {
    let mut spans = Spans::default();
    spans.add(0, "api", "GET /order", SpanKind::Server, [0, 100]);
    spans.add(1, "api", "write audit log", SpanKind::Internal, [2, 400]);
    spans.add(1, "api", "SELECT order", SpanKind::Client, [5, 98]);
    assert_eq!(
        spans.drawn(&NARROW),
        "\
trace 4bf92f3577b34da6a3ce929d0e0e4736  1 service · 3 spans · 400 ms
                    0                         400 ms    took    left  ended
api GET /order      ████████                          100 ms
├ write audit log   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  398 ms
└ → SELECT order    ███████▊                         93.0 ms
█ waited for   ▒ not waited for   → call
"
    );
}

/// The names of the spans whose bars are solid.
fn solid(spans: &Spans) -> Vec<&'static str> {
    let drawn = spans.drawn(&NARROW);
    let names = ["request", "query", "audit", "call", "answer"];
    let line = |name: &&str| drawn.lines().find(|line| line.contains(*name)).unwrap();
    names.into_iter().filter(|name| drawn.contains(*name) && !line(name).contains('▒')).collect()
}

#[test]
fn work_that_continues_after_a_cancellation_was_not_waited_for() {
    let mut spans = Spans::default();
    cancelled(spans.add(0, "api", "request", SpanKind::Server, [0, 50]));
    spans.add(1, "api", "audit", SpanKind::Internal, [20, 400]);
    cancelled(spans.add(1, "api", "query", SpanKind::Client, [5, 51]));
    assert_eq!(solid(&spans), ["request", "query"]);
}

#[test]
fn of_cancelled_children_the_last_to_start_was_waited_for() {
    let mut spans = Spans::default();
    cancelled(spans.add(0, "api", "request", SpanKind::Server, [0, 50]));
    cancelled(spans.add(1, "api", "audit", SpanKind::Internal, [2, 53]));
    cancelled(spans.add(1, "api", "query", SpanKind::Client, [5, 51]));
    assert_eq!(solid(&spans), ["request", "query"]);
}

#[test]
fn a_callee_whose_clock_is_ahead_was_waited_for() {
    let mut spans = Spans::default();
    spans.add(0, "api", "request", SpanKind::Server, [0, 100]);
    let call = spans.add(1, "api", "call", SpanKind::Client, [10, 90]);
    call.attributes.set("http.response.status_code", 404);
    call.status = throughline_core::trace::Status::Error("".into());
    spans.add(2, "cards", "answer", SpanKind::Server, [30, 95]);
    assert_eq!(solid(&spans), ["request", "call", "answer"]);
}

#[test]
fn each_root_has_its_own_path_and_the_first_deadline_is_drawn() {
    let mut spans = Spans::default();
    spans.add(0, "api", "request", SpanKind::Internal, [0, 10]);
    left(spans.add(0, "api", "answer", SpanKind::Server, [5, 60]), 50.0);
    spans.add(2, "api", "query", SpanKind::Client, [6, 58]);
    spans.add(2, "api", "audit", SpanKind::Internal, [6, 80]);
    assert_eq!(solid(&spans), ["request", "query", "answer"]);
    let drawn = spans.drawn(&NARROW);
    let first = drawn.lines().find(|line| line.contains("request")).unwrap();
    assert!(drawn.contains("deadline 55.0 ms") && first.contains('│'), "{drawn}");
}
