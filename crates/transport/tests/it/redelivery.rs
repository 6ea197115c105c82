//! Redelivery and dead letters: messages whose handler fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use throughline::telemetry::{self, MemoryExporter};
use throughline::trace::SpanKind;
use throughline::{Cause, Code, Context, Error};
use throughline_transport::{Consumer, Delivery, Events, GroupLimits, Message};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::support::subscribe;

const SECOND: Duration = Duration::from_secs(1);

fn consumer() -> Consumer {
    Consumer::new(&Context::background())
}

async fn publish(events: &Events, subject: &str, payload: &'static str) {
    events.publish(&Context::background(), Message::new(subject, payload)).await.unwrap();
}

/// Returns the pauses between the attempts at a message whose handler always fails with `error`.
async fn pauses(consumer: Consumer, error: Error) -> Vec<Duration> {
    let events = Events::in_process();
    let (sender, mut attempts) = mpsc::unbounded_channel();
    tokio::spawn(subscribe(&events, "s", "g").await.serve(consumer, move |_, _| {
        sender.send(Instant::now()).unwrap();
        let error = error.clone();
        async move { Err(error) }
    }));
    publish(&events, "s", "").await;
    events.drain().await;
    let mut times = Vec::new();
    while let Ok(time) = attempts.try_recv() {
        times.push(time);
    }
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_is_delivered_again_after_growing_pauses() {
    let pauses = pauses(consumer().max_attempts(6), Error::new(Code::Unavailable, "not now")).await;
    assert_eq!(pauses.len(), 5);
    let mut min = Duration::from_millis(500);
    for pause in &pauses {
        // A tokio timer may fire up to 1 ms late.
        let max = min + min / 2 + Duration::from_millis(2);
        assert!((min..=max).contains(pause), "{pauses:?}");
        min *= 2;
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_never_exceed_the_maximum_and_are_random() {
    let pauses =
        pauses(consumer().max_attempts(40).backoff(SECOND, SECOND * 2), Error::new(Code::Unavailable, "")).await;
    assert_eq!(pauses.len(), 39);
    assert!(pauses.iter().all(|pause| *pause <= SECOND * 3 + Duration::from_millis(2)), "{pauses:?}");
    assert!(pauses[1..].iter().any(|pause| *pause != pauses[1]), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_is_never_delivered_again_before_the_retry_after_of_its_error() {
    let error = Error::new(Code::ResourceExhausted, "slow down").with_retry_after(SECOND * 300);
    let pauses = pauses(consumer().max_attempts(4), error).await;
    assert_eq!(pauses.len(), 3);
    assert!(pauses.iter().all(|pause| (SECOND * 300..SECOND * 310).contains(pause)), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn other_messages_are_handled_while_a_message_pauses() {
    let events = Events::in_process();
    let (sender, mut handled) = mpsc::unbounded_channel();
    let one_at_a_time = consumer().concurrency(1.try_into().unwrap());
    tokio::spawn(subscribe(&events, "s", "g").await.serve(one_at_a_time, move |_, message| {
        let sender = sender.clone();
        async move {
            sender.send((message.payload.clone(), Instant::now())).unwrap();
            if message.payload == "bad" { Err(Error::new(Code::Unavailable, "not now")) } else { Ok(()) }
        }
    }));
    let start = Instant::now();
    publish(&events, "s", "bad").await;
    publish(&events, "s", "good").await;
    assert_eq!(handled.recv().await.unwrap().0, "bad");
    let (payload, at) = handled.recv().await.unwrap();
    assert_eq!((&payload[..], at), (&b"good"[..], start));
}

async fn letter(failed: &throughline_transport::Subscription) -> Delivery {
    timeout(SECOND * 60, failed.next()).await.expect("a dead letter is published").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_given_up_goes_to_the_dead_letter_subject_with_its_error_in_the_headers() {
    let memory = MemoryExporter::default();
    let telemetry = telemetry::builder("bank").exporter(memory.clone()).build().unwrap();
    let ctx = Context::background().with_tracer(telemetry.tracer());
    let events = Events::in_process();
    let failed = subscribe(&events, "dead-letter.card.ordered", "support").await;
    let cards = subscribe(&events, "card.ordered", "printer").await;
    let counters = cards.counters();
    tokio::spawn(cards.serve(Consumer::new(&ctx).max_attempts(2), |_, _| async {
        let source = io::Error::other("10.0.0.7 refused");
        Err(Error::wrap(Code::Unavailable, source).with_message("100 % of Zürich's\nprinters are away"))
    }));
    let mut message = Message::new("card.ordered", "7");
    message.headers.insert("x-shard", "3".parse().unwrap());
    events.publish(&ctx, message).await.unwrap();

    let delivery = letter(&failed).await;
    let letter = delivery.message();
    assert_eq!((&*letter.subject, &letter.payload[..]), ("dead-letter.card.ordered", &b"7"[..]));
    let header = |name: &str| letter.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("dead-letter-subject"), Some("card.ordered"));
    assert_eq!(header("dead-letter-group"), Some("printer"));
    assert_eq!(header("dead-letter-attempts"), Some("2"));
    assert_eq!(header("dead-letter-code"), Some("UNAVAILABLE"));
    assert_eq!(header("dead-letter-message"), Some("100 %25 of Z%C3%BCrich's%0Aprinters are away"));
    assert_eq!((header("dead-letter-origin"), header("x-shard")), (None, Some("3")));
    delivery.acknowledge();
    events.drain().await;
    assert_eq!((counters.acknowledged(), counters.redelivered(), counters.given_up()), (0, 1, 1));

    telemetry.force_flush(SECOND * 10).await.unwrap();
    let spans = memory.spans();
    let last = spans.iter().rfind(|span| span.kind == SpanKind::Consumer).unwrap();
    let sent = spans.iter().find(|span| span.name == "send dead-letter.card.ordered").unwrap();
    assert_eq!(sent.parent_span_id, Some(last.span_context.span_id()), "the trace shows where it went");
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_not_retryable_is_given_up_at_once() {
    let events = Events::in_process();
    let failed = subscribe(&events, "trouble", "support").await;
    let start = Instant::now();
    tokio::spawn(subscribe(&events, "s", "g").await.serve(consumer().dead_letter("trouble"), |_, _| async {
        Err(Error::new(Code::InvalidArgument, "never").with_retryable(false))
    }));
    publish(&events, "s", "").await;
    let delivery = letter(&failed).await;
    assert_eq!(delivery.message().headers["dead-letter-attempts"], "1");
    assert_eq!(start.elapsed(), Duration::ZERO);
    delivery.acknowledge();
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_handler_panics_is_retried_after_a_pause_and_then_given_up() {
    let events = Events::in_process();
    let failed = subscribe(&events, "dead-letter.s", "support").await;
    let group = subscribe(&events, "s", "g").await;
    let counters = group.counters();
    let start = Instant::now();
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    tokio::spawn(group.serve(consumer().max_attempts(3), move |_, _| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            std::panic::resume_unwind(Box::new("before its future"));
        }
        async { std::panic::resume_unwind(Box::new("in its future")) }
    }));
    publish(&events, "s", "").await;
    let delivery = letter(&failed).await;
    assert_eq!(delivery.message().headers["dead-letter-code"], "INTERNAL");
    assert!(start.elapsed() >= Duration::from_millis(1500), "{:?}", start.elapsed());
    delivery.acknowledge();
    events.drain().await;
    assert_eq!((calls.load(Ordering::SeqCst), counters.given_up()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn each_group_counts_and_gives_up_messages_on_its_own() {
    let events = Events::in_process();
    let failed = subscribe(&events, "dead-letter.s", "support").await;
    let (good, bad) = (subscribe(&events, "s", "good").await, subscribe(&events, "s", "bad").await);
    let (of_good, of_bad) = (good.counters(), bad.counters());
    tokio::spawn(good.serve(consumer(), |_, _| async { Ok(()) }));
    tokio::spawn(bad.serve(consumer().max_attempts(1), |_, _| async { Err(Error::new(Code::Internal, "")) }));
    publish(&events, "s", "").await;
    let delivery = letter(&failed).await;
    assert_eq!(delivery.message().headers["dead-letter-group"], "bad");
    delivery.acknowledge();
    events.drain().await;
    assert_eq!((of_good.acknowledged(), of_good.given_up()), (1, 0));
    assert_eq!((of_bad.acknowledged(), of_bad.given_up()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_fails_is_not_published_again() {
    let events = Events::in_process();
    let circle = subscribe(&events, "s", "g").await;
    let counters = circle.counters();
    let failing = |_, _| async { Err(Error::new(Code::Internal, "")) };
    tokio::spawn(circle.serve(consumer().max_attempts(2).dead_letter("s"), failing));
    publish(&events, "s", "").await;
    events.drain().await;
    assert_eq!((counters.redelivered(), counters.given_up()), (2, 2), "the message and its dead letter");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_messages_that_pause() {
    let events = Events::in_process();
    let group = subscribe(&events, "s", "g").await;
    let counters = group.counters();
    let start = Instant::now();
    tokio::spawn(group.serve(consumer(), move |_, _| async move {
        if start.elapsed() > SECOND { Ok(()) } else { Err(Error::new(Code::Unavailable, "not now")) }
    }));
    publish(&events, "s", "").await;
    events.drain().await;
    assert_eq!((counters.acknowledged(), counters.given_up()), (1, 0));
    assert!(start.elapsed() > SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_messages_of_a_group_are_discarded_and_counted_when_its_last_member_leaves() {
    let events = Events::in_process();
    let group = subscribe(&events, "s", "g").await;
    publish(&events, "s", "").await;
    group.next().await.unwrap().redeliver_after(SECOND * 3600);
    assert!(timeout(SECOND * 3599, group.next()).await.is_err(), "the message pauses");
    let start = Instant::now();
    let counters = group.counters();
    publish(&events, "s", "").await;
    let taken = group.next().await.unwrap();
    drop(group);
    assert_eq!(counters.discarded(), 1);
    drop(taken);
    assert_eq!(counters.discarded(), 2, "the group has no members");
    events.drain().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_stops_puts_its_messages_back_and_gives_none_up() {
    let events = Events::in_process();
    let (one, other) = (subscribe(&events, "s", "g").await, subscribe(&events, "s", "g").await);
    let counters = other.counters();
    let process = Context::background().with_cancel();
    let (sender, mut started) = mpsc::unbounded_channel();
    let serving = tokio::spawn(one.serve(Consumer::new(&process).max_attempts(1), move |ctx, _| {
        sender.send(()).unwrap();
        async move {
            ctx.done().await;
            Err(Error::from_context(&ctx))
        }
    }));
    publish(&events, "s", "").await;
    started.recv().await.unwrap();
    let start = Instant::now();
    process.cancel_with(Cause::Shutdown);
    serving.await.unwrap();
    let delivery = other.next().await.unwrap();
    assert_eq!((delivery.attempt(), start.elapsed(), counters.given_up()), (2, Duration::ZERO, 0));
    delivery.acknowledge();
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_dead_letter_cannot_be_published_is_delivered_again_and_not_lost() {
    let events = Events::in_process_with(GroupLimits { messages: 1, ..GroupLimits::default() });
    let failed = subscribe(&events, "dead-letter.s", "support").await;
    publish(&events, "dead-letter.s", "in the way").await;
    let group = subscribe(&events, "s", "g").await;
    let counters = group.counters();
    let (sender, mut attempts) = mpsc::unbounded_channel();
    let consumer = consumer().max_attempts(1).timeout(SECOND);
    tokio::spawn(group.serve(consumer, move |_, _| {
        sender.send(()).unwrap();
        async { Err(Error::new(Code::Internal, "")) }
    }));
    publish(&events, "s", "mine").await;
    for _ in 0..3 {
        attempts.recv().await.unwrap();
    }
    assert_eq!((counters.given_up(), counters.redelivered()), (0, 2), "the group of dead letters is full");
    letter(&failed).await.acknowledge();
    let delivery = letter(&failed).await;
    assert_eq!(delivery.message().payload, "mine");
    delivery.acknowledge();
    events.drain().await;
    assert_eq!((counters.given_up(), counters.acknowledged()), (1, 0));
}
