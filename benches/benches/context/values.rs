//! P11, P12: values.

use std::hint::black_box;

use criterion::Criterion;
use throughline_benches::{Row, Target};
use throughline_core::{Context, Key};

pub(crate) const ROWS: &[Row] = &[
    row("P11 with_value onto 1", "P11/context, 1", &[("OpenTelemetry", "P11/opentelemetry, 1")], 0.6),
    row("P11 with_value onto 4", "P11/context, 4", &[("OpenTelemetry", "P11/opentelemetry, 4")], 0.25),
    row("P11 with_value onto 16", "P11/context, 16", &[("OpenTelemetry", "P11/opentelemetry, 16")], 0.15),
    row(
        "P12 lookup at 1",
        "P12/context, 1",
        &[("OpenTelemetry", "P12/opentelemetry, 1"), ("http::Extensions", "P12/extensions, 1")],
        1.1,
    ),
    row(
        "P12 lookup at 4",
        "P12/context, 4",
        &[("OpenTelemetry", "P12/opentelemetry, 4"), ("http::Extensions", "P12/extensions, 4")],
        1.1,
    ),
    row(
        "P12 lookup at 16",
        "P12/context, 16",
        &[("OpenTelemetry", "P12/opentelemetry, 16"), ("http::Extensions", "P12/extensions, 16")],
        1.1,
    ),
    Row {
        name: "P12 lookup at 50: not linear past 16",
        ours: "P12/context, 50",
        peers: &[("OpenTelemetry", "P12/opentelemetry, 50"), ("http::Extensions", "P12/extensions, 50")],
        target: Target::Above("P12/context, 16", 5.0),
        per: 1.0,
    },
];

const fn row(name: &'static str, ours: &'static str, peers: &'static [(&'static str, &'static str)], most: f64) -> Row {
    Row { name, ours, peers, target: Target::Ratio("OpenTelemetry", most), per: 1.0 }
}

macro_rules! fifty {
    ($($n:literal)*) => {
        static KEYS: [Key<u64>; 50] = [$({ let _ = $n; Key::new("key") }),*];

        fn opentelemetry(depth: usize) -> opentelemetry::Context {
            let mut cx = opentelemetry::Context::new();
            $(if $n < depth { cx = cx.with_value(Typed::<$n>($n)); })*
            cx
        }

        fn extensions(depth: usize) -> http::Extensions {
            let mut map = http::Extensions::new();
            $(if $n < depth { map.insert(Typed::<$n>($n)); })*
            map
        }
    };
}

/// A value with a type of its own: the peers use the type as the key.
#[derive(Clone, Copy)]
struct Typed<const N: usize>(u64);

fifty!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49);

static NEXT: Key<u64> = Key::new("next");

fn ours(depth: usize) -> Context {
    KEYS[..depth].iter().fold(Context::background(), |ctx, key| ctx.with_value(key, 7))
}

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("P11");
    for depth in [1, 4, 16] {
        let ctx = ours(depth);
        group.bench_function(format!("context, {depth}"), |b| {
            b.iter(|| drop(black_box(black_box(&ctx).with_value(&NEXT, 1))));
        });
        let cx = opentelemetry(depth);
        group.bench_function(format!("opentelemetry, {depth}"), |b| {
            b.iter(|| drop(black_box(black_box(&cx).with_value(Typed::<100>(1)))));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("P12");
    for depth in [1, 4, 16, 50] {
        let ctx = ours(depth);
        group.bench_function(format!("context, {depth}"), |b| {
            b.iter(|| black_box(black_box(&ctx).value(&KEYS[0]).copied()));
        });
        let cx = opentelemetry(depth);
        group.bench_function(format!("opentelemetry, {depth}"), |b| {
            b.iter(|| black_box(black_box(&cx).get::<Typed<0>>().map(|v| v.0)));
        });
        let map = extensions(depth);
        group.bench_function(format!("extensions, {depth}"), |b| {
            b.iter(|| black_box(black_box(&map).get::<Typed<0>>().map(|v| v.0)));
        });
    }
    group.finish();
}
