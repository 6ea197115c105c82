//! P8–P10: work under a deadline.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use criterion::Criterion;
use throughline_benches::{Row, Target};
use throughline_core::Context;
use tokio::runtime::{Builder, Runtime};

pub(crate) const ROWS: &[Row] = &[
    row(
        "P8 ready at once, run on an existing context",
        "P8/run",
        &[("tokio timeout", "P8/tokio")],
        0.4,
        "tokio timeout",
    ),
    row(
        "P8 ready at once, with_timeout + run",
        "P8/with_timeout + run",
        &[("tokio timeout", "P8/tokio")],
        1.4,
        "tokio timeout",
    ),
    row("P9 pends once, existing context", "P9/run", &[("tokio timeout", "P9/tokio")], 0.5, "tokio timeout"),
    row(
        "P9 pends once, with_timeout + run",
        "P9/with_timeout + run",
        &[("tokio timeout", "P9/tokio")],
        1.0,
        "tokio timeout",
    ),
    row(
        "P9 one worker, nothing else scheduled: existing context",
        "P9 eventfd/run",
        &[("tokio timeout", "P9 eventfd/tokio")],
        0.25,
        "tokio timeout",
    ),
    row("P10 three nested, existing contexts", "P10/run", &[("tokio timeout", "P10/tokio")], 0.6, "tokio timeout"),
    row(
        "P10 three nested, creation included",
        "P10/with_timeout + run",
        &[("tokio timeout", "P10/tokio")],
        1.2,
        "tokio timeout",
    ),
];

const fn row(
    name: &'static str,
    ours: &'static str,
    peers: &'static [(&'static str, &'static str)],
    most: f64,
    peer: &'static str,
) -> Row {
    Row { name, ours, peers, target: Target::Ratio(peer, most), per: PER }
}

/// Operations per measured iteration: enough to hide the cost of entering the runtime.
const OPERATIONS: u32 = 1_000;
const PER: f64 = OPERATIONS as f64;

/// Pending once; wakes itself, so that the task continues at once.
struct PendOnce(bool);

impl Future for PendOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

const LONG: Duration = Duration::from_secs(3600);

async fn many<F: Future>(mut operation: impl FnMut() -> F) {
    for _ in 0..OPERATIONS {
        black_box(operation().await);
    }
}

pub(crate) fn measure(criterion: &mut Criterion) {
    let current = Builder::new_current_thread().enable_time().build().expect("a runtime can be built");
    let root = Context::background().with_cancel();
    let ctx = root.with_timeout(LONG);

    let mut group = criterion.benchmark_group("P8");
    let ready = || std::future::ready(black_box(1));
    group.bench_function("run", |b| b.iter(|| current.block_on(many(|| ctx.run(ready())))));
    group.bench_function("with_timeout + run", |b| {
        b.iter(|| current.block_on(many(|| async { root.with_timeout(LONG).run(ready()).await })));
    });
    group.bench_function("tokio", |b| b.iter(|| current.block_on(many(|| tokio::time::timeout(LONG, ready())))));
    group.finish();

    pends(criterion, "P9", &current, &root, &ctx);
    // With I/O enabled, a timer that is earlier than all others writes to the driver's eventfd.
    let one_worker =
        Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime can be built");
    let mut group = criterion.benchmark_group("P9 eventfd");
    let on_worker = |task: Pin<Box<dyn Future<Output = ()> + Send>>| {
        one_worker.block_on(one_worker.spawn(task)).expect("the task does not panic");
    };
    group.bench_function("run", |b| {
        b.iter(|| {
            let ctx = ctx.clone();
            on_worker(Box::pin(async move { many(|| ctx.run(PendOnce(false))).await }));
        });
    });
    group.bench_function("tokio", |b| {
        b.iter(|| on_worker(Box::pin(async { many(|| tokio::time::timeout(LONG, PendOnce(false))).await })));
    });
    group.finish();

    let mut group = criterion.benchmark_group("P10");
    // Each is earlier than the one around it: a later deadline would create no node.
    let outer = root.with_timeout(LONG * 3);
    let middle = outer.with_timeout(LONG * 2);
    let inner = middle.with_timeout(LONG);
    group.bench_function("run", |b| {
        b.iter(|| current.block_on(many(|| outer.run(middle.run(inner.run(PendOnce(false)))))));
    });
    group.bench_function("with_timeout + run", |b| {
        b.iter(|| {
            current.block_on(many(|| async {
                let outer = root.with_timeout(LONG * 3);
                let middle = outer.with_timeout(LONG * 2);
                let inner = middle.with_timeout(LONG);
                outer.run(middle.run(inner.run(PendOnce(false)))).await
            }));
        });
    });
    group.bench_function("tokio", |b| {
        b.iter(|| {
            current.block_on(many(|| {
                let inner = tokio::time::timeout(LONG, PendOnce(false));
                tokio::time::timeout(LONG * 3, tokio::time::timeout(LONG * 2, inner))
            }));
        });
    });
    group.finish();
}

fn pends(criterion: &mut Criterion, name: &str, runtime: &Runtime, root: &Context, ctx: &Context) {
    let mut group = criterion.benchmark_group(name);
    group.bench_function("run", |b| b.iter(|| runtime.block_on(many(|| ctx.run(PendOnce(false))))));
    group.bench_function("with_timeout + run", |b| {
        b.iter(|| runtime.block_on(many(|| async { root.with_timeout(LONG).run(PendOnce(false)).await })));
    });
    group.bench_function("tokio", |b| {
        b.iter(|| runtime.block_on(many(|| tokio::time::timeout(LONG, PendOnce(false)))));
    });
    group.finish();
}
