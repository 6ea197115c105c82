//! Events within one process.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::HeaderMap;
use throughline::propagation::Format;
use throughline::trace::{SpanKind, Status};
use throughline::{Cause, Code, Codec, Context, Error, Key, Principal, Propagator, Shutdown, SpanRecord};
use throughline_transport::{Consumer, Events, Message};
use tokio::sync::mpsc;

use crate::support::{spans, subscribe, traced};

#[tokio::test]
async fn a_message_carries_typed_values_the_baggage_and_the_principal() {
    static TENANT: Key<u64> = Key::baggage("tenant");
    static SHARD: Key<u8> = Key::header("x-shard", Codec::text());
    let (_memory, _telemetry, ctx) = traced();
    let events = Events::in_process();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let consumer = Consumer::new(&ctx).keys(&[&TENANT]);
    tokio::spawn(subscribe(&events, "card.ordered", "printer").await.serve(consumer, move |ctx, _| {
        let sender = sender.clone();
        async move {
            sender.send(ctx).unwrap();
            Ok(())
        }
    }));
    let publisher = ctx.with_value(&TENANT, 7).with_value(&SHARD, 3);
    let publisher = publisher.with_principal(Principal::new("user:7").unwrap());
    let publisher = publisher.with_baggage(publisher.baggage().insert("note", "mine").unwrap());
    events.publish(&publisher, Message::new("card.ordered", "7")).await.unwrap();
    let received = seen.recv().await.unwrap();
    assert_eq!(received.principal().map(Principal::subject), Some("user:7"));
    assert_eq!(received.baggage().as_str(), "note=mine,tenant=7");
    assert_eq!(
        (received.value(&TENANT), received.value(&SHARD)),
        (Some(&7), None),
        "only the listed keys are extracted"
    );
    events.drain().await;
}

#[tokio::test]
async fn a_message_carries_the_trace_and_neither_deadline_nor_cancellation() {
    let (memory, telemetry, ctx) = traced();
    let events = Events::in_process();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let subscription = subscribe(&events, "card.ordered", "printer").await;
    tokio::spawn(subscription.serve(Consumer::new(&ctx).timeout(Duration::from_secs(7)), move |ctx, message| {
        let sender = sender.clone();
        async move {
            assert_eq!(ctx.span_context(), Context::current().span_context());
            let left = ctx.remaining();
            sender.send((ctx, message, left)).unwrap();
            Ok(())
        }
    }));
    let request = ctx.with_timeout(Duration::from_secs(1)).with_cancel();
    let root = request.span("order").start();
    events.publish(&root, Message::new("card.ordered", "7")).await.unwrap();
    request.cancel();
    root.end();
    let (received, message, left) = seen.recv().await.unwrap();
    assert_eq!(message.payload, "7");
    assert!(left > Some(Duration::from_secs(1)), "the consumer has its own deadline");
    events.drain().await;
    assert!(matches!(received.cause(), Some(Cause::RequestFinished)));

    let producer = spans(&memory, &telemetry, SpanKind::Producer).await.remove(0);
    let consumer = spans(&memory, &telemetry, SpanKind::Consumer).await.remove(0);
    assert_eq!((&*producer.name, &*consumer.name), ("send card.ordered", "process card.ordered"));
    assert_eq!(consumer.parent_span_id, Some(producer.span_context.span_id()));
    assert_eq!(consumer.span_context.trace_id(), producer.span_context.trace_id());
}

/// Publishes a message in a span.
///
/// Returns whether the consumer continued the trace, and the headers.
async fn publish_and_consume(events: Events, consumer: impl FnOnce(Consumer) -> Consumer) -> (bool, HeaderMap) {
    let (_memory, _telemetry, ctx) = traced();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let consumer = consumer(Consumer::new(&ctx));
    tokio::spawn(subscribe(&events, "s", "g").await.serve(consumer, move |ctx, message| {
        sender.send((ctx.span_context().unwrap().trace_id(), message.headers)).unwrap();
        async { Ok(()) }
    }));
    let root = ctx.span("order").start();
    events.publish(&root, Message::new("s", "")).await.unwrap();
    let (trace_id, headers) = seen.recv().await.unwrap();
    events.drain().await;
    (trace_id == root.span_context().unwrap().trace_id(), headers)
}

#[tokio::test]
async fn a_message_carries_its_trace_in_the_formats_that_both_sides_set() {
    let b3 = Propagator::new([Format::B3]);
    let (goes_on, headers) =
        publish_and_consume(Events::in_process().propagator(b3), |consumer| consumer.propagator(b3)).await;
    assert!(goes_on && headers.contains_key("b3") && !headers.contains_key("traceparent"), "{headers:?}");
    let (goes_on, _) = publish_and_consume(Events::in_process().propagator(b3), |consumer| consumer).await;
    assert!(!goes_on, "the message has no W3C headers");
}

/// `OTEL_PROPAGATORS` is read once per process, so the test starts itself again with it.
#[test]
fn the_default_formats_come_from_otel_propagators() {
    if std::env::var("OTEL_PROPAGATORS").is_ok_and(|names| names == "jaeger") {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (goes_on, headers) = runtime.block_on(publish_and_consume(Events::in_process(), |consumer| consumer));
        assert!(goes_on && headers.contains_key("uber-trace-id") && headers.len() == 1, "{headers:?}");
        return;
    }
    let again = "the_default_formats_come_from_otel_propagators";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.arg(again).env("OTEL_PROPAGATORS", "jaeger").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
}

#[tokio::test]
async fn each_group_gets_a_message_once() {
    let events = Events::in_process();
    let (a1, a2) = (subscribe(&events, "s", "a").await, subscribe(&events, "s", "a").await);
    let b = subscribe(&events, "s", "b").await;
    for payload in ["1", "2"] {
        events.publish(&Context::background(), Message::new("s", payload)).await.unwrap();
    }
    let first = a1.next().await.unwrap();
    let second = a2.next().await.unwrap();
    assert_eq!((&first.message().payload[..], &second.message().payload[..]), (&b"1"[..], &b"2"[..]));
    let theirs = b.next().await.unwrap();
    assert_eq!(theirs.message().payload, "1");
    first.acknowledge();
    second.acknowledge();
    theirs.acknowledge();
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_is_delivered_again_until_it_is_given_up() {
    let (memory, telemetry, ctx) = traced();
    let events = Events::in_process();
    let count = Arc::new(AtomicU32::new(0));
    let calls = Arc::clone(&count);
    let subscription = subscribe(&events, "s", "g").await;
    tokio::spawn(subscription.serve(Consumer::new(&ctx).max_attempts(3), move |_, _| {
        calls.fetch_add(1, Ordering::SeqCst);
        async { Err(Error::new(Code::Unavailable, "not now")) }
    }));
    events.publish(&ctx, Message::new("s", "")).await.unwrap();
    events.drain().await;
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let consumers = spans(&memory, &telemetry, SpanKind::Consumer).await;
    assert_eq!(consumers.len(), 3);
    assert!(consumers.iter().all(|span| matches!(span.status, Status::Error(_))));
    assert!(consumers.iter().all(|span| text(span, "messaging.consumer.group.name") == Some("g")));
    let attempts: Vec<_> = consumers
        .iter()
        .map(|span| span.attributes.get("messaging.message.delivery_attempt").and_then(|v| v.as_i64()))
        .collect();
    assert_eq!(attempts, [None, Some(2), Some(3)]);
}

#[tokio::test]
async fn an_error_that_the_handler_has_recorded_is_recorded_once() {
    let (memory, telemetry, ctx) = traced();
    let events = Events::in_process();
    let subscription = subscribe(&events, "s", "g").await;
    tokio::spawn(subscription.serve(Consumer::new(&ctx).max_attempts(1), |ctx, message| async move {
        let error = Error::wrap(Code::Unavailable, std::io::Error::other("no route"));
        if message.payload == "recorded" {
            ctx.current_span().record_error(&error);
        }
        Err(error)
    }));
    for payload in ["recorded", "returned"] {
        events.publish(&ctx, Message::new("s", payload)).await.unwrap();
    }
    events.drain().await;
    for span in spans(&memory, &telemetry, SpanKind::Consumer).await {
        let messages: Vec<_> = span.events.iter().map(|event| event.attributes.get("exception.message")).collect();
        assert_eq!(messages, [Some(&"UNAVAILABLE: unavailable: no route".into())]);
        assert_eq!(span.status, Status::Error("unavailable".into()));
    }
}

#[tokio::test]
async fn an_error_that_is_not_retryable_is_not_retried() {
    let events = Events::in_process();
    let count = Arc::new(AtomicU32::new(0));
    let calls = Arc::clone(&count);
    let subscription = subscribe(&events, "s", "g").await;
    tokio::spawn(subscription.serve(Consumer::new(&Context::background()), move |_, _| {
        calls.fetch_add(1, Ordering::SeqCst);
        async { Err(Error::new(Code::InvalidArgument, "never").with_retryable(false)) }
    }));
    events.publish(&Context::background(), Message::new("s", "")).await.unwrap();
    events.drain().await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_handler_panics_gets_all_its_attempts_and_no_more() {
    let events = Events::in_process();
    let count = Arc::new(AtomicU32::new(0));
    let calls = Arc::clone(&count);
    let subscription = subscribe(&events, "s", "g").await;
    tokio::spawn(subscription.serve(Consumer::new(&Context::background()).max_attempts(2), move |_, _| {
        calls.fetch_add(1, Ordering::SeqCst);
        async { std::panic::resume_unwind(Box::new("a handler's own")) }
    }));
    events.publish(&Context::background(), Message::new("s", "")).await.unwrap();
    events.drain().await;
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_context_of_a_handler_that_panics_has_the_cause_panicked() {
    let events = Events::in_process();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let subscription = subscribe(&events, "s", "g").await;
    let consumer = Consumer::new(&Context::background()).max_attempts(1);
    tokio::spawn(subscription.serve(consumer, move |ctx, _| {
        sender.send(ctx).unwrap();
        async { std::panic::resume_unwind(Box::new("a handler's own")) }
    }));
    events.publish(&Context::background(), Message::new("s", "")).await.unwrap();
    events.drain().await;
    let cause = seen.recv().await.unwrap().cause();
    assert!(matches!(cause, Some(Cause::Panicked)), "{cause:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_cancelled() {
    let events = Events::in_process();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let subscription = subscribe(&events, "s", "g").await;
    let consumer = Consumer::new(&Context::background()).timeout(Duration::from_secs(3)).max_attempts(1);
    tokio::spawn(subscription.serve(consumer, move |ctx, _| {
        sender.send(ctx).unwrap();
        std::future::pending()
    }));
    events.publish(&Context::background(), Message::new("s", "")).await.unwrap();
    events.drain().await;
    assert!(matches!(seen.recv().await.unwrap().cause(), Some(Cause::DeadlineExceeded)));
}

#[tokio::test(start_paused = true)]
async fn a_publisher_waits_for_a_full_group_no_longer_than_its_deadline() {
    let (_memory, _telemetry, ctx) = traced();
    let events = Events::in_process();
    let slow = subscribe(&events, "s", "slow").await;
    for _ in 0..1024 {
        events.publish(&ctx, Message::new("s", "")).await.unwrap();
    }
    let error = events.publish(&ctx.with_timeout(Duration::from_secs(1)), Message::new("s", "")).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    slow.next().await.unwrap().acknowledge();
    events.publish(&ctx, Message::new("s", "")).await.expect("the queue has capacity again");
    drop(slow);
    events.publish(&ctx, Message::new("s", "")).await.expect("the subject has no subscribers");
}

#[tokio::test]
async fn a_drain_waits_for_messages_being_handled_and_messages_that_they_lead_to() {
    let events = Events::in_process();
    let (first, second) = (subscribe(&events, "first", "g").await, subscribe(&events, "second", "g").await);
    events.publish(&Context::background(), Message::new("first", "")).await.unwrap();
    let delivery = first.next().await.unwrap();
    let mut drain = std::pin::pin!(events.drain());
    let mut is_drained =
        async || std::future::poll_fn(|cx| std::task::Poll::Ready(drain.as_mut().poll(cx).is_ready())).await;
    assert!(!is_drained().await, "one message is being handled");
    events.publish(&Context::background(), Message::new("second", "")).await.expect("the events are still open");
    delivery.acknowledge();
    assert!(!is_drained().await, "one message is waiting");
    second.next().await.unwrap().acknowledge();
    assert!(is_drained().await);
    let error = events.publish(&Context::background(), Message::new("first", "")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(first.next().await.is_none() && second.next().await.is_none());
    assert!(subscribe(&events, "first", "late").await.next().await.is_none());
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_publisher_that_was_dropped() {
    let events = Events::in_process();
    let full = subscribe(&events, "s", "full").await;
    for _ in 0..1024 {
        events.publish(&Context::background(), Message::new("s", "")).await.unwrap();
    }
    {
        let ctx = Context::background();
        let mut publish = std::pin::pin!(events.publish(&ctx, Message::new("s", "")));
        let ready = std::future::poll_fn(|cx| std::task::Poll::Ready(publish.as_mut().poll(cx).is_ready())).await;
        assert!(!ready, "the queue is full");
    }
    for _ in 0..1024 {
        full.next().await.unwrap().acknowledge();
    }
    events.drain().await;
}

fn text<'a>(span: &'a SpanRecord, key: &str) -> Option<&'a str> {
    span.attributes.get(key).and_then(|value| value.as_str())
}

#[tokio::test]
async fn the_span_of_a_dropped_publisher_or_handler_has_the_cause_abandoned() {
    let (memory, telemetry, ctx) = traced();
    let events = Events::in_process();
    let full = subscribe(&events, "full", "g").await;
    for _ in 0..1024 {
        events.publish(&Context::background(), Message::new("full", "")).await.unwrap();
    }
    let mut publish = Box::pin(events.publish(&ctx, Message::new("full", "")));
    let ready = std::future::poll_fn(|cx| std::task::Poll::Ready(publish.as_mut().poll(cx).is_ready())).await;
    assert!(!ready, "the queue is full");
    drop(publish);
    drop(full);

    let subscription = subscribe(&events, "s", "g").await;
    let consumer = Consumer::new(&ctx);
    let (publisher, publishing) = (events.clone(), ctx.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, mut started) = mpsc::unbounded_channel();
        runtime.block_on(async {
            tokio::spawn(subscription.serve(consumer, move |_, _| {
                sender.send(()).unwrap();
                std::future::pending()
            }));
            publisher.publish(&publishing, Message::new("s", "")).await.unwrap();
            started.recv().await.unwrap();
        });
    })
    .join()
    .unwrap();
    for (kind, name) in [(SpanKind::Producer, "send full"), (SpanKind::Consumer, "process s")] {
        let mut spans = spans(&memory, &telemetry, kind).await;
        spans.retain(|span| span.name == name);
        assert_eq!(spans.len(), 1, "{name}");
        assert_eq!(text(&spans[0], "throughline.cancel.cause"), Some("abandoned"), "{name}");
        assert_eq!((&spans[0].status, spans[0].events.len()), (&Status::Unset, 1), "{name}");
    }
}

#[tokio::test]
async fn a_publisher_whose_context_is_done_publishes_nothing() {
    let events = Events::in_process();
    let subscription = subscribe(&events, "s", "g").await;
    let request = Context::background().with_cancel();
    request.cancel();
    let error = events.publish(&request, Message::new("s", "")).await.unwrap_err();
    assert_eq!(error.code(), Code::Cancelled);
    events.drain().await;
    assert!(subscription.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_messages_that_are_handled_and_cancels_them_after_the_grace() {
    let shutdown = Shutdown::new(Duration::from_secs(20));
    let events = Events::in_process();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let consumer = Consumer::new(shutdown.context()).timeout(Duration::from_secs(60));
    let consumer =
        tokio::spawn(subscribe(&events, "card.ordered", "printer").await.serve(consumer, move |ctx, message| {
            let sender = sender.clone();
            async move {
                sender.send(ctx).unwrap();
                let seconds = if message.payload == "quick" { 15 } else { 25 };
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Ok(())
            }
        }));
    for payload in ["quick", "slow"] {
        events.publish(&Context::background(), Message::new("card.ordered", payload)).await.unwrap();
    }
    let contexts = [seen.recv().await.unwrap(), seen.recv().await.unwrap()];
    let drained = shutdown.drain().await;
    assert_eq!((drained.requests_cancelled, drained.still_running), (1, 0));
    let causes = contexts.map(|ctx| ctx.cause().unwrap().name());
    assert_eq!(causes, ["request_finished", "shutdown"]);
    consumer.await.expect("the consumer has ended");
}
