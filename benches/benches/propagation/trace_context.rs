//! P14, P15: `traceparent` and `tracestate`.

use std::hint::black_box;
use std::str::FromStr;

use criterion::Criterion;
use fastrace::collector as fastrace;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context as OtelContext;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{self as otel, TraceContextExt};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use throughline_benches::{Row, Target};
use throughline_core::propagation::w3c;
use throughline_core::{SpanContext, TraceState};

use crate::headers::{TRACEPARENT, TRACESTATE, headers};
use crate::request::into_fresh;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "P14 traceparent, extract",
        ours: "P14/throughline",
        peers: &[("fastrace", "P14/fastrace"), ("OpenTelemetry", "P14/opentelemetry")],
        target: Target::Ratio("OpenTelemetry", 0.25),
        per: 1.0,
    },
    Row {
        name: "P14 traceparent, extract",
        ours: "P14/throughline",
        peers: &[("fastrace", "P14/fastrace"), ("OpenTelemetry", "P14/opentelemetry")],
        target: Target::Ratio("fastrace", 0.45),
        per: 1.0,
    },
    Row {
        name: "P14 with tracestate, extract",
        ours: "P14/throughline, tracestate",
        peers: &[("fastrace", "P14/fastrace, tracestate"), ("OpenTelemetry", "P14/opentelemetry, tracestate")],
        target: Target::None,
        per: 1.0,
    },
    Row {
        name: "P15 traceparent, inject",
        ours: "P15/throughline",
        peers: &[("fastrace", "P15/fastrace"), ("OpenTelemetry", "P15/opentelemetry")],
        target: Target::Ratio("OpenTelemetry", 0.3),
        per: 1.0,
    },
    Row {
        name: "P15 in place of another, inject",
        ours: "P15/throughline, again",
        peers: &[("fastrace", "P15/fastrace, again"), ("OpenTelemetry", "P15/opentelemetry, again")],
        target: Target::None,
        per: 1.0,
    },
    Row {
        name: "P15 with tracestate, inject",
        ours: "P15/throughline, tracestate",
        peers: &[("fastrace", "P15/fastrace, tracestate"), ("OpenTelemetry", "P15/opentelemetry, tracestate")],
        target: Target::None,
        per: 1.0,
    },
];

static NAME: HeaderName = HeaderName::from_static("traceparent");
static STATE: HeaderName = HeaderName::from_static("tracestate");

pub(crate) fn measure(criterion: &mut Criterion) {
    let plain = headers(&[("traceparent", TRACEPARENT)]);
    let stated = headers(&[("traceparent", TRACEPARENT), ("tracestate", TRACESTATE)]);
    let (propagator, root) = (TraceContextPropagator::new(), OtelContext::new());

    let mut group = criterion.benchmark_group("P14");
    for (case, map) in [("", &plain), (", tracestate", &stated)] {
        group.bench_function(format!("throughline{case}"), |b| b.iter(|| w3c::extract(black_box(map))));
        group.bench_function(format!("opentelemetry{case}"), |b| {
            b.iter(|| propagator.extract_with_context(&root, &HeaderExtractor(black_box(map))));
        });
    }
    group.bench_function("fastrace", |b| b.iter(|| fastrace_parent(black_box(&plain))));
    group.bench_function("fastrace, tracestate", |b| {
        b.iter(|| {
            let map = black_box(&stated);
            let state = map.get(&STATE).and_then(|state| state.to_str().ok());
            fastrace::W3CTraceContext::decode(map.get(&NAME)?.to_str().ok()?, state)
        });
    });
    group.finish();

    let span = w3c::extract(&plain).expect("it is valid");
    let remote = |state: &str| {
        let parent = otel::SpanContext::new(
            otel::TraceId::from_bytes(span.trace_id().to_bytes()),
            otel::SpanId::from_bytes(span.span_id().to_bytes()),
            otel::TraceFlags::SAMPLED,
            true,
            otel::TraceState::from_str(state).expect("it is valid"),
        );
        root.with_remote_span_context(parent)
    };
    let stated_span: SpanContext = w3c::extract(&stated).expect("it is valid");
    assert_ne!(stated_span.trace_state(), &TraceState::EMPTY);
    let parent = fastrace_parent(&plain).expect("it is valid");
    let stated_parent = fastrace::W3CTraceContext::new(parent).with_tracestate(TRACESTATE);

    let mut group = criterion.benchmark_group("P15");
    for (case, span, cx) in [("", &span, remote("")), (", tracestate", &stated_span, remote(TRACESTATE))] {
        group.bench_function(format!("throughline{case}"), |b| {
            into_fresh(b, |map| w3c::inject(black_box(span), map));
        });
        group.bench_function(format!("opentelemetry{case}"), |b| {
            into_fresh(b, |map| propagator.inject_context(black_box(&cx), &mut HeaderInjector(map)));
        });
    }
    group.bench_function("fastrace", |b| into_fresh(b, |map| fastrace_inject(black_box(&parent), map)));
    group.bench_function("fastrace, tracestate", |b| {
        into_fresh(b, |map| {
            let context = black_box(&stated_parent);
            fastrace_inject(&context.span_context, map);
            if let Some(state) = context.encode_tracestate() {
                map.insert(&STATE, HeaderValue::from_str(state).expect("it is a header value"));
            }
        });
    });

    let mut map = headers(&[("traceparent", TRACEPARENT)]);
    group.bench_function("throughline, again", |b| b.iter(|| w3c::inject(black_box(&span), black_box(&mut map))));
    let cx = remote("");
    group.bench_function("opentelemetry, again", |b| {
        b.iter(|| propagator.inject_context(black_box(&cx), &mut HeaderInjector(black_box(&mut map))));
    });
    group.bench_function("fastrace, again", |b| {
        b.iter(|| fastrace_inject(black_box(&parent), black_box(&mut map)));
    });
    group.finish();
}

fn fastrace_parent(map: &HeaderMap) -> Option<fastrace::SpanContext> {
    fastrace::SpanContext::decode_w3c_traceparent(map.get(&NAME)?.to_str().ok()?)
}

fn fastrace_inject(parent: &fastrace::SpanContext, map: &mut HeaderMap) {
    // The value takes over the text without a copy.
    map.insert(&NAME, HeaderValue::try_from(parent.encode_w3c_traceparent()).expect("it is a header value"));
}
