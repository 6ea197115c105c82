//! How spans record a cancellation: T1, T6.

use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use throughline_core::trace::{SpanLimits, Status, Value};
use throughline_core::{Cause, Context, ContextError, Group, Span, SpanRecord};

use crate::memory::Memory;

/// Returns the cause, the message, and the events of a cancellation.
fn recorded(span: &SpanRecord) -> (Option<&str>, Option<&str>, Vec<&str>) {
    let text = |key| span.attributes.get(key).and_then(Value::as_str);
    let events = span.events.iter().map(|event| &*event.name).filter(|name| name.starts_with("throughline."));
    (text("throughline.cancel.cause"), text("throughline.cancel.message"), events.collect())
}

fn cause_of(memory: &Memory, name: &str) -> Option<String> {
    recorded(&memory.span(name)).0.map(str::to_owned)
}

const CANCELLED_EVENT: [&str; 1] = ["throughline.cancelled"];

#[test]
fn t06_a_span_that_ends_while_its_context_is_done_records_the_cause_once() {
    let (memory, ctx) = Memory::new();
    let handle = ctx.with_cancel();
    let (dropped, ended) = (handle.span("dropped").start(), handle.span("ended").start());
    let dated = handle.span("dated").start();
    let named = handle.span("named").attribute("throughline.cancel.cause", "Ours").start();
    handle.cancel_with(Cause::ClientDisconnected);
    dropped.record_cancelled(&Cause::ClientDisconnected);
    drop(dropped);
    drop(named);
    ended.end();
    dated.end_at(std::time::UNIX_EPOCH + Duration::from_secs(9_000_000_000));
    handle.span("late").start().end();
    drop(ctx.span("live").start());
    for name in ["dropped", "ended", "dated", "late"] {
        let span = memory.span(name);
        assert_eq!(recorded(&span), (Some("client_disconnected"), None, CANCELLED_EVENT.into()), "{name}");
        assert_eq!(span.status, Status::Unset, "{name}");
        assert!(span.events[0].time <= span.end_time, "{name}");
    }
    assert_eq!(recorded(&memory.span("named")), (Some("Ours"), None, vec![]), "an attribute that was set stays");
    assert_eq!(recorded(&memory.span("live")), (None, None, vec![]));
}

#[test]
fn t06_names_of_causes_are_in_snake_case() {
    for (cause, name) in [
        (Cause::Canceled, "canceled"),
        (Cause::DeadlineExceeded, "deadline_exceeded"),
        (Cause::ClientDisconnected, "client_disconnected"),
        (Cause::Abandoned, "abandoned"),
        (Cause::RequestFinished, "request_finished"),
        (Cause::Shutdown, "shutdown"),
        (Cause::Panicked, "panicked"),
        (Cause::HandleDropped, "handle_dropped"),
    ] {
        let (memory, ctx) = Memory::new();
        let handle = ctx.with_cancel();
        let root = handle.span("root").start();
        let span = root.span("s").start();
        handle.cancel_with(cause);
        drop(span);
        assert_eq!(recorded(&memory.span("s")), (Some(name), None, CANCELLED_EVENT.into()));
    }
    let (memory, ctx) = Memory::new();
    drop(ctx.with_timeout(Duration::ZERO).span("s").start());
    assert_eq!(recorded(&memory.span("s")), (Some("deadline_exceeded"), None, CANCELLED_EVENT.into()));
}

#[test]
fn t06_a_cause_that_is_an_error_records_its_message_with_sources() {
    let (memory, ctx) = Memory::new();
    let handle = ctx.with_cancel();
    let span = handle.span("s").start();
    let error = io::Error::other(io::Error::other("disk full"));
    handle.cancel_with(error);
    drop(span);
    assert_eq!(recorded(&memory.span("s")), (Some("error"), Some("disk full"), CANCELLED_EVENT.into()));
}

#[tokio::test]
async fn t06_siblings_in_a_group_record_the_error_that_stopped_them() {
    #[derive(Clone, Debug)]
    struct Failed(&'static str);
    impl fmt::Display for Failed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }
    impl std::error::Error for Failed {}
    impl From<ContextError> for Failed {
        fn from(_: ContextError) -> Self {
            Failed("stopped")
        }
    }
    let (memory, ctx) = Memory::new();
    let mut group: Group<Failed> = Group::new(&ctx);
    let waits = group.spawn(async |ctx| ctx.in_span("waits", async |_| Ok(pending::<u8>().await)).await);
    let fails = group.spawn(async |ctx| ctx.in_span("fails", async |_| Err::<(), _>(Failed("db is down"))).await);
    assert!(group.join().await.is_err() && waits.await.is_err() && fails.await.is_err());
    assert_eq!(recorded(&memory.span("waits")), (Some("error"), Some("db is down"), CANCELLED_EVENT.into()));
    assert_eq!(memory.span("waits").status, Status::Unset);
    assert_eq!(recorded(&memory.span("fails")), (None, None, vec![]));
    assert_eq!(memory.span("fails").status, Status::Error("db is down".into()));
}

#[test]
fn t06_a_cause_whose_display_panics_is_recorded_without_its_message() {
    #[derive(Debug)]
    struct PanicsInDisplay;
    impl fmt::Display for PanicsInDisplay {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("on purpose")
        }
    }
    impl std::error::Error for PanicsInDisplay {}
    let (memory, ctx) = Memory::new();
    let handle = ctx.with_cancel();
    handle.cancel_with(PanicsInDisplay);
    drop(handle.span("dropped").start());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _span = handle.span("unwound").start();
        panic!("another one, on purpose");
    }));
    assert!(panic.is_err());
    assert_eq!(recorded(&memory.span("dropped")), (Some("error"), Some(""), CANCELLED_EVENT.into()));
    assert_eq!(memory.span("unwound").attributes.get("error.type"), Some(&"panic".into()));
}

#[test]
fn t06_the_requests_own_span_never_records_request_finished() {
    let (memory, ctx) = Memory::new();
    let request = ctx.with_cancel();
    let (own, ended) = (request.span("request").start(), request.span("ended").start());
    let straggler = own.span("straggler").start();
    request.cancel_with(Cause::RequestFinished);
    own.record_cancelled(&Cause::RequestFinished);
    drop(straggler);
    drop(own);
    ended.end();
    assert_eq!(recorded(&memory.span("request")), (None, None, vec![]));
    assert_eq!(recorded(&memory.span("ended")), (None, None, vec![]));
    assert_eq!(recorded(&memory.span("straggler")), (Some("request_finished"), None, CANCELLED_EVENT.into()));
}

#[test]
fn t06_shed_work_has_the_event_shed_and_no_other() {
    let (memory, ctx) = Memory::new();
    let expired = ctx.with_timeout(Duration::ZERO);
    let span = expired.span("s").start();
    span.record_shed(&Cause::DeadlineExceeded);
    span.record_cancelled(&Cause::DeadlineExceeded);
    span.end();
    assert_eq!(recorded(&memory.span("s")), (Some("deadline_exceeded"), None, vec!["throughline.shed"]));
}

#[test]
fn t06_the_first_cause_stays_and_limits_apply() {
    let limits = SpanLimits { attributes: 1, ..SpanLimits::default() };
    let (memory, ctx) = Memory::with(|config| config.limits = limits);
    let span = ctx.span("s").attribute("full", true).start();
    span.record_cancelled(&Cause::Abandoned);
    span.record_cancelled(&Cause::Shutdown);
    span.end();
    let span = memory.span("s");
    assert_eq!(recorded(&span), (None, None, CANCELLED_EVENT.into()), "one event, even if a limit drops the cause");
    assert_eq!(span.dropped_attributes_count, 1);

    let (memory, ctx) = Memory::new();
    let span = ctx.span("s").start();
    span.record_cancelled(&Cause::Abandoned);
    span.record_cancelled(&Cause::Shutdown);
    span.end();
    assert_eq!(recorded(&memory.span("s")), (Some("abandoned"), None, CANCELLED_EVENT.into()));
}

/// Polls `work` once, calls `meanwhile`, and drops `work`.
async fn drop_half_way<F: Future>(work: F, meanwhile: impl FnOnce()) {
    let mut work = Box::pin(work);
    assert!(poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await.is_pending());
    meanwhile();
}

#[tokio::test]
async fn t01_in_span_dropped_before_its_end_records_the_cause_of_its_context() {
    let (memory, ctx) = Memory::new();
    let handle = ctx.with_cancel();
    let work = handle.in_span("work", async |_| Ok::<_, String>(pending::<u8>().await));
    drop_half_way(work, || handle.cancel()).await;
    assert_eq!(recorded(&memory.span("work")), (Some("canceled"), None, CANCELLED_EVENT.into()));
}

#[tokio::test]
async fn t01_in_span_dropped_while_its_context_is_live_records_abandoned() {
    let (memory, ctx) = Memory::new();
    let never = |name| ctx.in_span(name, async |_| Ok::<_, String>(pending::<u8>().await));
    tokio::select! {
        biased;
        _ = never("loser") => unreachable!(),
        () = std::future::ready(()) => {}
    }
    let task = tokio::spawn({
        let ctx = ctx.clone();
        async move { ctx.in_span("aborted", async |_| Ok::<_, String>(pending::<u8>().await)).await }
    });
    tokio::task::yield_now().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    for name in ["loser", "aborted"] {
        let span = memory.span(name);
        assert_eq!(recorded(&span), (Some("abandoned"), None, CANCELLED_EVENT.into()), "{name}");
        assert_eq!(span.status, Status::Unset, "{name}");
    }
    ctx.in_span("whole", async |_| Ok::<_, String>(())).await.unwrap();
    assert_eq!(recorded(&memory.span("whole")), (None, None, vec![]));
}

#[test]
fn t06_a_span_that_is_abandoned_if_dropped_records_the_drop() {
    let (memory, ctx) = Memory::new();
    let handle = ctx.with_cancel();
    let start = |name| handle.span(name).start().abandoned_if_dropped();
    drop(start("dropped"));
    start("ended").end();
    let explained = start("explained");
    explained.record_cancelled(&Cause::Shutdown);
    drop(explained);
    let done = start("done");
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _span = start("panicked");
        panic!("on purpose");
    }));
    assert!(panic.is_err());
    handle.cancel();
    drop(done);
    let cause = |name| cause_of(&memory, name);
    assert_eq!(cause("dropped").as_deref(), Some("abandoned"));
    assert_eq!((cause("ended"), cause("panicked")), (None, None));
    assert_eq!((cause("explained").as_deref(), cause("done").as_deref()), (Some("shutdown"), Some("canceled")));
}

#[tokio::test]
async fn t01_in_span_dropped_by_a_panic_does_not_record_abandoned() {
    let (memory, ctx) = Memory::new();
    let task = tokio::spawn(async move {
        let _ = ctx.in_span("work", async |_| if true { panic!("on purpose") } else { Ok::<_, String>(()) }).await;
    });
    assert!(task.await.unwrap_err().is_panic());
    let span = memory.span("work");
    assert_eq!((recorded(&span), &span.status), ((None, None, vec![]), &Status::Error("panicked".into())));
}

#[tokio::test]
async fn t01_in_span_does_not_record_an_error_that_only_reports_that_the_context_is_done() {
    let done = |cause: Cause| {
        let (memory, ctx) = Memory::new();
        let handle = ctx.with_cancel();
        handle.cancel_with(cause);
        (memory, handle)
    };
    for error in ["context canceled", "query: context canceled", "CANCELLED: client disconnected"] {
        let (memory, ctx) = done(Cause::ClientDisconnected);
        assert!(ctx.in_span("work", async |_| Err::<(), _>(error)).await.is_err());
        let span = memory.span("work");
        assert_eq!(recorded(&span), (Some("client_disconnected"), None, CANCELLED_EVENT.into()), "{error}");
        assert_eq!((&span.status, span.events.len()), (&Status::Unset, 1), "{error}");
    }
    let (memory, ctx) = Memory::new();
    let expired = ctx.with_timeout(Duration::ZERO);
    let checked = expired.in_span("work", async |ctx| Ok::<_, io::Error>(ctx.check()?)).await;
    assert!(checked.is_err());
    assert_eq!(recorded(&memory.span("work")), (Some("deadline_exceeded"), None, CANCELLED_EVENT.into()));
    assert_eq!(memory.span("work").status, Status::Unset);
}

#[tokio::test]
async fn t01_in_span_records_other_errors_and_those_that_report_another_context() {
    let (memory, ctx) = Memory::new();
    let handle = ctx.with_cancel();
    handle.cancel();
    for (name, error) in
        [("failed", "disk full"), ("refused", "the order was cancelled"), ("late", "DEADLINE_EXCEEDED: 1 s")]
    {
        assert!(handle.in_span(name, async |_| Err::<(), _>(error)).await.is_err());
        assert_eq!(memory.span(name).status, Status::Error(error.into()));
        assert_eq!(cause_of(&memory, name).as_deref(), Some("canceled"));
    }

    let below = |ctx: Context| async move { ctx.with_timeout(Duration::ZERO).check() };
    assert!(ctx.in_span("below", below).await.is_err());
    assert!(matches!(memory.span("below").status, Status::Error(_)), "its own context is live");
    assert_eq!(cause_of(&memory, "below"), None);
}

#[test]
fn a_span_that_is_not_recorded_does_not_format_the_cause() {
    #[derive(Debug)]
    struct PanicsInDisplay;
    impl fmt::Display for PanicsInDisplay {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("must not be formatted")
        }
    }
    impl std::error::Error for PanicsInDisplay {}
    let ctx = Context::background();
    let span: Span = ctx.span("s").start();
    span.record_cancelled(&Cause::Error(Arc::new(PanicsInDisplay)));
}

#[tokio::test(start_paused = true)]
async fn c30_the_span_of_a_shield_records_when_its_grace_begins_to_count() {
    let (memory, ctx) = Memory::new();
    let request = ctx.with_cancel();
    let span = request.span("pay").start();
    let payment = span.shielded(Duration::from_millis(1500));
    assert_eq!(payment.span_context(), span.span_context());
    request.cancel_with(Cause::ClientDisconnected);
    assert!(!payment.is_done());
    payment.done().await;
    payment.span("late").start().end();
    span.end();
    let span = memory.span("pay");
    let event = span.events.iter().find(|event| event.name == "throughline.shield").unwrap();
    assert_eq!(event.attributes.get("throughline.cancel.cause").and_then(Value::as_str), Some("client_disconnected"));
    assert_eq!(event.attributes.get("throughline.shield.grace_ms").and_then(Value::as_f64), Some(1500.0));
    assert_eq!(span.events.iter().filter(|event| event.name == "throughline.shield").count(), 1);
    assert_eq!(cause_of(&memory, "late").as_deref(), Some("client_disconnected"));
}
