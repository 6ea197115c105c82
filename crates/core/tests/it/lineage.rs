//! Parents, links and tracers: T9, T11, T12.

use std::process::Command;
use std::sync::{Arc, Mutex};

use throughline_core::trace::{AlwaysOff, Link, Tracer};
use throughline_core::{Context, ContextError, Group, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::memory::Memory;

#[test]
fn t09_links_can_be_added_at_the_start_and_later() {
    let (memory, ctx) = Memory::new();
    let messages: Vec<_> = (0..3).map(|_| ctx.span("message").start().span_context().unwrap().clone()).collect();
    let span = ctx.span("batch").links(messages[..2].iter().cloned()).start();
    span.add_link(Link::new(messages[2].clone(), [("queue", "payments")]));
    span.end();
    let links = memory.span("batch").links;
    assert_eq!(links.iter().map(|link| link.span_context.clone()).collect::<Vec<_>>(), messages);
    assert_eq!(links[2].attributes.get("queue"), Some(&"payments".into()));
}

#[test]
fn t09_detach_linked_starts_a_trace_outside_the_request_and_links_its_span() {
    let (memory, ctx) = Memory::new();
    let cancel = ctx.with_cancel();
    let request = cancel.span("request").start();
    let audit = request.detach_linked("audit");
    cancel.cancel();
    assert!(audit.cause().is_none() && request.cause().is_some(), "cancelling the request does not affect it");
    audit.span("write").start().end();
    let left = request.span_context().unwrap().clone();
    drop((audit, request));
    assert_eq!(memory.tree(), "request\naudit\n  write\n");
    let audit = memory.span("audit");
    assert_ne!(audit.span_context.trace_id(), left.trace_id());
    assert_eq!(audit.links.iter().map(|link| &link.span_context).collect::<Vec<_>>(), [&left]);
}

#[test]
fn t09_a_new_root_links_the_span_it_left_and_keeps_cancellation() {
    let (memory, ctx) = Memory::new();
    let caller = SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, true);
    let cancel = ctx.with_remote_parent(caller.clone()).with_cancel();
    let root = cancel.span("root").new_root().new_root().start();
    cancel.cancel();
    assert!(root.cause().is_some());
    root.end();
    let root = memory.span("root");
    assert_eq!((root.parent_span_id, root.links.len()), (None, 1));
    assert_eq!(root.links[0].span_context, caller);
    ctx.span("first").new_root().start().end();
    assert_eq!(memory.span("first").links, [], "there was no span to link");
}

#[test]
fn t11_several_tracers_work_side_by_side() {
    let (cards, in_cards) = Memory::new();
    let (ledger, in_ledger) = Memory::new();
    let card = in_cards.span("card").start();
    // One request, passed to another service in the same process, which has its own tracer.
    let post = card.span("post").tracer(in_ledger.tracer()).start();
    post.span("insert").start().end();
    card.with_tracer(in_ledger.tracer()).span("read").start().end();
    drop((post, card));
    assert_eq!(cards.tree(), "card\n");
    assert_eq!(ledger.tree(), "post\n  insert\nread\n");
    let trace_id = cards.span("card").span_context.trace_id();
    assert!(ledger.spans().iter().all(|span| span.span_context.trace_id() == trace_id));
    assert_eq!(ledger.span("post").parent_span_id, Some(cards.span("card").span_context.span_id()));
    assert_eq!(in_cards.tracer().resource().and_then(|resource| resource.service_name()), Some("test"));
}

#[test]
fn t11_without_a_tracer_spans_record_nothing() {
    let ctx = Context::background().with_tracer(&Tracer::noop());
    let span = ctx.span("s").start();
    span.set_attribute("k", 1);
    assert!(!span.is_recording() && span.tracer().resource().is_none());
    assert!(span.span_context().is_some_and(|span| !span.is_sampled()));
}

/// The process default can be set once per process, so this test runs in its own process.
#[test]
fn t11_the_process_default_is_set_once_and_a_context_may_name_another() {
    const CHILD: &str = "THROUGHLINE_TEST_DEFAULT_TRACER";
    if std::env::var_os(CHILD).is_none() {
        let name = "lineage::t11_the_process_default_is_set_once_and_a_context_may_name_another";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && out.contains("1 passed"), "{out}");
        return;
    }
    let early = Context::background().span("early").start();
    assert!(!Tracer::current_default().is_enabled());
    let (default, ctx) = Memory::new();
    Tracer::set_default(ctx.tracer().clone()).unwrap();
    let (other, in_other) = Memory::new();
    let error = Tracer::set_default(in_other.tracer().clone()).unwrap_err();
    assert!(error.to_string().contains("default tracer already"), "{error}");

    drop(early);
    Context::background().span("by default").start().end();
    in_other.span("elsewhere").start().end();
    Context::background().with_tracer(&Tracer::noop()).span("unrecorded").start().end();
    assert_eq!((default.tree().as_str(), other.tree().as_str()), ("by default\n", "elsewhere\n"));
}

#[test]
fn t12_the_parent_is_the_span_of_the_given_context_not_of_the_current_one() {
    let (memory, ctx) = Memory::new();
    let (a, b) = (ctx.span("a").start(), ctx.span("b").start());
    b.enter(|| a.span("child of a").start().end());
    b.enter(|| ctx.span("root").start().end());
    drop((a, b));
    assert_eq!(memory.tree(), "a\n  child of a\nb\nroot\n");
}

/// What the `find_descendant` hook returns. The test sets it.
type Found = Arc<Mutex<Option<SpanContext>>>;

fn with_hook() -> (Arc<Memory>, Context, Found) {
    let found = Found::default();
    let hook = found.clone();
    let (memory, ctx) =
        Memory::with(|config| config.set_find_descendant(Arc::new(move |_: &Context| hook.lock().unwrap().clone())));
    (memory, ctx, found)
}

#[test]
fn t12_a_foreign_descendant_is_the_parent() {
    let (memory, ctx, found) = with_hook();
    let span = ctx.span("request").start();
    let own = span.span_context().unwrap();
    let id = SpanId::random();
    *found.lock().unwrap() = Some(SpanContext::new(own.trace_id(), id, own.flags(), TraceState::EMPTY, false));
    span.span("query").start().end();
    assert_eq!(memory.span("query").parent_span_id, Some(id));

    // Below a remote parent, the foreign descendant is already the local root.
    let caller = SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::NONE, TraceState::EMPTY, true);
    let inner = SpanContext::new(caller.trace_id(), id, TraceFlags::SAMPLED, TraceState::EMPTY, false);
    *found.lock().unwrap() = Some(inner);
    ctx.with_remote_parent(caller).span("below").start().end();
    let below = memory.span("below");
    assert_eq!((below.parent_span_id, below.parent_is_remote), (Some(id), false));
}

#[test]
fn t12_a_span_of_another_request_is_never_the_parent() {
    let (memory, ctx, found) = with_hook();
    let finished = ctx.span("finished").start();
    *found.lock().unwrap() = finished.span_context().cloned();
    finished.end();
    let span = ctx.span("request").start();
    span.span("query").start().end();
    let id = span.span_context().unwrap().span_id();
    span.end();
    assert_eq!(memory.span("query").parent_span_id, Some(id));
    assert_eq!(memory.span("request").parent_span_id, None);
}

#[tokio::test]
async fn c25_spawned_work_is_below_the_innermost_span_at_the_time_of_the_spawn() {
    async fn work(name: &'static str) {
        Context::current().current_span().set_attribute(name, true);
        Context::current().span(name).start().end();
    }

    let (memory, ctx, found) = with_hook();
    let request = ctx.span("request").start();
    let own = request.span_context().unwrap().clone();
    let inner = SpanContext::new(own.trace_id(), SpanId::random(), own.flags(), TraceState::EMPTY, false);
    let mut group: Group<ContextError> = Group::new(&request);
    *found.lock().unwrap() = Some(inner.clone());
    let spawned = request.spawn(async move {
        // The same holds for work that this work spawns.
        let ctx = Context::current();
        assert_eq!(ctx.span_context(), Some(&inner));
        ctx.spawn(work("nested")).await.unwrap().unwrap();
        work("spawned").await;
    });
    let local = tokio::task::LocalSet::new();
    let in_local_set = {
        let _inside = local.enter();
        request.spawn_local(work("local"))
    };
    let blocking = request.spawn_blocking(|ctx| ctx.span("blocking").start().end());
    let in_group = group.spawn(async move |_| {
        work("group").await;
        Ok(())
    });
    let detached = request.detach_linked("detached");
    *found.lock().unwrap() = None;
    spawned.await.unwrap().unwrap();
    local.run_until(in_local_set).await.unwrap().unwrap();
    blocking.await.unwrap().unwrap();
    in_group.await.unwrap();
    group.join().await.unwrap();
    detached.end();
    request.spawn(work("afterwards")).await.unwrap().unwrap();
    request.end();

    let id = |name| memory.span(name).parent_span_id;
    let inner = memory.span("detached").links[0].span_context.clone();
    assert_eq!(memory.span("detached").links.len(), 1, "it links only the innermost span");
    assert_ne!(inner.span_id(), own.span_id());
    for name in ["spawned", "nested", "local", "blocking", "group"] {
        assert_eq!(id(name), Some(inner.span_id()), "{name}");
        assert_eq!(memory.span(name).span_context.trace_id(), own.trace_id(), "{name}");
    }
    assert_eq!(id("afterwards"), Some(own.span_id()));
    let written = memory.span("request").attributes;
    assert_eq!(written.len(), 5, "writes go to the span of the context: {written:?}");
    assert_eq!(ctx.tracer().late_writes(), 0);
}

#[test]
fn t12_find_descendant_is_called_for_recorded_spans_only() {
    let (memory, ctx) = Memory::with(|config| {
        config.sampler = Arc::new(AlwaysOff);
        config.set_find_descendant(Arc::new(|_: &Context| unreachable!("not called for unrecorded spans")));
    });
    let root = ctx.span("root").start();
    root.span("child").start().end();
    root.detach_linked("detached").end();
    root.end();
    assert_eq!(memory.count(), 0);
}
