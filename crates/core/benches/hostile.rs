//! How long each parser takes for the worst input of a peer, by size.
//!
//! Run it with `cargo bench -p throughline-core --bench hostile`. R7 requires at most 100 µs at 8
//! KiB. A linear parser takes twice as long for twice the input. The last column is the time per
//! byte at 64 KiB divided by that at 8 KiB. Size limits stop the parsers early, so less than 1 is
//! common.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use throughline_core::propagation::{b3, baggage, deadline, jaeger, message, w3c, xray};
use throughline_core::{Baggage, Context, Propagator, TraceState};

type Lines = Vec<(String, Vec<u8>)>;

/// A title, the header's name, a piece, and the work to measure.
///
/// The piece is repeated up to the size.
type Case = (&'static str, &'static str, &'static str, fn(&Lines));

const CASES: &[Case] = &[
    ("traceparent, digits", "traceparent", "0", |lines| {
        black_box(w3c::extract(lines));
    }),
    ("traceparent, blanks", "traceparent", " ", |lines| {
        black_box(w3c::extract(lines));
    }),
    ("tracestate, commas", "tracestate", ",", tracestate),
    ("tracestate, small members", "tracestate", "a=1,", tracestate),
    ("tracestate, 32 members", "tracestate", MEMBER, tracestate),
    ("baggage, commas", "baggage", ",", |lines| {
        black_box(baggage::extract(lines));
    }),
    ("baggage, small members", "baggage", "k=v,", |lines| {
        black_box(baggage::extract(lines));
    }),
    ("baggage, bad bytes", "baggage", "k=\u{e9},", |lines| {
        black_box(baggage::extract(lines));
    }),
    ("baggage, read and decoded", "baggage", "k=%ff%C3%2C;p=%25,", read_baggage),
    ("baggage, one key in all", "baggage", "k ,", |lines| {
        black_box(baggage::extract(lines).get("k").is_some());
    }),
    ("baggage, a member set", "baggage", "k=%ff;p=1,", |lines| {
        let _ = black_box(baggage::extract(lines).insert("k", "v"));
    }),
    ("b3, dashes", "b3", "-", |lines| {
        black_box(b3::extract(lines));
    }),
    ("b3, digits", "b3", "a", |lines| {
        black_box(b3::extract(lines));
    }),
    ("uber-trace-id, encoded", "uber-trace-id", "%3A", |lines| {
        black_box(jaeger::extract(lines));
    }),
    ("X-Amzn-Trace-Id, fields", "x-amzn-trace-id", "Sampled=1;", |lines| {
        black_box(xray::extract(lines));
    }),
    ("X-Amzn-Trace-Id, semicolons", "x-amzn-trace-id", ";", |lines| {
        black_box(xray::extract(lines));
    }),
    ("grpc-timeout, digits", "grpc-timeout", "9", |lines| {
        black_box(deadline::extract(lines));
    }),
    ("message times, digits", "creation-time", "9", |lines| {
        black_box(message::extract(lines));
    }),
    ("all of a request", "baggage", "k=%ff;p=1,", |lines| {
        let _ = black_box(Propagator::default().extract(&Context::background(), lines));
    }),
];

const MEMBER: &str = "abcdefghijklmnopqrstuvwxyz@0123456789-abcdefghijklmnopqrstuvwxyz=\
     abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz\
     0123456789abcdefghijklmnopqrstuvwxyz0123456789abc,";

fn tracestate(lines: &Lines) {
    let _ = black_box(TraceState::from_lines(lines.iter().map(|(_, line)| line.as_slice())));
}

fn read_baggage(lines: &Lines) {
    let read = |baggage: &Baggage| -> usize {
        let member = |member: &baggage::Member<'_>| member.value().len() + member.properties().count();
        baggage.iter().map(|it| member(&it)).sum()
    };
    black_box(read(&baggage::extract(lines)));
}

/// The shortest of many runs: the time without interruptions.
fn least(lines: &Lines, work: fn(&Lines)) -> Duration {
    let run = |_| {
        let start = Instant::now();
        work(black_box(lines));
        start.elapsed()
    };
    (0..2_000).map(run).min().unwrap()
}

fn main() {
    println!(
        "| input | 1 KiB | 2 KiB | 4 KiB | 8 KiB | 64 KiB | per byte, 64 against 8 KiB |\n|---|---|---|---|---|---|---|"
    );
    for &(title, name, piece, work) in CASES {
        let of_size = |kib: usize| {
            let mut line = piece.repeat(kib * 1024 / piece.len() + 1).into_bytes();
            line.truncate(kib * 1024);
            least(&vec![(name.to_owned(), line)], work)
        };
        let [all @ .., eight, most] = [1, 2, 4, 8, 64].map(of_size);
        let micros = |time: Duration| format!("{:.2} µs", time.as_secs_f64() * 1e6);
        let first = all.map(micros).join(" | ");
        let growth = most.as_secs_f64() / eight.as_secs_f64() / 8.0;
        println!("| {title} | {first} | {} | {} | {growth:.2} |", micros(eight), micros(most));
    }
}
