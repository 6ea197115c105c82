//! The cost of the layer for unrecorded spans, nested spans and disabled callsites.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use throughline::trace::{AlwaysOff, Sampler, SamplingParameters, SamplingResult};
use throughline::{Context, telemetry};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber, field, info, info_span};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context as Scope, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, SpanData};

use super::tracing_layer::subscriber;
use crate::support::{PATIENCE, Traced, is_own_process};

/// Records the spans that it samples.
#[derive(Clone, Default)]
struct RecordingSampler(Arc<Mutex<Vec<String>>>);

impl Sampler for RecordingSampler {
    fn sample(&self, span: &SamplingParameters<'_>) -> SamplingResult {
        self.0.lock().unwrap().push(format!("{} {} {:?}", span.name, span.kind, span.attributes));
        SamplingResult::record()
    }
}

#[tokio::test]
async fn t22_samplers_see_the_fields_at_span_creation() {
    let sampler = RecordingSampler::default();
    let telemetry = telemetry::builder("cards").sampler(sampler.clone()).build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(telemetry.layer()), || {
        let span = info_span!("GET", otel.name = "GET /health", otel.kind = "server", http.route = "/health", n = 7);
        span.in_scope(|| info_span!("below", not = "sampled").in_scope(|| {}));
    });
    telemetry.shutdown(PATIENCE).await.unwrap();
    assert_eq!(*sampler.0.lock().unwrap(), [r#"GET /health server {"http.route": Str("/health"), "n": I64(7)}"#]);
}

static FORMATTED: AtomicUsize = AtomicUsize::new(0);

struct Costly;

impl fmt::Debug for Costly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        FORMATTED.fetch_add(1, Ordering::SeqCst);
        f.write_str("costly")
    }
}

#[tokio::test]
async fn t22_fields_of_unrecorded_spans_are_not_formatted() {
    let work = || {
        let span = info_span!("work", otel.name = ?Costly, v = ?Costly, later = field::Empty);
        span.record("later", field::debug(Costly));
        span.in_scope(|| info!(v = ?Costly, "event"));
    };
    let off = telemetry::builder("off").sampler(AlwaysOff).build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(off.layer()), || {
        info_span!("root").in_scope(work);
        let request = Context::background().with_tracer(off.tracer()).span("request").start();
        request.enter(work);
    });
    assert_eq!(FORMATTED.load(Ordering::SeqCst), 0);

    // Fields are formatted for the span that the sampler decides on, and for recorded spans.
    let traced = Traced::new("cards");
    tracing::subscriber::with_default(subscriber(&traced), || info_span!("root").in_scope(work));
    assert_eq!(FORMATTED.load(Ordering::SeqCst), 4);
}

/// Counts the look-ups of spans.
struct Counting {
    registry: Registry,
    lookups: Arc<AtomicUsize>,
}

impl Subscriber for Counting {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.registry.enabled(metadata)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.registry.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.registry.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.registry.record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        self.registry.event(event);
    }

    fn enter(&self, span: &Id) {
        self.registry.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.registry.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.registry.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.registry.try_close(id)
    }

    fn current_span(&self) -> tracing_core::span::Current {
        self.registry.current_span()
    }
}

impl<'a> LookupSpan<'a> for Counting {
    type Data = <Registry as LookupSpan<'a>>::Data;

    fn span_data(&'a self, id: &Id) -> Option<Self::Data> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let data = self.registry.span_data(id);
        assert!(data.as_ref().is_none_or(|data| data.id() == *id));
        data
    }
}

#[tokio::test]
async fn t23_the_cost_of_a_span_does_not_grow_with_depth() {
    let traced = Traced::new("cards");
    let lookups = Arc::new(AtomicUsize::new(0));
    let counting = Counting { registry: tracing_subscriber::registry(), lookups: lookups.clone() };
    let subscriber = counting.with(traced.telemetry.layer());
    let counts = tracing::subscriber::with_default(subscriber, || {
        let request = Context::background().with_tracer(traced.telemetry.tracer()).span("request").start();
        let other = Context::background().with_tracer(traced.telemetry.tracer()).span("other").start();
        request.enter(|| {
            let mut entered = Vec::new();
            let mut counts = Vec::new();
            for depth in 1..=1_000 {
                entered.push(info_span!("nested").entered());
                let before = lookups.load(Ordering::SeqCst);
                let span = info_span!("leaf", later = field::Empty);
                span.record("later", depth);
                span.in_scope(|| info!("event"));
                other.enter(|| info_span!("elsewhere").in_scope(|| info!("event")));
                counts.push(lookups.load(Ordering::SeqCst) - before);
            }
            // The innermost span must be exited first.
            while let Some(innermost) = entered.pop() {
                drop(innermost);
            }
            counts
        })
    });
    assert!(counts[0] > 0 && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

static CHECKS: AtomicUsize = AtomicUsize::new(0);

/// Counts how often a callsite checks whether it is enabled.
struct CountChecks;

impl<S: Subscriber> tracing_subscriber::Layer<S> for CountChecks {
    fn enabled(&self, _: &Metadata<'_>, _: Scope<'_, S>) -> bool {
        CHECKS.fetch_add(1, Ordering::SeqCst);
        true
    }
}

fn checks_by_events() -> usize {
    let before = CHECKS.load(Ordering::SeqCst);
    for number in 0..100 {
        info!(number, "event");
        info!(target: "off", number, "nobody listens");
    }
    CHECKS.load(Ordering::SeqCst) - before
}

#[test]
fn t23_callsite_interest_stays_cached_with_a_telemetry_and_after_its_shutdown() {
    // It sets the global subscriber, so it runs in its own process.
    let name = "telemetry::tracing_cost::t23_callsite_interest_stays_cached_with_a_telemetry_and_after_its_shutdown";
    if !is_own_process(name, &[]) {
        return;
    }
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(CountChecks)).unwrap();
    // Each callsite checks once, the first time.
    checks_by_events();
    assert_eq!(checks_by_events(), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let memory = telemetry::MemoryExporter::default();
    let telemetry = telemetry::builder("cards").exporter(memory.clone()).build().unwrap();
    Context::background().with_tracer(telemetry.tracer()).span("work").start().end();
    runtime.block_on(telemetry.force_flush(PATIENCE)).unwrap();
    assert_eq!((memory.spans().len(), checks_by_events()), (1, 0), "with a telemetry");
    runtime.block_on(telemetry.shutdown(PATIENCE)).unwrap();
    // A new callsite registers with all existing subscribers.
    info!("another callsite");
    let before = CHECKS.load(Ordering::SeqCst);
    assert_eq!((checks_by_events(), before), (0, CHECKS.load(Ordering::SeqCst)), "after its shutdown");
}
