//! `tracing` spans and events together with spans of contexts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::get;
use axum::{Extension, Router};
use throughline::telemetry::otlp::{OtlpExporter, Protocol};
use throughline::trace::{SpanKind, Value};
use throughline::{Context, SendWith, SpanRecord};
use tracing::instrument::WithSubscriber;
use tracing::span::{Attributes, Id};
use tracing::{Instrument, info, info_span};
use tracing_subscriber::layer::{Context as Scope, SubscriberExt};

use crate::support::collector::Collector;
use crate::support::{PATIENCE, Traced, client, is_own_process, serve};

pub fn subscriber(traced: &Traced) -> impl tracing::Subscriber + Send + Sync + 'static {
    tracing_subscriber::registry().with(traced.telemetry.layer())
}

pub async fn spans(traced: Traced) -> Vec<SpanRecord> {
    let memory = traced.memory.clone();
    traced.telemetry.shutdown(PATIENCE).await.unwrap();
    memory.spans()
}

pub fn named<'a>(spans: &'a [SpanRecord], name: &str) -> &'a SpanRecord {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name} is not among {spans:#?}"))
}

pub fn is_child(spans: &[SpanRecord], child: &str, parent: &str) -> bool {
    let parent = named(spans, parent);
    let child = named(spans, child);
    child.parent_span_id == Some(parent.span_context.span_id())
        && child.span_context.trace_id() == parent.span_context.trace_id()
}

#[tokio::test]
async fn t12_tracing_spans_and_context_spans_nest_in_each_other() {
    let traced = Traced::new("cards");
    let ctx = Context::background().with_tracer(traced.telemetry.tracer());
    let request = ctx.span("request").start();
    let work = request.scope(async {
        async {
            let explicit = request.span("explicit").start();
            async { info!("in the middle") }.instrument(info_span!("inner")).await;
            explicit.end();
        }
        .instrument(info_span!("outer", card = 7, otel.kind = "client"))
        .await;
        request.span("after").start().end();
    });
    work.with_subscriber(subscriber(&traced)).await;
    request.end();
    let spans = spans(traced).await;
    assert!(is_child(&spans, "outer", "request"));
    assert!(is_child(&spans, "explicit", "outer"), "the innermost span below the context's span");
    assert!(is_child(&spans, "inner", "outer"));
    assert!(is_child(&spans, "after", "request"));
    let outer = named(&spans, "outer");
    assert_eq!((outer.kind, outer.attributes.get("card")), (SpanKind::Client, Some(&Value::I64(7))));
    let event = &named(&spans, "inner").events[0];
    assert_eq!((&*event.name, event.attributes.get("level")), ("in the middle", Some(&Value::from("INFO"))));
}

#[tokio::test]
async fn t12_an_instrumented_function_in_a_handler_is_a_child_of_the_server_span_and_its_calls_are_its_children() {
    let traced = Arc::new(Traced::new("cards"));
    let below = serve(Router::new().route("/below", get(|| async { "ok" })).layer(traced.internal())).await;

    #[tracing::instrument(skip_all)]
    async fn look_up(ctx: &Context, below: std::net::SocketAddr) {
        let answer = reqwest::Client::new().get(format!("http://{below}/below")).send_with(ctx, &client()).await;
        answer.unwrap().text().await.unwrap();
    }

    let dispatch = tracing::Dispatch::new(subscriber(&traced));
    let handler = move |Extension(ctx): Extension<Context>| {
        async move {
            info!("no span of tracing's around");
            look_up(&ctx, below).await;
        }
        .with_subscriber(dispatch.clone())
    };
    let address = serve(Router::new().route("/", get(handler)).layer(traced.internal())).await;
    reqwest::get(format!("http://{address}/")).await.unwrap();
    let spans = traced.spans(4).await;
    assert!(is_child(&spans, "look_up", "GET /"));
    assert!(is_child(&spans, "GET", "look_up"), "the client's span");
    assert!(is_child(&spans, "GET /below", "GET"));
    assert_eq!(named(&spans, "GET /").events[0].name, "no span of tracing's around");
}

#[tokio::test]
async fn t12_a_span_left_entered_on_the_thread_is_not_the_parent_of_another_request() {
    let traced = Traced::new("cards");
    let ctx = Context::background().with_tracer(traced.telemetry.tracer());
    tracing::subscriber::with_default(subscriber(&traced), || {
        let first = ctx.span("first").start();
        let stale = first.enter(|| info_span!("stale"));
        first.end();
        let _entered = stale.enter();
        let second = ctx.span("second").start();
        second.span("below").start().end();
        second.enter(|| info_span!("tracing's")).in_scope(|| {});
        second.end();
    });
    let spans = spans(traced).await;
    assert!(is_child(&spans, "below", "second"));
    assert!(is_child(&spans, "tracing's", "second"));
    assert_eq!(named(&spans, "second").parent_span_id, None);
}

#[tokio::test]
async fn without_a_context_a_tracing_span_is_exported_by_the_telemetry_of_the_layer() {
    let traced = Traced::new("cards");
    tracing::subscriber::with_default(subscriber(&traced), || {
        let span = info_span!("alone", later = tracing::field::Empty, otel.name = "named");
        span.record("later", "value");
        span.in_scope(|| info_span!("child").in_scope(|| {}));
    });
    let spans = spans(traced).await;
    assert!(is_child(&spans, "child", "named"));
    assert_eq!(named(&spans, "named").attributes.get("later"), Some(&Value::from("value")));
}

/// Counts spans and events from export threads.
#[derive(Clone, Default)]
struct FromExporter(Arc<AtomicUsize>);

impl FromExporter {
    fn count(&self) {
        if std::thread::current().name() == Some("throughline-export") {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for FromExporter {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Scope<'_, S>) {
        self.count();
    }

    fn on_event(&self, _: &tracing::Event<'_>, _: Scope<'_, S>) {
        self.count();
    }
}

#[tokio::test]
async fn r15_the_export_thread_traces_nothing() {
    // It sets the global subscriber, so it runs in its own process.
    if !is_own_process("telemetry::tracing_layer::r15_the_export_thread_traces_nothing", &[]) {
        return;
    }
    let collector = Collector::default();
    let url = format!("http://{}", collector.grpc().await);
    let exporter = OtlpExporter::new(Protocol::Grpc, &url, Default::default()).unwrap();
    let telemetry = throughline::telemetry::builder("cards").exporter(exporter).build().unwrap();
    // The global subscriber gets everything, at every level, including spans of tonic and h2.
    let from_exporter = FromExporter::default();
    let subscriber = tracing_subscriber::registry().with(telemetry.layer()).with(from_exporter.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let ctx = Context::background().with_tracer(telemetry.tracer());
    for round in 1..=3 {
        ctx.span("work").start().end();
        telemetry.force_flush(PATIENCE).await.unwrap();
        assert_eq!(collector.received().iter().filter(|(_, span)| span.name == "work").count(), round);
    }
    assert_eq!(from_exporter.0.load(Ordering::SeqCst), 0);
}
