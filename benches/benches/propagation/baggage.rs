//! P16: baggage of 64 members.

use std::hint::black_box;

use criterion::Criterion;
use opentelemetry::Context as OtelContext;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::BaggagePropagator;
use throughline_benches::{Row, Target};
use throughline_core::propagation::baggage;

use crate::headers::headers;
use crate::request::into_fresh;

pub(crate) const ROWS: &[Row] = &[
    row(
        "P16 baggage of 64, extract",
        "P16/throughline, extract",
        &[("OpenTelemetry", "P16/opentelemetry, extract")],
        0.01,
    ),
    row(
        "P16 baggage of 64, pass on untouched",
        "P16/throughline, pass on",
        &[("OpenTelemetry", "P16/opentelemetry, pass on")],
        0.03,
    ),
    row(
        "P16 baggage of 64, extract and read all",
        "P16/throughline, read all",
        &[("OpenTelemetry", "P16/opentelemetry, read all")],
        0.06,
    ),
    row(
        "P16 baggage of 64, extract and read one",
        "P16/throughline, read one",
        &[("OpenTelemetry", "P16/opentelemetry, read one")],
        0.06,
    ),
    Row {
        name: "P16 with properties and escapes, extract and read all",
        ours: "P16/throughline, read all encoded",
        peers: &[("OpenTelemetry", "P16/opentelemetry, read all encoded")],
        target: Target::None,
        per: 1.0,
    },
];

const fn row(name: &'static str, ours: &'static str, peers: &'static [(&'static str, &'static str)], most: f64) -> Row {
    Row { name, ours, peers, target: Target::Ratio("OpenTelemetry", most), per: 1.0 }
}

pub(crate) fn measure(criterion: &mut Criterion) {
    let list = |value: &str| -> String {
        let members: Vec<String> = (0..64).map(|i| format!("attribute-{i:02}={value}-{i:02}")).collect();
        members.join(",")
    };
    let plain = headers(&[("baggage", &list("4bf92f3577b34da6"))]);
    let encoded = headers(&[("baggage", &list("M%C3%BCller,4bf92f35;ttl=60;internal").replace(",4", "%2C4"))]);
    let (propagator, root) = (BaggagePropagator::new(), OtelContext::new());

    let mut group = criterion.benchmark_group("P16");
    group.bench_function("throughline, extract", |b| b.iter(|| baggage::extract(black_box(&plain))));
    group.bench_function("opentelemetry, extract", |b| {
        b.iter(|| propagator.extract_with_context(&root, &HeaderExtractor(black_box(&plain))));
    });

    let received = baggage::extract(&plain);
    group.bench_function("throughline, pass on", |b| {
        into_fresh(b, |map| baggage::inject(black_box(&received), map));
    });
    let cx = propagator.extract_with_context(&root, &HeaderExtractor(&plain));
    group.bench_function("opentelemetry, pass on", |b| {
        into_fresh(b, |map| propagator.inject_context(black_box(&cx), &mut HeaderInjector(map)));
    });

    for (case, map) in [("", &plain), (" encoded", &encoded)] {
        group.bench_function(format!("throughline, read all{case}"), |b| {
            b.iter(|| {
                let received = baggage::extract(black_box(map));
                received.iter().map(|member| member.key().len() + black_box(member.value()).len()).sum::<usize>()
            });
        });
        group.bench_function(format!("opentelemetry, read all{case}"), |b| {
            b.iter(|| {
                let cx = propagator.extract_with_context(&root, &HeaderExtractor(black_box(map)));
                let members = cx.baggage().iter();
                members.map(|(key, (value, _))| key.as_str().len() + black_box(value).as_str().len()).sum::<usize>()
            });
        });
    }

    group.bench_function("throughline, read one", |b| {
        b.iter(|| {
            let received = baggage::extract(black_box(&plain));
            received.get(black_box("attribute-31")).map(|value| black_box(value).len())
        });
    });
    group.bench_function("opentelemetry, read one", |b| {
        b.iter(|| {
            let cx = propagator.extract_with_context(&root, &HeaderExtractor(black_box(&plain)));
            cx.baggage().get(black_box("attribute-31")).map(|value| black_box(value).as_str().len())
        });
    });
    group.finish();
}
