//! Starting, writing and ending spans: T1–T6.

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use throughline_core::trace::{SpanKind, SpanLimits, Status, Value};
use throughline_core::{Context, Span};

use crate::memory::Memory;

#[test]
fn t01_a_span_dereferences_to_its_context_and_ends_when_dropped_or_ended() {
    let (memory, ctx) = Memory::new();
    {
        let request = ctx.span("request").kind(SpanKind::Server).start();
        fn work(ctx: &Context) {
            ctx.span("query").start().end();
            let _second = ctx.span("render").start();
        }
        work(&request);
        assert_eq!(memory.count(), 2, "the children have ended, the request has not");
    }
    assert_eq!(memory.tree(), "request\n  query\n  render\n");
    assert_eq!(memory.span("request").kind, SpanKind::Server);
    assert_eq!(memory.span("request").parent_span_id, None);
}

#[test]
fn t01_an_empty_name_becomes_unknown() {
    let (memory, ctx) = Memory::new();
    ctx.span("").start().end();
    let span = ctx.span("named").start();
    span.set_name("");
    span.end();
    assert_eq!(memory.tree(), "unknown\nunknown\n");
}

#[tokio::test]
async fn t01_in_span_sets_the_current_context_during_each_poll_and_ends_the_span() {
    let (memory, ctx) = Memory::new();
    let out = ctx.in_span("outer", async |ctx| {
        for _ in 0..3 {
            let mut pended = false;
            poll_fn(|cx| {
                assert_eq!(Context::current().span_context(), ctx.span_context(), "current during each poll");
                if std::mem::replace(&mut pended, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
        ctx.in_span("inner", async |_| Ok::<_, String>(7)).await
    });
    assert_eq!(out.await, Ok(7));
    assert_eq!(Context::current().span_context(), None, "not current outside");
    assert_eq!(memory.tree(), "outer\n  inner\n");
}

#[tokio::test]
async fn t01_in_span_records_an_error_once_and_returns_it() {
    let (memory, ctx) = Memory::new();
    let out = ctx.in_span("reserve", async |ctx| {
        let error = Failure("no such card", Some(Box::new(Failure("no row", None))));
        ctx.current_span().record_error(&error);
        Err::<(), _>(error)
    });
    assert_eq!(out.await.unwrap_err().0, "no such card");
    assert_eq!(ctx.in_span("plain", async |_| Err::<(), _>("words only")).await, Err("words only"));

    let span = memory.span("reserve");
    assert_eq!(span.status, Status::Error("no such card: no row".into()), "the longer message stays");
    assert_eq!(span.events.len(), 1, "recorded inside and again when returned: one event");
    assert_eq!(memory.span("plain").status, Status::Error("words only".into()));
}

#[test]
fn t01_in_span_starts_nothing_before_its_first_poll() {
    let (memory, ctx) = Memory::new();
    drop(ctx.in_span("never", async |_| Ok::<_, String>(())));
    assert_eq!(memory.count(), 0);
}

#[test]
fn t02_a_callee_can_write_to_the_current_span_and_does_not_end_it() {
    let (memory, ctx) = Memory::new();
    let span = ctx.span("request").start();
    let cancel = span.with_cancel();
    let other = ctx.span("other").start();
    {
        let current = cancel.current_span();
        current.set_attribute("card", 7);
        current.add_event("checked", [("limit", 250)]);
        current.add_event("plain", ());
        current.add_link(other.span_context().unwrap().clone());
        current.set_status(Status::Ok);
        current.set_name("POST /cards");
        assert!(current.is_recording());
    }
    assert_eq!(memory.count(), 0, "dropping the `SpanRef` does not end the span");
    span.end();

    let record = memory.span("POST /cards");
    assert_eq!(record.attributes.get("card"), Some(&Value::I64(7)));
    assert_eq!(record.events.iter().map(|event| &*event.name).collect::<Vec<_>>(), ["checked", "plain"]);
    assert_eq!(record.events[0].attributes.get("limit"), Some(&Value::I64(250)));
    assert_eq!(Some(&record.links[0].span_context), other.span_context());
    assert_eq!(record.status, Status::Ok);
}

#[test]
fn t03_an_attribute_is_removed_until_the_span_ends() {
    let (memory, ctx) = Memory::new();
    let span = ctx.span("request").attribute("kept", 1).attribute("removed", 2).start();
    for key in ["removed", "never.set", ""] {
        span.remove_attribute(key);
    }
    span.set_attribute("set.again", 1);
    span.remove_attribute("set.again");
    span.set_attribute("set.again", 2);
    let request = span.context().clone();
    span.end();
    request.current_span().remove_attribute("kept");
    let span = memory.span("request");
    let value = |key: &str| span.attributes.get(key).and_then(Value::as_i64);
    assert_eq!((value("kept"), value("removed"), value("set.again")), (Some(1), None, Some(2)));
}

#[test]
fn t02_without_a_span_every_write_is_a_no_op() {
    let ctx = Context::background();
    let current = ctx.current_span();
    current.set_attribute("k", "v");
    current.add_event("e", ());
    current.record_error(&Failure("x", None));
    current.set_attribute_with("k", || -> &str { unreachable!("never computed") });
    assert!(!current.is_recording() && current.span_context().is_none());
}

#[test]
fn t04_a_span_does_not_change_after_its_end_and_late_writes_are_counted() {
    let (memory, ctx) = Memory::new();
    let span = ctx.span("short").start();
    let below = span.context().clone();
    span.end();
    let before = memory.span("short");

    let late = below.current_span();
    assert!(!late.is_recording());
    late.set_attribute("k", "v");
    late.add_event("e", ());
    late.set_status(Status::Ok);
    assert_eq!(memory.span("short"), before);
    assert_eq!(ctx.tracer().late_writes(), 3);

    let below = below.span("after").start();
    below.end();
    assert_eq!(memory.tree(), "short\n  after\n", "a child may start after its parent has ended");
}

#[test]
fn t04_set_attribute_with_after_the_end_computes_nothing_and_is_a_late_write() {
    let (_memory, ctx) = Memory::new();
    let span = ctx.span("short").start();
    let below = span.context().clone();
    span.end();
    below.current_span().set_attribute_with("k", || -> &str { unreachable!("never computed") });
    assert_eq!(ctx.tracer().late_writes(), 1);
}

#[test]
fn t04_late_writes_are_counted_by_the_tracer_of_the_span() {
    let (_memory, ctx) = Memory::new();
    let (_other, elsewhere) = Memory::new();
    let span = ctx.span("short").start();
    let below = span.with_tracer(elsewhere.tracer()).with_cancel();
    let merged = Context::merge(&elsewhere, &below);
    span.end();
    for late in [below.context(), &merged] {
        late.current_span().set_attribute("k", "v");
        late.current_span().set_attribute_with("k", || "v");
    }
    assert_eq!((ctx.tracer().late_writes(), elsewhere.tracer().late_writes()), (4, 0));
}

#[test]
fn t04_end_and_the_drop_after_it_end_the_span_once() {
    let (memory, ctx) = Memory::new();
    // `end` takes the span. The drop that follows finds nothing to end.
    ctx.span("once").start().end();
    assert_eq!((memory.count(), ctx.tracer().late_writes()), (1, 0));
}

#[test]
fn t05_the_status_changes_from_unset_to_error_to_ok_and_never_back() {
    let end = |statuses: &[Status]| {
        let (memory, ctx) = Memory::new();
        let span = ctx.span("s").start();
        statuses.iter().for_each(|status| span.set_status(status.clone()));
        span.end();
        memory.span("s").status
    };
    let error = |text: &'static str| Status::Error(text.into());
    assert_eq!(end(&[]), Status::Unset);
    assert_eq!(end(&[error("a"), Status::Unset]), error("a"));
    assert_eq!(end(&[error("a"), error("b")]), error("b"));
    assert_eq!(end(&[error("a"), Status::Ok]), Status::Ok);
    assert_eq!(end(&[Status::Ok, error("a"), Status::Unset]), Status::Ok);
}

#[derive(Debug)]
struct Failure(&'static str, Option<Box<Failure>>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.1.as_deref().map(|source| source as _)
    }
}

/// Returns the span's status and the messages of its exceptions.
fn recorded(record: impl FnOnce(&Span)) -> (Status, Vec<String>) {
    let (memory, ctx) = Memory::new();
    let span = ctx.span("s").start();
    record(&span);
    span.end();
    let span = memory.span("s");
    let message = |event: &throughline_core::trace::Event| {
        assert_eq!(event.name, "exception");
        event.attributes.get("exception.message").unwrap().to_string()
    };
    (span.status, span.events.iter().map(message).collect())
}

#[test]
fn t05_an_error_is_an_exception_with_its_type_and_its_sources() {
    let (memory, ctx) = Memory::new();
    let span = ctx.span("s").start();
    let inner = Failure("connection reset", None);
    let middle = Failure("no response: connection reset", Some(Box::new(inner)));
    span.record_error(&Failure("charge failed", Some(Box::new(middle))));
    span.end();
    let span = memory.span("s");
    let message = "charge failed: no response: connection reset";
    assert_eq!(span.status, Status::Error(message.into()));
    assert_eq!(
        span.events[0].attributes.get("exception.message"),
        Some(&message.into()),
        "a repeated text occurs once"
    );
    let kind = span.events[0].attributes.get("exception.type").unwrap().to_string();
    assert!(kind.ends_with("span::Failure"), "{kind}");
}

#[test]
fn t05_one_error_is_one_event_and_two_equal_errors_are_two() {
    let (one, other) = (Failure("no", None), Failure("no", None));
    assert_eq!(recorded(|span| [&one, &one, &one].iter().for_each(|e| span.record_error(*e))).1, ["no"]);
    assert_eq!(recorded(|span| [&one, &other].iter().for_each(|e| span.record_error(*e))).1, ["no", "no"]);
    let reused = |span: &Span| {
        let mut error = Failure("first", None);
        span.record_error(&error);
        error.0 = "second";
        span.record_error(&error);
    };
    assert_eq!(recorded(reused).1, ["first", "second"], "a different error at the same address is recorded");
}

#[tokio::test]
async fn t05_an_error_is_recorded_once_even_if_limits_cut_or_drop_its_event() {
    let all = SpanLimits::default();
    let cut = SpanLimits { value_length: 8, ..all };
    let few = [0, 1].map(|event_attributes| SpanLimits { event_attributes, ..all });
    for limits in [cut, few[0], few[1], SpanLimits { events: 0, ..all }] {
        let (memory, ctx) = Memory::with(|config| config.limits = limits);
        let out = ctx.in_span("s", async |ctx| {
            let error = Failure("no such card", Some(Box::new(Failure("no row", None))));
            ctx.current_span().record_error(&error);
            ctx.current_span().record_error(&error);
            Err::<(), _>(error)
        });
        assert_eq!(out.await.unwrap_err().0, "no such card");
        let span = memory.span("s");
        assert_eq!(span.events.len() + span.dropped_events_count as usize, 1, "{limits:?}");

        let span = ctx.span("two").start();
        let mut error = Failure("no such card", None);
        span.record_error(&error);
        error.0 = "no such cardholder";
        span.record_error(&error);
        span.end();
        let span = memory.span("two");
        assert_eq!(
            span.events.len() + span.dropped_events_count as usize,
            2,
            "two messages that {limits:?} may cut to the same text"
        );
    }
}

#[test]
fn t05_an_error_that_was_recorded_and_returned_is_recorded_once() {
    let work = |span: &Span, recorded, returned| {
        let error = Failure(recorded, Some(Box::new(Failure("no row", None))));
        span.record_error(&error);
        Failure(returned, error.1)
    };
    let both = |first, second| recorded(|span| span.record_returned(&*Box::new(work(span, first, second)))).1;
    assert_eq!(both("no such card", "no such card"), ["no such card: no row"]);
    assert_eq!(both("no such card", "no card"), ["no such card: no row", "no card: no row"]);
    let (status, messages) = recorded(|span| span.record_returned(&Failure("no", None)));
    assert_eq!(
        (status, messages),
        (Status::Error("no".into()), vec!["no".to_owned()]),
        "an error that was not recorded before is recorded"
    );
}

#[test]
fn t05_messages_are_bounded_even_if_an_error_prints_without_end() {
    struct Endless;
    impl fmt::Debug for Endless {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Ok(())
        }
    }
    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("\u{e9}ternel ")?;
            }
        }
    }
    impl std::error::Error for Endless {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&Endless)
        }
    }
    let (status, messages) = recorded(|span| span.record_error(&Endless));
    assert!(messages[0].len() <= 4_096 && messages[0].len() > 4_000);
    assert_eq!(status, Status::Error(messages[0].clone().into()));
}

#[test]
fn t06_a_span_dropped_by_a_panic_records_the_panic() {
    let (memory, ctx) = Memory::new();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let span = ctx.span("handler").start();
        span.set_status(Status::Ok);
        let ended = span.span("before").start();
        ended.end();
        panic!("on purpose");
    }));
    assert!(panic.is_err());
    assert_eq!(memory.tree(), "handler !\n  before\n");
    assert_eq!(memory.span("handler").attributes.get("error.type"), Some(&"panic".into()));
    assert_eq!(memory.span("before").attributes.get("error.type"), None);
}

#[test]
fn t06_a_span_that_a_destructor_starts_during_a_panic_does_not_record_the_panic() {
    struct CleanUp(Context);
    impl Drop for CleanUp {
        fn drop(&mut self) {
            drop(self.0.span("clean-up").start());
        }
    }
    let (memory, ctx) = Memory::new();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _clean_up = CleanUp(ctx);
        panic!("on purpose");
    }));
    assert!(panic.is_err());
    assert_eq!(memory.tree(), "clean-up\n");
}

#[test]
fn a_span_can_be_written_from_several_threads() {
    let (memory, ctx) = Memory::new();
    let span = Arc::new(ctx.span("shared").start());
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let span = &span;
            scope.spawn(move || (0..10).for_each(|i| span.set_attribute(format!("{thread}.{i}"), i)));
        }
    });
    drop(span);
    assert_eq!(memory.span("shared").attributes.len(), 40);
}
