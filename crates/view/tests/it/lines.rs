//! The lines of a waterfall and their texts.

use throughline_core::trace::{Event, SpanKind, Status};
use throughline_view::Options;

use crate::support::{NARROW, Spans, cancelled, failed};

const TERMINAL: Options = Options { width: 80, ..Options::PLAIN };

#[test]
fn a_call_is_one_line_and_so_is_a_message() {
    let mut spans = Spans::default();
    spans.add(0, "api", "POST /pay", SpanKind::Server, [0, 60]);
    spans.add(1, "api", "POST", SpanKind::Client, [0, 50]).attributes.set("http.response.status_code", 200);
    spans.add(2, "cards", "POST /status", SpanKind::Server, [10, 40]).attributes.set("http.response.status_code", 200);
    spans.add(3, "cards", "SELECT", SpanKind::Client, [12, 20]);
    spans.add(1, "api", "send paid", SpanKind::Producer, [50, 52]);
    spans.add(5, "feed", "process paid", SpanKind::Consumer, [70, 100]);
    assert_eq!(
        spans.drawn(&NARROW),
        "\
trace 4bf92f3577b34da6a3ce929d0e0e4736  3 services · 6 spans · 100 ms
                       0                      100 ms    took    left  ended
api POST /pay          █████████████████▍            60.0 ms
├ cards POST /status   ──▐████████▌───               50.0 ms          200
│ └ → SELECT              ██▊                        8.00 ms
└ ⇢ feed process paid                ──────▒▒▒▒▒▒▒▒▒ 30.0 ms
█ waited for   ▒ not waited for   ─ on the way   → call   ⇢ message
"
    );
}

#[test]
fn both_sides_of_a_call_are_drawn_when_they_ended_differently() {
    let mut spans = Spans::default();
    spans.add(0, "api", "POST", SpanKind::Client, [0, 10]).attributes.set("error.type", "timeout");
    spans.0[0].spans[0].status = Status::Error("".into());
    spans.add(1, "cards", "POST /status", SpanKind::Server, [1, 9]).attributes.set("http.response.status_code", 200);
    let drawn = spans.drawn(&NARROW);
    assert!(drawn.contains("api → POST") && drawn.contains("timeout"), "{drawn}");
    assert!(drawn.contains("└ cards POST /status") && drawn.contains("200"), "{drawn}");
}

#[test]
fn two_sides_with_the_same_end_in_other_words_share_a_line() {
    let mut spans = Spans::default();
    let client = spans.add(0, "api", "POST", SpanKind::Client, [0, 10]);
    client.attributes.set("http.response.status_code", 404);
    client.attributes.set("error.type", "NOT_FOUND");
    client.status = Status::Error("no such card".into());
    spans.add(1, "cards", "POST /status", SpanKind::Server, [1, 9]).attributes.set("http.response.status_code", 404);
    let drawn = spans.drawn(&Options::PLAIN);
    assert!(drawn.contains("cards POST /status") && drawn.contains("NOT_FOUND: no such card"), "{drawn}");
    assert_eq!(drawn.lines().count(), 4, "{drawn}");

    let mut late = Spans::default();
    failed(late.add(0, "api", "POST", SpanKind::Client, [0, 10]), "cards");
    let server = late.add(1, "cards", "POST /status", SpanKind::Server, [1, 9]);
    failed(server, "cards");
    server.attributes.set("throughline.cancel.cause", "deadline_exceeded");
    assert_eq!(late.drawn(&Options::PLAIN).lines().count(), 4);
}

#[test]
fn a_receiver_with_siblings_has_its_own_line() {
    let mut spans = Spans::default();
    spans.add(0, "shop", "send paid", SpanKind::Producer, [0, 1]);
    spans.add(1, "feed", "process paid", SpanKind::Consumer, [1, 5]);
    spans.add(1, "mail", "process paid", SpanKind::Consumer, [1, 5]);
    let drawn = spans.drawn(&NARROW);
    for line in ["shop ⇢ send paid", "├ ⇢ feed process paid", "└ ⇢ mail process paid"] {
        assert!(drawn.contains(line), "{drawn}");
    }
}

#[test]
fn of_similar_siblings_two_are_drawn_and_the_others_are_counted() {
    let mut spans = Spans::default();
    spans.add(0, "api", "batch", SpanKind::Internal, [0, 10_000]);
    for row in 0..5_000 {
        let longest = u64::from(row == 3_000);
        spans.add(1, "api", "INSERT", SpanKind::Client, [row * 2, row * 2 + 1 + longest]);
    }
    assert_eq!(
        spans.drawn(&NARROW),
        "\
trace 4bf92f3577b34da6a3ce929d0e0e4736  1 service · 5,001 spans · 10.0 s
                    0                         10.0 s    took    left  ended
api batch           ████████████████████████████████  10.0 s
├ → INSERT          ▏                                1.00 ms
├ → INSERT                             ▐             2.00 ms
└ +4,998 more       ███████████████████████████████▉                  up to 1.00 ms
→ call
"
    );
}

#[test]
fn ten_similar_siblings_are_all_drawn() {
    let mut spans = Spans::default();
    spans.add(0, "api", "batch", SpanKind::Internal, [0, 100]);
    for row in 0..10 {
        spans.add(1, "api", "INSERT", SpanKind::Client, [row * 2, row * 2 + 1]);
        spans.add(1, "api", "SELECT", SpanKind::Client, [row * 2 + 1, row * 2 + 2]);
    }
    assert!(!spans.drawn(&NARROW).contains("more"));
}

#[test]
fn a_sibling_that_failed_or_has_a_failed_child_is_not_collapsed() {
    let mut spans = Spans::default();
    spans.add(0, "api", "batch", SpanKind::Internal, [0, 1_000]);
    for row in 0..100 {
        let record = spans.add(1, "api", "INSERT", SpanKind::Client, [row * 2, row * 2 + 1]);
        if row == 50 {
            record.attributes.set("error.type", "23505");
            record.status = Status::Error("duplicate key".into());
        }
    }
    let quiet = spans.0.len() - 30;
    spans.add(quiet, "api", "commit", SpanKind::Internal, [160, 161]).status = Status::Error("disk full".into());
    let drawn = spans.drawn(&NARROW);
    assert!(drawn.contains("23505: duplicate"), "{drawn}");
    assert!(drawn.contains("disk full") && drawn.contains("└ commit"), "{drawn}");
    assert!(drawn.contains("+96 more"), "{drawn}");
}

#[test]
fn siblings_that_failed_alike_are_collapsed_even_with_different_messages() {
    let mut spans = Spans::default();
    for row in 0..50 {
        let record = spans.add(0, "api", "job", SpanKind::Internal, [row, row + 1]);
        record.status = Status::Error(format!("row {row} is locked").into());
    }
    let drawn = spans.drawn(&NARROW);
    assert!(drawn.contains("+48 more") && drawn.contains("row 0 is locked"), "{drawn}");
}

fn failing(kind: &'static str, message: &'static str) -> Spans {
    let mut spans = Spans::default();
    spans.add(0, "api", "GET /order", SpanKind::Server, [0, 10]);
    let record = spans.add(1, "api", "SELECT order", SpanKind::Client, [1, 9]);
    record.attributes.set("error.type", kind);
    record.status = Status::Error(message.into());
    spans
}

#[test]
fn the_message_of_an_error_follows_its_type() {
    let drawn = failing("23505", "duplicate key").drawn(&Options::PLAIN);
    assert!(drawn.contains("23505: duplicate key"), "{drawn}");
}

#[test]
fn a_long_message_has_its_own_line_where_the_error_began() {
    let long = "duplicate key value violates unique constraint \"orders_pkey\"";
    for options in [TERMINAL, Options::PLAIN] {
        let mut spans = failing("23505", long);
        // The caller has the same error.
        let root = &mut spans.0[0].spans[0];
        root.attributes.set("error.type", "23505");
        root.status = Status::Error(long.into());
        let drawn = spans.drawn(&options);
        let lines: Vec<_> = drawn.lines().collect();
        let at = lines.iter().position(|line| line.contains("SELECT order")).unwrap();
        assert!(lines[at].ends_with("  23505"), "{drawn}");
        assert_eq!(lines[at + 1].trim_start(), long, "{drawn}");
        assert_eq!(drawn.matches("duplicate").count(), 1, "{drawn}");
    }
}

#[test]
fn messages_are_harmless_and_lines_are_no_wider_than_allowed() {
    let hostile: &'static str = Box::leak(format!("\u{1b}[2J\r\n\u{202e}{}", "x".repeat(100_000)).into_boxed_str());
    let mut spans = failing(hostile, hostile);
    spans.add(2, hostile, hostile, SpanKind::Internal, [2, 3]).attributes.set("throughline.cancel.cause", hostile);
    spans.add(3, "api", "", SpanKind::Internal, [2, 3]).status = Status::Error(hostile.into());
    for options in [TERMINAL, Options::PLAIN, Options { unicode: false, ..TERMINAL }] {
        let drawn = spans.drawn(&options);
        assert!(!drawn.contains(['\u{1b}', '\r', '\u{202e}']), "{drawn}");
        for line in drawn.lines() {
            assert!(line.chars().count() <= options.width, "{line}");
        }
    }
}

#[test]
fn an_exception_event_gives_the_message_that_the_status_lacks() {
    let mut spans = failing("PgError", "");
    let record = &mut spans.0[1].spans[0];
    record.events.push(Event::new("exception", record.end_time, [("exception.message", "no such table")]));
    let drawn = spans.drawn(&Options::PLAIN);
    assert!(drawn.contains("PgError: no such table"), "{drawn}");
}

#[test]
fn a_message_that_repeats_the_type_is_not_shown() {
    for message in ["deadline exceeded", "DEADLINE_EXCEEDED", "Deadline exceeded"] {
        let drawn = failing("DEADLINE_EXCEEDED", message).drawn(&Options::PLAIN);
        assert!(drawn.contains("  DEADLINE_EXCEEDED\n"), "{drawn}");
    }
}

#[test]
fn every_line_has_a_name_at_any_depth() {
    let mut spans = Spans::default();
    spans.add(0, "service-0", "POST /0", SpanKind::Server, [0, 100]);
    for hop in 1..60 {
        let service: &'static str = Box::leak(format!("service-{hop}").into_boxed_str());
        let caller = format!("service-{}", hop - 1);
        spans.add(2 * hop - 1, &caller, "POST", SpanKind::Client, [0, 100]);
        spans.add(2 * hop, service, "POST /next", SpanKind::Server, [0, 100]);
    }
    for width in [60, 80, 120] {
        let drawn = spans.drawn(&Options { width, ..Options::PLAIN });
        for hop in 0..60 {
            assert!(drawn.contains(&format!("service-{hop} ")), "{width}: {drawn}");
        }
    }
}

#[test]
fn the_legend_explains_only_the_marks_that_were_drawn() {
    let mut spans = Spans::default();
    spans.add(0, "api", "batch", SpanKind::Internal, [0, 10]);
    assert_eq!(spans.drawn(&NARROW).lines().count(), 3, "nothing to explain");
    spans.0[0].spans[0].attributes.set("throughline.deadline.remaining_ms", 15.0);
    assert_eq!(spans.drawn(&NARROW).lines().last(), Some("│ deadline"));
    spans.add(1, "api", "warm up", SpanKind::Internal, [2, 30]);
    assert_eq!(spans.drawn(&NARROW).lines().last(), Some("█ waited for   ▒ not waited for   │ deadline"));
}

#[test]
fn a_cause_is_shown_in_either_spelling_and_with_its_message() {
    for cause in ["ClientDisconnected", "client_disconnected"] {
        let mut spans = Spans::default();
        cancelled(spans.add(0, "api", "POST /pay", SpanKind::Server, [0, 50]));
        spans.0[0].spans[0].attributes.set("throughline.cancel.cause", cause);
        let drawn = spans.drawn(&Options::PLAIN);
        assert!(drawn.contains(&format!("cancelled: {cause}\n")), "{drawn}");
    }
    let mut spans = Spans::default();
    let record = spans.add(0, "api", "POST /pay", SpanKind::Server, [0, 50]);
    record.attributes.set("throughline.cancel.cause", "error");
    record.attributes.set("throughline.cancel.message", "no quorum");
    let drawn = spans.drawn(&Options::PLAIN);
    assert!(drawn.contains("cancelled: no quorum\n"), "{drawn}");
}

#[test]
fn a_shed_span_is_known_by_its_attribute_or_its_event() {
    let mut spans = Spans::default();
    let record = spans.add(0, "api", "POST /pay", SpanKind::Server, [0, 0]);
    record.attributes.set("throughline.cancel.cause", "deadline_exceeded");
    record.events.push(Event::new("throughline.shed", record.end_time, Vec::<(&str, &str)>::new()));
    let drawn = spans.drawn(&Options::PLAIN);
    assert!(drawn.contains("shed: deadline_exceeded\n"), "{drawn}");
}
