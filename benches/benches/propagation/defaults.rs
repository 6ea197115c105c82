//! The default formats together, as the layers use them, and the deadline.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use opentelemetry::Context as OtelContext;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use throughline_benches::{Row, Target};
use throughline_core::propagation::deadline::{self, ReplyReserve};
use throughline_core::{Context, Propagator};

use crate::headers::{TRACEPARENT, headers};
use crate::request::into_fresh;

pub(crate) const ROWS: &[Row] = &[
    row(
        "default formats, extract into a context",
        "defaults/throughline, extract",
        &[("OpenTelemetry", "defaults/opentelemetry, extract")],
    ),
    row(
        "default formats, inject from a context",
        "defaults/throughline, inject",
        &[("OpenTelemetry", "defaults/opentelemetry, inject")],
    ),
    row("deadline, extract", "defaults/throughline, deadline extract", &[]),
    row("deadline, inject", "defaults/throughline, deadline inject", &[]),
];

const fn row(name: &'static str, ours: &'static str, peers: &'static [(&'static str, &'static str)]) -> Row {
    Row { name, ours, peers, target: Target::None, per: 1.0 }
}

pub(crate) fn measure(criterion: &mut Criterion) {
    let map = headers(&[
        ("traceparent", TRACEPARENT),
        ("baggage", "tenant=acme,channel=pos,region=eu-central-1"),
        ("grpc-timeout", "237500u"),
    ]);
    let (propagator, background) = (Propagator::default(), Context::background());
    let composite = TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(BaggagePropagator::new()),
    ]);
    let root = OtelContext::new();

    let mut group = criterion.benchmark_group("defaults");
    group.bench_function("throughline, extract", |b| b.iter(|| propagator.extract(&background, black_box(&map))));
    group.bench_function("opentelemetry, extract", |b| {
        b.iter(|| composite.extract_with_context(&root, &HeaderExtractor(black_box(&map))));
    });

    let ctx = propagator.extract(&background, &map);
    group.bench_function("throughline, inject", |b| {
        into_fresh(b, |map| propagator.inject(black_box(&ctx), map));
    });
    let cx = composite.extract_with_context(&root, &HeaderExtractor(&map));
    group.bench_function("opentelemetry, inject", |b| {
        into_fresh(b, |map| composite.inject_context(black_box(&cx), &mut HeaderInjector(map)));
    });

    group.bench_function("throughline, deadline extract", |b| b.iter(|| deadline::extract(black_box(&map))));
    group.bench_function("throughline, deadline inject", |b| {
        into_fresh(b, |map| {
            let _ = deadline::inject(black_box(Duration::from_micros(237_500)), &ReplyReserve::DEFAULT, map);
        });
    });
    group.finish();
}
