//! P1, P3, P5: creating and dropping contexts.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use throughline_benches::{Row, Target};
use throughline_core::Context;
use tokio_util::sync::CancellationToken;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "P1 child create + drop",
        ours: "P1/with_cancel",
        peers: &[("tokio-util", "P1/tokio-util")],
        target: Target::Ratio("tokio-util", 0.35),
        per: 1.0,
    },
    Row {
        name: "P1 with_deadline",
        ours: "P1/with_deadline",
        peers: &[("tokio-util", "P1/tokio-util")],
        target: Target::Ratio("tokio-util", 0.35),
        per: 1.0,
    },
    Row {
        name: "P1 with_timeout: one clock read more",
        ours: "P1/with_timeout",
        peers: &[("with_deadline + a clock read", "P1/with_deadline + now")],
        target: Target::Ratio("with_deadline + a clock read", 1.1),
        per: 1.0,
    },
    Row {
        name: "P3 clone + drop",
        ours: "P3/context",
        peers: &[("tokio-util", "P3/tokio-util")],
        target: Target::Ratio("tokio-util", 0.35),
        per: 1.0,
    },
    Row {
        name: "P5 two threads, one root, per op",
        ours: "P5/context",
        peers: &[("tokio-util", "P5/tokio-util")],
        target: Target::Ratio("tokio-util", 0.15),
        per: 1.0,
    },
];

pub(crate) fn measure(criterion: &mut Criterion) {
    let root = Context::background().with_cancel();
    let token = CancellationToken::new();

    let mut group = criterion.benchmark_group("P1");
    let at = Instant::now() + Duration::from_secs(3600);
    group.bench_function("with_cancel", |b| b.iter(|| drop(black_box(root.with_cancel()))));
    group.bench_function("with_deadline", |b| b.iter(|| drop(black_box(root.with_deadline(black_box(at))))));
    group.bench_function("with_deadline + now", |b| {
        b.iter(|| {
            black_box(tokio::time::Instant::now());
            drop(black_box(root.with_deadline(black_box(at))));
        });
    });
    group.bench_function("with_timeout", |b| {
        b.iter(|| drop(black_box(root.with_timeout(black_box(Duration::from_secs(3600))))));
    });
    group.bench_function("tokio-util", |b| b.iter(|| drop(black_box(token.child_token()))));
    group.finish();

    let mut group = criterion.benchmark_group("P3");
    group.bench_function("context", |b| b.iter(|| drop(black_box(root.context().clone()))));
    group.bench_function("tokio-util", |b| b.iter(|| drop(black_box(token.clone()))));
    group.finish();

    let mut group = criterion.benchmark_group("P5");
    group.bench_function("context", |b| {
        b.iter_custom(|n| on_two_threads(n, || drop(black_box(root.with_cancel()))));
    });
    group.bench_function("tokio-util", |b| {
        b.iter_custom(|n| on_two_threads(n, || drop(black_box(token.child_token()))));
    });
    group.finish();
}

/// The time of `n` operations, half on each of two threads: the sum of both, contention included.
fn on_two_threads(n: u64, operation: impl Fn() + Sync) -> Duration {
    let start = Barrier::new(2);
    let half = || {
        start.wait();
        let begun = Instant::now();
        for _ in 0..n.div_ceil(2) {
            operation();
        }
        begun.elapsed()
    };
    thread::scope(|scope| {
        let other = scope.spawn(half);
        let mine = half();
        mine + other.join().expect("the operation does not panic")
    })
}
