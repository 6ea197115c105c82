//! Events over NATS JetStream, against a real `nats-server`.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use throughline::telemetry::{self, MemoryExporter};
use throughline::trace::SpanKind;
use throughline::{Code, Context, Error, Principal};
use throughline_transport::{Consumer, Events, Message, Subscription};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::support::nats::NatsServer;
use crate::support::{poll_once, subscribe};

/// The time after which a test that waits for something has failed.
const FAILED: Duration = Duration::from_secs(30);

/// Short, so that the broker soon delivers the messages of a process that has ended.
const ACK_WAIT: Duration = Duration::from_millis(300);

async fn connect(url: &str) -> Events {
    Events::nats(url).ack_wait(ACK_WAIT).connect(&Context::background()).await.unwrap()
}

async fn publish(events: &Events, subject: &str, payload: impl Into<bytes::Bytes>) {
    events.publish(&Context::background().with_timeout(FAILED), Message::new(subject, payload)).await.unwrap();
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(FAILED, work).await.expect("it happens in time")
}

async fn payload(group: &Subscription) -> String {
    let delivery = within(group.next()).await.unwrap();
    let payload = String::from_utf8(delivery.message().payload.to_vec()).unwrap();
    delivery.acknowledge();
    payload
}

#[tokio::test]
async fn each_group_gets_a_message_once_with_its_trace_its_headers_and_its_principal() {
    let Some(server) = NatsServer::start() else { return };
    let memory = MemoryExporter::default();
    let telemetry = telemetry::builder("bank").exporter(memory.clone()).build().unwrap();
    let ctx = Context::background().with_tracer(telemetry.tracer());
    let events = connect(&server.url()).await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    for group in ["printer", "archive"] {
        let sender = sender.clone();
        tokio::spawn(subscribe(&events, "card.ordered", group).await.serve(
            Consumer::new(&ctx),
            move |ctx, message| {
                sender.send((group, ctx, message)).unwrap();
                async { Ok(()) }
            },
        ));
    }
    let request = ctx.with_principal(Principal::new("user:7").unwrap()).with_timeout(FAILED);
    let mut message = Message::new("card.ordered", "7");
    message.headers.append("x-city", "Bern".parse().unwrap());
    message.headers.append("x-city", "Genf".parse().unwrap());
    events.publish(&request, message).await.unwrap();
    let mut groups = HashSet::new();
    for _ in 0..2 {
        let (group, ctx, message) = within(seen.recv()).await.unwrap();
        groups.insert(group);
        assert_eq!((&*message.subject, &message.payload[..]), ("card.ordered", &b"7"[..]));
        assert_eq!(message.headers.get_all("x-city").iter().collect::<Vec<_>>(), ["Bern", "Genf"]);
        assert_eq!(ctx.principal().map(Principal::subject), Some("user:7"));
    }
    assert_eq!(groups.len(), 2);
    within(events.drain()).await;
    assert!(seen.try_recv().is_err(), "once");
    telemetry.force_flush(FAILED).await.unwrap();
    let spans = memory.spans();
    let producer = spans.iter().find(|span| span.kind == SpanKind::Producer).unwrap();
    let consumers: Vec<_> = spans.iter().filter(|span| span.kind == SpanKind::Consumer).collect();
    assert_eq!(consumers.len(), 2);
    for consumer in consumers {
        assert_eq!(consumer.parent_span_id, Some(producer.span_context.span_id()));
        assert_eq!(consumer.attributes.get("messaging.system").and_then(|v| v.as_str()), Some("nats"));
    }
}

#[tokio::test]
async fn members_of_a_group_share_its_messages_and_a_new_group_gets_those_from_then_on() {
    let Some(server) = NatsServer::start() else { return };
    let (one, other) = (connect(&server.url()).await, connect(&server.url()).await);
    publish(&one, "card.ordered", "before the group").await;
    let (sender, mut handled) = mpsc::unbounded_channel();
    for events in [&one, &other] {
        let sender = sender.clone();
        let consumer = Consumer::new(&Context::background());
        tokio::spawn(subscribe(events, "card.ordered", "printer").await.serve(consumer, move |_, message| {
            sender.send(message.payload).unwrap();
            async { Ok(()) }
        }));
    }
    for i in 0..40 {
        publish(&one, "card.ordered", i.to_string()).await;
    }
    let mut numbers = Vec::new();
    while numbers.len() < 40 {
        let payload = within(handled.recv()).await.unwrap();
        numbers.push(String::from_utf8(payload.to_vec()).unwrap().parse::<u32>().unwrap());
    }
    within(async { tokio::join!(one.drain(), other.drain()) }).await;
    assert!(handled.try_recv().is_err());
    numbers.sort_unstable();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_message_comes_again_after_its_pause_and_then_goes_to_the_dead_letters() {
    let Some(server) = NatsServer::start() else { return };
    let events = connect(&server.url()).await;
    let failed = subscribe(&events, "dead-letter.card.ordered", "support").await;
    let group = subscribe(&events, "card.ordered", "printer").await;
    let counters = group.counters();
    let (sender, mut attempts) = mpsc::unbounded_channel();
    let pause = Duration::from_millis(200);
    let consumer = Consumer::new(&Context::background()).max_attempts(3).backoff(pause, pause);
    tokio::spawn(group.serve(consumer, move |_, _| {
        sender.send(Instant::now()).unwrap();
        async { Err(Error::new(Code::Unavailable, "no paper")) }
    }));
    publish(&events, "card.ordered", "7").await;
    let letter = within(failed.next()).await.unwrap();
    let header = |name: &str| letter.message().headers[name].to_str().unwrap();
    assert_eq!((header("dead-letter-attempts"), header("dead-letter-message")), ("3", "no paper"));
    assert_eq!((header("dead-letter-subject"), header("dead-letter-group")), ("card.ordered", "printer"));
    assert_eq!(letter.message().payload, "7");
    letter.acknowledge();
    within(events.drain()).await;
    let mut times = Vec::new();
    while let Ok(time) = attempts.try_recv() {
        times.push(time);
    }
    assert_eq!(times.len(), 3);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= pause), "{times:?}");
    assert_eq!((counters.redelivered(), counters.given_up(), counters.acknowledged()), (2, 1, 0));
}

#[tokio::test]
async fn a_message_whose_dead_letter_cannot_be_published_comes_again() {
    let Some(server) = NatsServer::start() else { return };
    let events = connect(&server.url()).await;
    let group = subscribe(&events, "card.ordered", "printer").await;
    let counters = group.counters();
    let (sender, mut attempts) = mpsc::unbounded_channel();
    let consumer = Consumer::new(&Context::background()).max_attempts(1).dead_letter("not a subject");
    tokio::spawn(group.serve(consumer.backoff(Duration::ZERO, Duration::ZERO), move |_, _| {
        sender.send(()).unwrap();
        async { Err(Error::new(Code::Unavailable, "no paper")) }
    }));
    publish(&events, "card.ordered", "7").await;
    for _ in 0..3 {
        within(attempts.recv()).await.unwrap();
    }
    assert_eq!(counters.given_up(), 0);
}

/// The test starts itself again as the process that is killed.
#[tokio::test]
async fn a_message_that_was_killed_with_its_process_comes_again() {
    let variable = "THROUGHLINE_TEST_KILLED_CONSUMER";
    if let Ok(url) = std::env::var(variable) {
        let group = subscribe(&connect(&url).await, "card.ordered", "printer").await;
        let consumer = Consumer::new(&Context::background());
        let serve = group.serve(consumer, |_, _| async {
            eprintln!("the message is being handled");
            std::future::pending().await
        });
        return serve.await;
    }
    let Some(server) = NatsServer::start() else { return };
    let events = connect(&server.url()).await;
    let group = subscribe(&events, "card.ordered", "printer").await;
    publish(&events, "card.ordered", "7").await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["jetstream::a_message_that_was_killed", "--nocapture"]).env(variable, server.url());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let is_handled = log.lines().map_while(Result::ok).any(|line| line.contains("being handled"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_handled);
    let delivery = within(group.next()).await.unwrap();
    assert_eq!((delivery.attempt(), &delivery.message().payload[..]), (2, &b"7"[..]));
    delivery.acknowledge();
    within(events.drain()).await;
}

/// Takes a message in a runtime that ends without settling it.
async fn take_and_vanish(url: String, subject: &'static str, group: &'static str) {
    let take = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let delivery = runtime.block_on(async {
            let events = connect(&url).await;
            let member = subscribe(&events, subject, group).await;
            let delivery = within(member.next()).await.unwrap();
            std::mem::forget(member);
            delivery
        });
        runtime.shutdown_background();
        drop(delivery);
    };
    tokio::task::spawn_blocking(take).await.unwrap();
}

#[tokio::test]
async fn a_message_that_is_handled_for_longer_than_the_broker_waits_does_not_come_again() {
    let Some(server) = NatsServer::start() else { return };
    let events = connect(&server.url()).await;
    let slow = subscribe(&events, "slow", "g").await;
    let lost = subscribe(&events, "lost", "g").await;
    publish(&events, "slow", "7").await;
    publish(&events, "lost", "8").await;
    let handled = within(slow.next()).await.unwrap();
    for attempt in [2, 4, 6] {
        // When the broker delivers this one again, its wait for both has passed.
        take_and_vanish(server.url(), "lost", "g").await;
        let delivery = tokio::select! {
            biased;
            again = slow.next() => panic!("{again:?}"),
            delivery = within(lost.next()) => delivery.unwrap(),
        };
        assert_eq!(delivery.attempt(), attempt);
        delivery.redeliver();
    }
    assert_eq!(handled.attempt(), 1);
    handled.acknowledge();
    within(events.drain()).await;
}

#[tokio::test]
async fn no_acknowledged_event_is_lost_when_the_broker_restarts_under_load() {
    let Some(mut server) = NatsServer::start() else { return };
    let events = connect(&server.url()).await;
    let held = subscribe(&events, "held", "g").await;
    publish(&events, "held", "7").await;
    let delivery = within(held.next()).await.unwrap();
    let (sender, mut handled) = mpsc::unbounded_channel();
    let consumer = Consumer::new(&Context::background());
    tokio::spawn(subscribe(&events, "load", "g").await.serve(consumer, move |_, message| {
        sender.send(message.payload).unwrap();
        async { Ok(()) }
    }));
    let stop = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let (events, stop) = (events.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut published = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let payload = format!("{publisher}:{number}");
                    let ctx = Context::background().with_timeout(Duration::from_secs(2));
                    let publish = events.publish(&ctx, Message::new("load", payload.clone()));
                    let result = timeout(Duration::from_secs(10), publish).await.expect("no publish hangs");
                    match result {
                        Ok(()) => published.push(payload),
                        Err(error) => assert_eq!(error.code(), Code::Unavailable, "{error}"),
                    }
                    tokio::task::yield_now().await;
                }
                published
            })
        })
        .collect();
    let mut seen = HashSet::new();
    while seen.len() < 100 {
        seen.insert(within(handled.recv()).await.unwrap());
    }
    server.restart();
    let before = seen.len();
    while seen.len() < before + 400 {
        seen.insert(within(handled.recv()).await.unwrap());
    }
    stop.store(true, Ordering::SeqCst);
    let mut published = HashSet::new();
    for publisher in publishers {
        published.extend(within(publisher).await.unwrap().into_iter().map(bytes::Bytes::from));
    }
    while !published.is_subset(&seen) {
        seen.insert(within(handled.recv()).await.unwrap());
    }
    drop(delivery);
    let again = within(held.next()).await.unwrap();
    assert!(again.attempt() >= 2 && again.message().payload == "7");
    again.acknowledge();
    within(events.drain()).await;
}

#[tokio::test]
async fn an_unreachable_broker_is_unavailable_before_the_deadline_and_names_its_address() {
    let Some(mut server) = NatsServer::start() else { return };
    let events = connect(&server.url()).await;
    server.kill();
    let ctx = Context::background().with_timeout(Duration::from_millis(500));
    let error = within(events.publish(&ctx, Message::new("s", ""))).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)));
    let address = server.url().trim_start_matches("nats://").to_owned();
    assert!(error.message().contains(&address), "{error}");
    let url = format!("nats://user:secret@{address}");
    let error = within(Events::nats(url).connect(&Context::background())).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains(&address) && !error.to_string().contains("secret"), "{error}");
    server.restart();
    publish(&events, "s", "after").await;
}

#[tokio::test]
async fn a_message_beyond_the_limit_of_the_broker_is_resource_exhausted_with_the_limit() {
    let Some(server) = NatsServer::start() else { return };
    let events = connect(&server.url()).await;
    let ctx = Context::background().with_timeout(FAILED);
    let error = events.publish(&ctx, Message::new("s", vec![0; 2 << 20])).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::ResourceExhausted, Some(false)));
    assert!(error.message().contains("1048576"), "{error}");
}

#[tokio::test]
async fn a_drain_waits_for_messages_being_handled_and_leaves_the_others_to_other_processes() {
    let Some(server) = NatsServer::start() else { return };
    let (events, other) = (connect(&server.url()).await, connect(&server.url()).await);
    let member = subscribe(&events, "s", "g").await;
    publish(&events, "s", "1").await;
    let (started, is_started) = oneshot::channel();
    let (end, ends) = oneshot::channel::<()>();
    let once = std::sync::Mutex::new(Some((started, ends)));
    let consumer = Consumer::new(&Context::background()).concurrency(1.try_into().unwrap());
    let handler = events.clone();
    let serving = tokio::spawn(member.serve(consumer, move |ctx, _| {
        let (started, ends) = once.lock().unwrap().take().expect("one message is taken");
        let events = handler.clone();
        async move {
            started.send(()).unwrap();
            ends.await.unwrap();
            events.publish(&ctx, Message::new("result", "done")).await
        }
    }));
    within(is_started).await.unwrap();
    publish(&events, "s", "2").await;
    let results = subscribe(&other, "result", "g").await;
    let mut drain = Box::pin(events.drain());
    assert!(poll_once(&mut drain).await.is_pending(), "a message is being handled");
    end.send(()).unwrap();
    within(drain).await;
    within(serving).await.unwrap();
    let error = events.publish(&Context::background(), Message::new("s", "")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(payload(&results).await, "done", "handlers can publish while the events drain");
    assert_eq!(payload(&subscribe(&other, "s", "g").await).await, "2");
    within(other.drain()).await;
    assert!(results.next().await.is_none());
}

#[tokio::test]
async fn a_new_group_can_start_with_the_messages_that_are_stored() {
    let Some(server) = NatsServer::start() else { return };
    let events = Events::nats(server.url()).from_start().connect(&Context::background()).await.unwrap();
    publish(&events, "s", "1").await;
    assert_eq!(payload(&subscribe(&events, "s", "g").await).await, "1");
}
