//! P13: the ambient context, per poll.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, Waker};

use criterion::Criterion;
use opentelemetry::context::FutureExt as _;
use throughline_benches::{Row, Target};
use throughline_core::Context;

pub(crate) const ROWS: &[Row] = &[Row {
    name: "P13 ambient scope, per poll",
    ours: "P13/context",
    peers: &[("task_local", "P13/task_local"), ("OpenTelemetry", "P13/opentelemetry")],
    target: Target::Ratio("task_local", 0.25),
    per: 1.0,
}];

tokio::task_local! { static LOCAL: u64; }

/// Pending for ever.
struct Never;

impl Future for Never {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<()> {
        black_box(Poll::Pending)
    }
}

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("P13");
    let mut cx = TaskContext::from_waker(Waker::noop());
    let root = Context::background().with_cancel();
    let mut ours = Box::pin(root.scope(Never));
    group.bench_function("context", |b| b.iter(|| ours.as_mut().poll(&mut cx)));
    let mut local = Box::pin(LOCAL.scope(1, Never));
    group.bench_function("task_local", |b| b.iter(|| local.as_mut().poll(&mut cx)));
    let mut peer = Box::pin(Never.with_context(opentelemetry::Context::new().with_value(1_u64)));
    group.bench_function("opentelemetry", |b| b.iter(|| peer.as_mut().poll(&mut cx)));
    group.finish();
}
