//! Producers and consumers over the headers of any broker.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use throughline::trace::{SpanKind, Status};
use throughline::{Cause, Code, Codec, Context, Error, Key, Principal, Shutdown, SpanRecord};
use throughline_transport::{Consumer, MessageInfo, Outcome, Producer};
use tokio::time::Instant;

use crate::support::{spans, traced};

const SECOND: Duration = Duration::from_secs(1);

static TENANT: Key<u64> = Key::baggage("tenant");
static SHARD: Key<u8> = Key::header("x-shard", Codec::text());

type Headers = HashMap<String, String>;

fn text<'a>(span: &'a SpanRecord, key: &str) -> Option<&'a str> {
    span.attributes.get(key).and_then(|value| value.as_str())
}

fn orders() -> MessageInfo {
    MessageInfo::new("kafka", "orders").group("printer")
}

/// Returns the headers of a message that was sent with `ctx`.
async fn sent(ctx: &Context) -> Headers {
    let producer = Producer::new();
    let send = async |headers| Ok::<Headers, Error>(headers);
    producer.send(ctx, MessageInfo::new("kafka", "orders").partition("3"), Headers::new(), send).await.unwrap()
}

fn fails(code: Code) -> impl Fn(Context) -> std::future::Ready<Result<(), Error>> {
    move |_| std::future::ready(Err(Error::new(code, "no paper")))
}

#[tokio::test]
async fn a_message_in_a_hash_map_carries_the_trace_and_values_and_neither_deadline_nor_cancellation() {
    let (memory, telemetry, ctx) = traced();
    let root = ctx.span("order").start();
    let request = root.with_value(&TENANT, 7).with_value(&SHARD, 3).with_principal(Principal::new("user:7").unwrap());
    let request = request.with_timeout(SECOND).with_cancel();
    let headers = sent(&request).await;
    let mut names: Vec<_> = headers.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["baggage", "throughline-principal", "traceparent", "x-shard"]);
    request.cancel();

    let consumer = Consumer::new(&ctx).keys(&[&TENANT, &SHARD]).timeout(SECOND * 7);
    let info = orders().partition("3").id("3:42").body_size(9);
    let outcome = consumer.handle(info, &headers, async |ctx| {
        assert_eq!((ctx.value(&TENANT), ctx.value(&SHARD)), (Some(&7), Some(&3)));
        assert_eq!(ctx.principal().map(Principal::subject), Some("user:7"));
        assert!(ctx.remaining() > Some(SECOND * 2), "the consumer has its own deadline");
        assert_eq!(ctx.span_context(), Context::current().span_context());
        Ok(())
    });
    assert!(matches!(outcome.await, Outcome::Acknowledge));
    root.end();

    let producer = spans(&memory, &telemetry, SpanKind::Producer).await.remove(0);
    let consumer = spans(&memory, &telemetry, SpanKind::Consumer).await.remove(0);
    assert_eq!((&*producer.name, &*consumer.name), ("send orders", "process orders"));
    assert_eq!(consumer.parent_span_id, Some(producer.span_context.span_id()));
    for span in [&producer, &consumer] {
        assert_eq!(text(span, "messaging.system"), Some("kafka"));
        assert_eq!(text(span, "messaging.destination.name"), Some("orders"));
        assert_eq!(text(span, "messaging.destination.partition.id"), Some("3"));
    }
    assert_eq!(text(&consumer, "messaging.consumer.group.name"), Some("printer"));
    assert_eq!(text(&consumer, "messaging.message.id"), Some("3:42"));
    assert_eq!(consumer.attributes.get("messaging.message.body.size").and_then(|size| size.as_i64()), Some(9));
    assert_eq!(text(&producer, "messaging.consumer.group.name"), None);
}

#[tokio::test]
async fn hostile_headers_neither_fail_the_handler_nor_lengthen_its_time() {
    let (memory, telemetry, ctx) = traced();
    let consumer = Consumer::new(&ctx).keys(&[&TENANT, &SHARD]).timeout(SECOND);
    let long = "x".repeat(1 << 20);
    let mut headers: Vec<(String, Vec<u8>)> = vec![
        ("traceparent".into(), b"00-zz-\xff\x00-01".to_vec()),
        ("TraceParent".into(), b"00-00000000000000000000000000000000-0000000000000000-01".to_vec()),
        ("tracestate".into(), long.clone().into()),
        ("baggage".into(), format!("tenant=\u{7},{long}=1").into_bytes()),
        ("x-shard".into(), b"4000".to_vec()),
        ("throughline-principal".into(), vec![0xff; 70_000]),
        ("grpc-timeout".into(), b"99999999H".to_vec()),
        ("".into(), b"\r\n".to_vec()),
    ];
    headers.extend((0..10_000).map(|i| (format!("baggage\r\n{i}"), b"\0".to_vec())));
    let outcome = consumer.handle(orders(), &headers, async |ctx| {
        assert_eq!((ctx.value(&TENANT), ctx.value(&SHARD), ctx.principal()), (None, None, None));
        assert!(ctx.remaining() <= Some(SECOND));
        Ok(())
    });
    assert!(matches!(outcome.await, Outcome::Acknowledge));
    let span = spans(&memory, &telemetry, SpanKind::Consumer).await.remove(0);
    assert_eq!((span.parent_span_id, span.status), (None, Status::Unset));
}

#[tokio::test]
async fn a_failed_message_is_to_be_delivered_again_and_its_last_attempt_gives_it_up() {
    let (memory, telemetry, ctx) = traced();
    let consumer = Consumer::new(&ctx).max_attempts(3).backoff(SECOND, SECOND * 60);
    let mut headers = Headers::from([("x-shard".to_owned(), "3".to_owned())]);
    for (attempt, least) in [(1, SECOND), (2, SECOND * 2)] {
        let outcome = consumer.handle(orders().attempt(attempt), &headers, fails(Code::Unavailable)).await;
        let Outcome::Redeliver(pause) = outcome else { panic!("{outcome:?}") };
        assert!((least..=least + least / 2).contains(&pause), "{pause:?}");
    }
    let outcome = consumer.handle(orders().attempt(3), &headers, fails(Code::Unavailable)).await;
    let Outcome::GiveUp(letter) = outcome else { panic!("{outcome:?}") };
    assert_eq!((letter.destination(), letter.error().code()), (Some("dead-letter.orders"), Code::Unavailable));
    letter.inject(&mut headers);
    let expected = [
        ("dead-letter-attempts", "3"),
        ("dead-letter-code", "UNAVAILABLE"),
        ("dead-letter-group", "printer"),
        ("dead-letter-message", "no paper"),
        ("dead-letter-subject", "orders"),
        ("x-shard", "3"),
    ];
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    headers.sort_unstable();
    assert_eq!(headers, expected);

    let spans = spans(&memory, &telemetry, SpanKind::Consumer).await;
    let attempts = spans.iter().map(|span| span.attributes.get("messaging.message.delivery_attempt"));
    assert_eq!(attempts.map(|attempt| attempt.and_then(|a| a.as_i64())).collect::<Vec<_>>(), [None, Some(2), Some(3)]);
    assert!(spans.iter().all(|span| span.status == Status::Error("no paper".into())));
    assert!(spans.iter().all(|span| text(span, "error.type") == Some("UNAVAILABLE")));
    let last = spans[2].span_context.span_id();
    assert_eq!(letter.context().span_context().map(|span| span.span_id()), Some(last), "the trace goes on");
}

#[tokio::test]
async fn an_error_that_is_not_retryable_and_a_dead_letter_that_fails_are_given_up() {
    let consumer = Consumer::new(&Context::background()).max_attempts(1).dead_letter("trouble");
    let mut headers = Headers::new();
    let never = async |_| Err(Error::new(Code::InvalidArgument, "never").with_retryable(false));
    let Outcome::GiveUp(letter) = consumer.handle(orders(), &headers, never).await else { panic!() };
    assert_eq!(letter.destination(), Some("trouble"));
    letter.inject(&mut headers);
    let again = MessageInfo::new("kafka", "trouble");
    let Outcome::GiveUp(letter) = consumer.handle(again, &headers, fails(Code::Internal)).await else { panic!() };
    assert_eq!(letter.destination(), None, "it would be published to the topic that it came from");
}

#[tokio::test]
async fn a_handler_that_panics_is_a_failure_of_the_message_and_nothing_else() {
    let (memory, telemetry, ctx) = traced();
    let consumer = Consumer::new(&ctx);
    let (seen, headers) = (Mutex::new(None), Headers::new());
    let outcome = consumer.handle(orders(), &headers, async |ctx| {
        *seen.lock().unwrap() = Some(ctx);
        std::panic::resume_unwind(Box::new("in its future"))
    });
    assert!(matches!(outcome.await, Outcome::Redeliver(_)));
    let cause = seen.lock().unwrap().take().unwrap().cause();
    assert!(matches!(cause, Some(Cause::Panicked)), "{cause:?}");
    let at_once = |_| -> std::future::Ready<Result<(), Error>> { std::panic::resume_unwind(Box::new("before it")) };
    assert!(matches!(consumer.handle(orders(), &Headers::new(), at_once).await, Outcome::Redeliver(_)));
    for span in spans(&memory, &telemetry, SpanKind::Consumer).await {
        assert_eq!(text(&span, "error.type"), Some("panic"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_at_the_timeout_of_the_consumer() {
    let consumer = Consumer::new(&Context::background()).timeout(SECOND * 3);
    let start = Instant::now();
    let outcome = consumer.handle(orders(), &Headers::new(), async |_| std::future::pending().await).await;
    assert!(matches!(outcome, Outcome::Redeliver(_)));
    assert!((SECOND * 3..SECOND * 4).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn handling_in_place_pauses_between_attempts_and_stops_with_the_base_context() {
    let base = Context::background().with_cancel();
    let consumer = Consumer::new(&base).max_attempts(4).backoff(SECOND, SECOND * 60);
    let (start, calls) = (Instant::now(), Cell::new(0));
    let headers = Headers::new();
    let outcome = consumer.handle_in_place(orders(), &headers, async |_| {
        calls.set(calls.get() + 1);
        Err(Error::new(Code::Unavailable, "no paper"))
    });
    let Outcome::GiveUp(letter) = outcome.await else { panic!() };
    let mut copy = Headers::new();
    letter.inject(&mut copy);
    assert_eq!((calls.get(), &*copy["dead-letter-attempts"]), (4, "4"));
    assert!(start.elapsed() >= SECOND * 7, "1 s, 2 s and 4 s");

    let calls = Cell::new(0);
    let outcome = consumer.handle_in_place(orders(), &headers, async |_| {
        calls.set(calls.get() + 1);
        base.cancel_with(Cause::Shutdown);
        Err(Error::new(Code::Unavailable, "no paper"))
    });
    assert!(matches!(outcome.await, Outcome::Redeliver(Duration::ZERO)));
    assert_eq!(calls.get(), 1);
}

#[tokio::test]
async fn a_message_that_ends_its_process_each_time_is_given_up_without_calling_the_handler() {
    let consumer = Consumer::new(&Context::background()).max_attempts(2);
    let (headers, calls) = (Headers::new(), Cell::new(0));
    let count = async |_| {
        calls.set(calls.get() + 1);
        Ok(())
    };
    assert!(matches!(consumer.handle(orders().attempt(12), &headers, count).await, Outcome::Acknowledge));
    let Outcome::GiveUp(letter) = consumer.handle(orders().attempt(13), &headers, count).await else { panic!() };
    assert_eq!((calls.get(), letter.error().code()), (1, Code::Aborted));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_a_handler_over_any_carrier() {
    let shutdown = Shutdown::new(SECOND * 20);
    let consumer = Consumer::new(shutdown.context()).timeout(SECOND * 60);
    let handling = tokio::spawn(async move {
        consumer
            .handle(orders(), &Headers::new(), async |ctx| {
                ctx.done().await;
                Err(Error::from_context(&ctx))
            })
            .await
    });
    tokio::task::yield_now().await;
    let drained = shutdown.drain().await;
    assert_eq!((drained.requests_cancelled, drained.still_running), (1, 0));
    assert!(matches!(handling.await.unwrap(), Outcome::Redeliver(Duration::ZERO)));
}

#[tokio::test]
async fn a_send_that_fails_is_on_its_span_and_one_that_takes_too_long_ends_with_the_context() {
    let (memory, telemetry, ctx) = traced();
    let producer = Producer::new();
    let fail = async |_: Headers| Err::<(), _>(Error::new(Code::Unavailable, "no broker"));
    let error = producer.send(&ctx, orders(), Headers::new(), fail).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let request = ctx.with_cancel();
    let hang = async |_: Headers| {
        request.cancel();
        std::future::pending::<Result<(), Error>>().await
    };
    let error = producer.send(&request, orders(), Headers::new(), hang).await.unwrap_err();
    assert_eq!(error.code(), Code::Cancelled);
    let spans = spans(&memory, &telemetry, SpanKind::Producer).await;
    assert_eq!(spans[0].status, Status::Error("no broker".into()));
    assert_eq!(text(&spans[1], "error.type"), Some("CANCELLED"));
}

#[tokio::test]
async fn a_prepared_message_replaces_the_headers_of_an_earlier_one() {
    let (memory, telemetry, ctx) = traced();
    let producer = Producer::new();
    let mut headers: Vec<(String, Vec<u8>)> =
        vec![("Traceparent".into(), b"old".to_vec()), ("x-note".into(), b"mine".to_vec())];
    let span = producer.prepare(&ctx, &MessageInfo::new("aws_sqs", "orders"), &mut headers);
    let id = span.span_context().unwrap().span_id().to_string();
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-note", "traceparent"]);
    assert!(String::from_utf8(headers[1].1.clone()).unwrap().contains(&id));
    span.end();
    drop(producer.prepare(&ctx, &MessageInfo::new("aws_sqs", "orders"), &mut headers));
    let spans = spans(&memory, &telemetry, SpanKind::Producer).await;
    let causes: Vec<_> = spans.iter().map(|span| text(span, "throughline.cancel.cause")).collect();
    assert_eq!(causes, [None, Some("abandoned")]);
}
