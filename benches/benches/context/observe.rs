//! P2, P6: checking for done, and polling under a context.

use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use criterion::Criterion;
use throughline_benches::{Row, Target};
use throughline_core::Context;
use tokio_util::sync::CancellationToken;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "P2 is it done? depth 2",
        ours: "P2/depth 2",
        peers: &[("tokio-util", "P2/tokio-util")],
        target: Target::Ratio("tokio-util", 0.3),
        per: 1.0,
    },
    Row {
        name: "P2 is it done? depth 16: linear",
        ours: "P2/depth 16",
        peers: &[("depth 2", "P2/depth 2")],
        target: Target::Ratio("depth 2", 8.0),
        per: 1.0,
    },
    Row {
        name: "P2 once latched, depth 16",
        ours: "P2/latched, depth 16",
        peers: &[("tokio-util", "P2/tokio-util")],
        target: Target::Ratio("tokio-util", 0.3),
        per: 1.0,
    },
    Row {
        name: "P2 with a deadline: one clock read more",
        ours: "P2/deadline",
        peers: &[("a clock read", "P2/clock")],
        target: Target::Above("P2/clock", 10.0),
        per: 1.0,
    },
    Row {
        name: "P6 run: an extra poll, depth 2",
        ours: "P6/run",
        peers: &[("tokio-util", "P6/tokio-util")],
        target: Target::Above("P6/bare", 2.0),
        per: POLLS as f64,
    },
    Row {
        name: "P6 run: an extra poll, depth 16",
        ours: "P6/run, depth 16",
        peers: &[("tokio-util", "P6/tokio-util")],
        target: Target::Above("P6/bare", 2.0),
        per: POLLS as f64,
    },
];

const POLLS: u32 = 1_000;

/// Pending `POLLS` times.
struct Work(u32);

impl Future for Work {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<()> {
        self.0 = black_box(self.0 - 1);
        if self.0 == 0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn poll_to_end(future: impl Future) {
    let mut future = pin!(future);
    let mut cx = TaskContext::from_waker(Waker::noop());
    while future.as_mut().poll(&mut cx).is_pending() {}
}

fn at_depth(depth: usize) -> Vec<throughline_core::CancelHandle> {
    let mut chain = vec![Context::background().with_cancel()];
    for _ in 1..depth {
        let next = chain[chain.len() - 1].with_cancel();
        chain.push(next);
    }
    chain
}

pub(crate) fn measure(criterion: &mut Criterion) {
    let two = at_depth(2);
    let sixteen = at_depth(16);
    let token = CancellationToken::new();
    let child = token.child_token();

    let mut group = criterion.benchmark_group("P2");
    let ctx = two[1].context();
    group.bench_function("depth 2", |b| b.iter(|| black_box(black_box(ctx).is_done())));
    group.bench_function("depth 16", |b| b.iter(|| black_box(black_box(&sixteen[15]).is_done())));
    let timed = ctx.with_timeout(Duration::from_secs(3600));
    group.bench_function("deadline", |b| b.iter(|| black_box(black_box(&timed).is_done())));
    group.bench_function("clock", |b| b.iter(|| black_box(std::time::Instant::now())));
    let done = at_depth(16);
    done[0].cancel();
    group.bench_function("latched, depth 16", |b| b.iter(|| black_box(black_box(&done[15]).is_done())));
    group.bench_function("tokio-util", |b| b.iter(|| black_box(black_box(&child).is_cancelled())));
    group.finish();

    let mut group = criterion.benchmark_group("P6");
    group.bench_function("bare", |b| b.iter(|| poll_to_end(Work(POLLS))));
    group.bench_function("run", |b| b.iter(|| poll_to_end(ctx.run(Work(POLLS)))));
    let deep = sixteen[15].context();
    group.bench_function("run, depth 16", |b| b.iter(|| poll_to_end(deep.run(Work(POLLS)))));
    group.bench_function("tokio-util", |b| {
        b.iter(|| poll_to_end(child.run_until_cancelled(Work(POLLS))));
    });
    group.finish();
}
