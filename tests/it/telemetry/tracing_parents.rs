//! The parents of `tracing` spans, and of spans that contexts start inside them.

use throughline::trace::{SpanKind, Value};
use throughline::{Context, ContextError, Group, Key, Propagator, SpanContext, SpanRecord};
use tracing::{Dispatch, Instrument, Span, info, info_span};

use super::tracing_layer::{is_child, named, spans, subscriber};
use crate::support::Traced;

fn context(traced: &Traced) -> Context {
    Context::background().with_tracer(traced.telemetry.tracer())
}

fn with_layer<T>(traced: &Traced, work: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(subscriber(traced), work)
}

fn is_root(spans: &[SpanRecord], name: &str) -> bool {
    let span = named(spans, name);
    let is_own_trace = |other: &SpanRecord| other.span_context.trace_id() != span.span_context.trace_id();
    span.parent_span_id.is_none() && spans.iter().filter(|other| other.name != name).all(is_own_trace)
}

fn start(ctx: &Context, name: &'static str) {
    ctx.span(name).start().end();
}

#[tokio::test]
async fn t21_a_span_with_parent_none_starts_a_trace_for_its_events_and_children() {
    let traced = Traced::new("cards");
    with_layer(&traced, || {
        let request = context(&traced).span("request").start();
        request.enter(|| {
            info_span!(parent: None, "root").in_scope(|| {
                info!("in root");
                info_span!("child").in_scope(|| {});
                start(&request, "explicit");
            });
        });
        request.end();
    });
    let spans = spans(traced).await;
    let root = named(&spans, "root");
    assert_eq!(root.parent_span_id, None);
    assert_ne!(root.span_context.trace_id(), named(&spans, "request").span_context.trace_id());
    let links: Vec<_> = root.links.iter().map(|link| &link.span_context).collect();
    assert_eq!(links, [&named(&spans, "request").span_context], "it links what it has left");
    assert_eq!(root.events.len(), 1);
    assert!(is_child(&spans, "child", "root"));
    assert!(is_child(&spans, "explicit", "request"), "an explicit context stays in its trace");
}

#[tokio::test]
async fn t21_an_event_with_parent_none_belongs_to_no_span() {
    let traced = Traced::new("cards");
    with_layer(&traced, || {
        let request = context(&traced).span("request").start();
        request.enter(|| info_span!("work").in_scope(|| info!(parent: None, "alone")));
    });
    assert!(spans(traced).await.iter().all(|span| span.events.is_empty()));
}

#[tokio::test]
async fn t21_an_explicit_parent_comes_before_the_ambient_context() {
    let traced = Traced::new("cards");
    with_layer(&traced, || {
        let job = info_span!("job");
        let request = context(&traced).span("request").start();
        request.enter(|| {
            info_span!(parent: &job, "step").in_scope(|| {
                info_span!("detail").in_scope(|| info!(parent: &job, "started"));
            });
        });
        request.end();
    });
    let spans = spans(traced).await;
    assert!(is_child(&spans, "step", "job") && is_child(&spans, "detail", "step"));
    assert_eq!(named(&spans, "job").events.len(), 1);
}

#[tokio::test]
async fn t21_without_an_ambient_context_a_context_joins_the_tracing_span() {
    let traced = Traced::new("cards");
    with_layer(&traced, || {
        info_span!("cron").in_scope(|| {
            start(&Context::current(), "by current");
            start(&Context::background().with_cancel(), "by background");
            Context::current().span("closure").attribute_with("card", || 7).start().end();
            let outer = Context::current().span("outer").start();
            start(&outer, "below outer");
            outer.enter(|| start(&Context::current(), "ambient"));
            outer.enter(|| start(&Context::background(), "explicit background"));
            outer.end();
        });
    });
    // It has no tracer, so it is not exported. The others use the tracer of the `tracing` span.
    let spans = spans(traced).await;
    assert!(spans.iter().all(|span| span.name != "explicit background"));
    for name in ["by current", "by background", "closure", "outer"] {
        assert!(is_child(&spans, name, "cron"), "{name}: {spans:#?}");
    }
    assert_eq!(named(&spans, "closure").attributes.get("card"), Some(&Value::I64(7)));
    assert!(is_child(&spans, "below outer", "outer") && is_child(&spans, "ambient", "outer"));
}

#[tokio::test]
async fn t21_a_context_that_only_sets_a_tracer_joins_the_tracing_span_started_in_it() {
    let traced = Traced::new("cards");
    with_layer(&traced, || {
        context(&traced).enter(|| info_span!("job").in_scope(|| start(&Context::current(), "step")));
    });
    assert!(is_child(&spans(traced).await, "step", "job"));
}

#[tokio::test]
async fn t21_an_incoming_request_joins_no_tracing_span() {
    let traced = Traced::new("cards");
    with_layer(&traced, || {
        info_span!("connection").in_scope(|| {
            context(&traced).span("GET /").kind(SpanKind::Server).start().end();
            context(&traced).span("process").kind(SpanKind::Consumer).start().end();
        });
    });
    let spans = spans(traced).await;
    assert!(is_root(&spans, "GET /") && is_root(&spans, "process"));
}

#[tokio::test]
async fn t21_a_task_that_is_instrumented_with_the_current_span_stays_in_its_trace() {
    let traced = Traced::new("cards");
    let dispatch = Dispatch::new(subscriber(&traced));
    let request = context(&traced).span("request").start();
    let handler = async {
        let work = async { start(&Context::current(), "query") };
        let work =
            tracing::instrument::WithSubscriber::with_subscriber(work.instrument(Span::current()), dispatch.clone());
        tokio::spawn(work).await.unwrap();
    };
    let handler =
        tracing::dispatcher::with_default(&dispatch, || request.enter(|| handler.instrument(info_span!("handler"))));
    tracing::instrument::WithSubscriber::with_subscriber(request.scope(handler), dispatch.clone()).await;
    request.end();
    let spans = spans(traced).await;
    assert!(is_child(&spans, "handler", "request") && is_child(&spans, "query", "handler"), "{spans:#?}");
}

fn caller() -> (SpanContext, Context) {
    let mut headers = http::HeaderMap::new();
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent", traceparent.parse().unwrap());
    let ctx = Propagator::default().extract(&Context::background(), &headers);
    (ctx.span_context().unwrap().clone(), ctx)
}

#[tokio::test]
async fn t21_below_a_remote_parent_without_a_tracer_spans_go_to_the_telemetry_of_the_layer() {
    let traced = Traced::new("cards");
    let (caller, ctx) = caller();
    with_layer(&traced, || {
        ctx.enter(|| {
            info_span!("handler").in_scope(|| {
                start(&ctx, "query");
                info_span!("inner").in_scope(|| info!("here"));
            });
        });
    });
    let spans = spans(traced).await;
    let handler = named(&spans, "handler");
    assert_eq!(handler.span_context.trace_id(), caller.trace_id());
    assert_eq!((handler.parent_span_id, handler.parent_is_remote), (Some(caller.span_id()), true));
    assert!(is_child(&spans, "query", "handler") && is_child(&spans, "inner", "handler"));
    assert_eq!(named(&spans, "inner").events.len(), 1);
}

#[tokio::test]
async fn t21_below_a_span_that_no_tracer_started_spans_go_to_the_telemetry_of_the_layer() {
    let traced = Traced::new("cards");
    let (caller, ctx) = caller();
    let request = ctx.span("request").kind(SpanKind::Server).start();
    with_layer(&traced, || request.enter(|| info_span!("handler").in_scope(|| info_span!("inner").in_scope(|| {}))));
    let spans = spans(traced).await;
    let handler = named(&spans, "handler");
    assert_eq!(handler.span_context.trace_id(), caller.trace_id());
    assert_eq!(handler.parent_span_id, request.span_context().map(SpanContext::span_id));
    assert!(is_child(&spans, "inner", "handler"));
}

#[tokio::test]
async fn t21_under_a_context_with_another_tracer_spans_go_to_that_tracer() {
    let (traced, other) = (Traced::new("cards"), Traced::new("other"));
    with_layer(&traced, || {
        context(&other).enter(|| info_span!("alone").in_scope(|| start(&Context::current(), "below")));
        info_span!("outer").in_scope(|| context(&other).enter(|| drop(info_span!("inner"))));
    });
    let (spans, in_other) = (self::spans(traced).await, self::spans(other).await);
    assert!(is_child(&in_other, "below", "alone"));
    let inner = named(&in_other, "inner");
    assert_eq!(inner.parent_span_id, Some(named(&spans, "outer").span_context.span_id()));
    assert_eq!(spans.len(), 1, "{spans:#?}");
}

#[tokio::test]
async fn t12_a_span_is_a_child_of_the_innermost_descendant_of_its_context_on_any_task() {
    let traced = Traced::new("cards");
    with_layer(&traced, || {
        let request = context(&traced).span("request").start();
        let handler = request.enter(|| info_span!("handler"));
        // As on another task: the `tracing` span is propagated, the context is captured.
        info_span!(parent: &handler, "worker").in_scope(|| start(&request, "query"));
        // A span of the context between two `tracing` spans.
        request.enter(|| {
            handler.in_scope(|| {
                let step = request.span("step").start();
                step.enter(|| info_span!("detail").in_scope(|| start(&step, "innermost")));
            });
        });
        drop(handler);
        request.end();
    });
    let spans = spans(traced).await;
    for (child, parent) in
        [("worker", "handler"), ("query", "worker"), ("step", "handler"), ("detail", "step"), ("innermost", "detail")]
    {
        assert!(is_child(&spans, child, parent), "{child} below {parent}: {spans:#?}");
    }
}

#[tokio::test]
async fn c25_spawned_work_is_a_child_of_the_instrumented_function() {
    #[tracing::instrument(skip_all)]
    async fn handler(request: Context) {
        let mut group: Group<ContextError> = Group::new(&request);
        let captured = request.clone();
        let in_group = group.spawn(async move |ctx| {
            start(&ctx, "in group");
            query(&captured);
            Ok(())
        });
        let spawned = request.spawn(async { start(&Context::current(), "spawned") });
        let blocking = request.spawn_blocking(|ctx| start(ctx, "blocking"));
        request.detach_linked("audit").end();
        in_group.await.unwrap();
        group.join().await.unwrap();
        spawned.await.unwrap().unwrap();
        blocking.await.unwrap().unwrap();
    }

    #[tracing::instrument(skip_all)]
    fn query(ctx: &Context) {
        start(ctx, "by the captured context");
        info!("queried");
    }

    let traced = Traced::new("cards");
    // The single thread of the test also runs the tasks.
    let _default = tracing::subscriber::set_default(subscriber(&traced));
    let request = context(&traced).span("request").start();
    request.scope(handler(request.context().clone())).await;
    request.end();
    let spans = spans(traced).await;
    assert!(is_child(&spans, "handler", "request"));
    for name in ["in group", "spawned", "blocking", "query"] {
        assert!(is_child(&spans, name, "handler"), "{name}: {spans:#?}");
    }
    assert!(is_child(&spans, "by the captured context", "query"));
    assert_eq!(named(&spans, "query").events.len(), 1);
    let links: Vec<_> = named(&spans, "audit").links.iter().map(|link| &link.span_context).collect();
    assert_eq!(links, [&named(&spans, "handler").span_context]);
}

#[tokio::test]
async fn c25_work_spawned_in_a_tracing_span_without_an_ambient_context_joins_the_span() {
    let traced = Traced::new("cards");
    let _default = tracing::subscriber::set_default(subscriber(&traced));
    let job = async {
        let spawned = Context::background().spawn(async {
            start(&Context::current(), "spawned");
            drop(info_span!("of tracing"));
        });
        let detached = Context::current().detach_linked("audit");
        (spawned, detached)
    };
    let (spawned, detached) = job.instrument(info_span!("job")).await;
    spawned.await.unwrap().unwrap();
    detached.end();
    let spans = spans(traced).await;
    assert!(is_child(&spans, "spawned", "job") && is_child(&spans, "of tracing", "job"), "{spans:#?}");
    assert_eq!(named(&spans, "audit").links[0].span_context, named(&spans, "job").span_context);
}

static TENANT: Key<u64> = Key::baggage("tenant");

#[tokio::test]
async fn t18_a_tracing_span_has_the_copied_values_of_the_ambient_context() {
    let memory = throughline::telemetry::MemoryExporter::default();
    let telemetry =
        throughline::telemetry::builder("cards").exporter(memory.clone()).copy_to_spans(["tenant"]).build().unwrap();
    let traced = Traced { memory, telemetry };
    with_layer(&traced, || {
        info_span!("request").in_scope(|| {
            Context::background().with_value(&TENANT, 7).enter(|| drop(info_span!("below")));
        });
    });
    let spans = spans(traced).await;
    assert!(is_child(&spans, "below", "request"));
    assert_eq!(named(&spans, "below").attributes.get("tenant").and_then(Value::as_str), Some("7"));
}
