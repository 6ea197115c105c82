//! Which spans are recorded, and what is propagated in each case: T13, T16.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use throughline_core::trace::{
    AlwaysOff, AlwaysOn, Attributes, ParentBased, Sampler, SamplingParameters, SamplingResult, SpanKind, TraceIdRatio,
    Tracer,
};
use throughline_core::{Context, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::memory::Memory;

fn caller(flags: TraceFlags, trace_state: &str) -> SpanContext {
    SpanContext::new(TraceId::random(), SpanId::random(), flags, trace_state.parse().unwrap(), true)
}

fn child_of<'a>(parent: &'a SpanContext) -> SamplingParameters<'a> {
    let mut span = SamplingParameters::new(parent.trace_id(), "GET /");
    span.parent = Some(parent);
    span
}

#[test]
fn t13_the_default_sampler_follows_the_caller_and_records_new_traces() {
    for (sampled, flags) in [(true, TraceFlags::SAMPLED), (false, TraceFlags::NONE)] {
        let caller = caller(flags, "");
        assert!(AlwaysOn.sample(&child_of(&caller)).sampled);
        assert!(!AlwaysOff.sample(&child_of(&caller)).sampled);
        assert_eq!(ParentBased::new(AlwaysOff).sample(&child_of(&caller)).sampled, sampled);

        let (memory, ctx) = Memory::new();
        ctx.with_remote_parent(caller.clone()).span("s").start().end();
        ctx.span("s").remote_parent(caller).start().end();
        assert_eq!(memory.count(), 2 * usize::from(sampled));
    }
    let (memory, ctx) = Memory::new();
    ctx.span("ours").start().end();
    assert_eq!(memory.count(), 1, "traces that start here are recorded");
}

/// A sampler that stores the parameters of each call.
struct StoresCalls(Arc<Mutex<Vec<String>>>);

impl Sampler for StoresCalls {
    fn sample(&self, span: &SamplingParameters<'_>) -> SamplingResult {
        let parent = span.parent.map(|parent| parent.is_remote());
        self.0.lock().unwrap().push(format!(
            "{} {} {:?} links={} parent={parent:?}",
            span.name,
            span.kind,
            span.attributes,
            span.links.len()
        ));
        let mut result = SamplingResult::record();
        result.attributes.push(("rule".into(), "ours".into()));
        result.trace_state = Some("ours=1".parse().unwrap());
        result
    }
}

#[test]
fn t13_the_sampler_is_called_once_per_trace_and_sees_what_the_span_has() {
    let calls = Arc::default();
    let (memory, ctx) = Memory::with_sampler(StoresCalls(Arc::clone(&calls)));
    let other = caller(TraceFlags::NONE, "");
    let ctx = ctx.with_remote_parent(caller(TraceFlags::NONE, "theirs=2"));
    let root = ctx.span("GET /").kind(SpanKind::Server).attribute("route", "/").link(other).start();
    let child = root.span("child").start();
    child.span("grandchild").start().end();
    child.end();
    root.end();
    assert_eq!(*calls.lock().unwrap(), [r#"GET / server {"route": Str("/")} links=1 parent=Some(true)"#]);
    assert_eq!(memory.tree(), "GET /\n  child\n    grandchild\n");
    assert_eq!(memory.span("GET /").attributes.get("rule"), Some(&"ours".into()));
    assert!(memory.span("GET /").parent_is_remote && !memory.span("child").parent_is_remote);
    assert!(memory.spans().iter().all(|span| span.span_context.trace_state().as_str() == "ours=1"));
}

/// Attributes that must not be computed.
struct NotComputed;

impl From<NotComputed> for Attributes {
    fn from(_: NotComputed) -> Self {
        unreachable!("never computed")
    }
}

#[test]
fn t13_an_unsampled_span_has_an_identity_and_computes_nothing() {
    let (memory, ctx) = Memory::with_sampler(AlwaysOff);
    let root = ctx.span("root").attribute_with("k", || -> i64 { unreachable!("never computed") }).start();
    root.set_attribute_with("k", || -> i64 { unreachable!("never computed") });
    root.add_event("e", NotComputed);
    root.add_event_at("e", SystemTime::now(), NotComputed);
    let child = root.span("child").attribute_with("k", || -> i64 { unreachable!("never computed") }).start();
    child.set_attribute("k", 1);
    assert!(!root.is_recording() && !child.is_recording() && !child.current_span().is_recording());

    let (root, child) = (root.span_context().unwrap().clone(), child.span_context().unwrap().clone());
    assert_eq!((root.is_sampled(), root.flags().is_random()), (false, false));
    assert_eq!(child, root, "an internal span shares the identity");
    assert_eq!((memory.count(), ctx.tracer().late_writes()), (0, 0));

    let (memory, ctx) = Memory::new();
    ctx.span("recorded").attribute_with("k", || 6 * 7).start().end();
    assert_eq!(memory.span("recorded").attributes.get("k"), Some(&42.into()));
}

#[test]
fn t13_every_outgoing_request_has_its_own_parent_id() {
    let (_, ctx) = Memory::with_sampler(AlwaysOff);
    for ctx in [ctx, Context::background().with_tracer(&Tracer::noop())] {
        let root = ctx.span("root").start();
        let calls =
            [SpanKind::Client, SpanKind::Client, SpanKind::Producer].map(|kind| root.span("call").kind(kind).start());
        let mut ids: Vec<_> = calls.iter().map(|call| call.span_context().unwrap().span_id()).collect();
        ids.push(root.span_context().unwrap().span_id());
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 4);
        let trace_id = root.span_context().unwrap().trace_id();
        assert!(calls.iter().all(|call| call.span_context().unwrap().trace_id() == trace_id));
    }
}

#[test]
fn t13_received_flags_are_kept_and_the_random_flag_on_new_traces_is_optional() {
    let flags = |ctx: &Context| ctx.span("s").start().span_context().unwrap().flags();
    assert_eq!(flags(&Context::background().with_tracer(&Tracer::noop())), TraceFlags::NONE);
    for (chosen, own) in [(false, TraceFlags::SAMPLED), (true, TraceFlags::SAMPLED | TraceFlags::RANDOM)] {
        let (_, ctx) = Memory::with(|config| config.random_flag = chosen);
        assert_eq!(flags(&ctx), own);
        for theirs in
            [TraceFlags::NONE, TraceFlags::RANDOM, TraceFlags::SAMPLED, TraceFlags::SAMPLED | TraceFlags::RANDOM]
        {
            assert_eq!(flags(&ctx.with_remote_parent(caller(theirs, ""))), theirs);
        }
    }
}

#[test]
fn t13_a_sampler_that_panics_leaves_one_trace_unrecorded() {
    struct Panics;
    impl Sampler for Panics {
        fn sample(&self, _: &SamplingParameters<'_>) -> SamplingResult {
            panic!("on purpose")
        }
    }
    let (memory, ctx) = Memory::with_sampler(Panics);
    let span = ctx.span("s").start();
    assert!(span.span_context().is_some_and(|span| !span.is_sampled()));
    drop(span);
    assert_eq!(memory.count(), 0);
}

#[test]
fn t13_ratio_records_its_share_and_each_process_records_the_same_traces() {
    let quarter = [TraceIdRatio::new(0.25), TraceIdRatio::new(0.25)];
    let half = TraceIdRatio::new(0.5);
    let mut recorded = 0;
    for _ in 0..10_000 {
        let id = TraceId::random();
        let span = SamplingParameters::new(id, "s");
        let [a, b] = quarter.map(|sampler| sampler.sample(&span).sampled);
        assert_eq!(a, b);
        assert!(!a || half.sample(&span).sampled, "a greater ratio records all traces of a smaller one");
        recorded += u32::from(a);
    }
    // 2,500 are expected, with a standard deviation of 43. The bounds are ten of them away.
    assert!((2_070..=2_930).contains(&recorded), "{recorded} of 10,000");
}

#[test]
fn t13_ratio_at_its_limits() {
    let id = |low: u64| TraceId::from_bytes(((1_u128 << 64) | u128::from(low)).to_be_bytes()).unwrap();
    let sampled = |ratio, low| TraceIdRatio::new(ratio).sample(&SamplingParameters::new(id(low), "s")).sampled;
    let most = (1 << 56) - 1;
    for ratio in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY, 1e-30] {
        assert!(!sampled(ratio, most), "{ratio}");
    }
    for ratio in [1.0, 2.0, f64::INFINITY] {
        assert!(sampled(ratio, 0), "{ratio}");
    }
    assert!(sampled(0.5, 1 << 55) && !sampled(0.5, (1 << 55) - 1), "the threshold itself is recorded");
    assert!(!sampled(0.5, 0xff << 56), "the highest byte does not count as randomness");
}

#[test]
fn t13_ratio_reads_and_writes_ot_in_the_tracestate() {
    let low = "00000000000000010000000000000001".parse().unwrap();
    let sample = |ratio, state: &str| {
        let parent =
            SpanContext::new(low, SpanId::random(), TraceFlags::NONE, state.parse::<TraceState>().unwrap(), true);
        let result = TraceIdRatio::new(ratio).sample(&child_of(&parent));
        (result.sampled, result.trace_state.map(|state| state.as_str().to_owned()))
    };
    let state = |text: &str| Some(text.to_owned());
    assert_eq!(sample(1.0, "a=1"), (true, state("ot=th:0,a=1")));
    assert_eq!(sample(0.5, "a=1"), (false, None), "the caller's tracestate is unchanged");
    assert_eq!(sample(0.5, "a=1,ot=rv:80000000000000"), (true, state("ot=th:8;rv:80000000000000,a=1")));
    assert_eq!(sample(0.5, "ot=th:0;rv:7fffffffffffff;x:y,a=1"), (false, state("ot=rv:7fffffffffffff;x:y,a=1")));
    assert_eq!(sample(0.5, "ot=th:0"), (false, state("")), "a threshold that does not apply is not propagated");
    // With `th:8` the value has 256 bytes. The 14 digits of one third do not fit instead of it.
    let rest = format!("rv:ffffffffffffff;x:{}", "x".repeat(231));
    assert_eq!(
        sample(1.0 / 3.0, &format!("a=1,ot=th:8;{rest}")),
        (true, state(&format!("ot={rest},a=1"))),
        "the threshold is left out, and so is the caller's"
    );
    assert_eq!(sample(1.0, "a=1,ot=x:y ;th:8"), (true, state("a=1")), "a value may not end in a space");
    for bad in ["80", "8000000000000g", "8000000000000A", "800000000000000", "+8000000000000"] {
        assert!(!sample(0.5, &format!("ot=rv:{bad}")).0, "{bad}: the trace id decides");
    }
}

#[test]
fn t13_without_a_tracer_the_callers_decision_is_propagated() {
    let noop = Context::background().with_tracer(&Tracer::noop());
    let theirs = caller(TraceFlags::SAMPLED, "a=1");
    let span = noop.with_remote_parent(theirs.clone()).span("s").start();
    let ours = span.span_context().unwrap().clone();
    assert!(!span.is_recording() && ours.is_sampled() && !ours.is_remote());
    assert_eq!((ours.trace_id(), ours.trace_state()), (theirs.trace_id(), theirs.trace_state()));
    assert_ne!(ours.span_id(), theirs.span_id());
}

#[test]
fn t16_spans_after_a_shutdown_record_nothing_and_are_counted() {
    let (memory, ctx) = Memory::new();
    let before = ctx.span("before").start();
    memory.shut_down();
    let below = before.span("below").start();
    let after = ctx.span("after").start();
    after.set_attribute("k", 1);
    below.set_attribute("k", 1);
    assert!(!below.is_recording() && !after.is_recording());
    assert!(below.span_context().is_some() && after.span_context().is_some(), "they still have an identity");
    let client = below.span("call").kind(SpanKind::Client).start();
    assert_ne!(client.span_context(), below.span_context());
    drop((client, below, after));
    assert_eq!(memory.refused(), 2, "each span that would have been recorded");
    drop(before);
    assert_eq!(memory.tree(), "before\n", "spans that started before are still given to the recorder");
}
