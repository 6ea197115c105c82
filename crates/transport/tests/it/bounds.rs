//! The limits of a group within the process, in messages and in bytes.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use throughline::{Code, Context, Error};
use throughline_transport::{Events, GroupLimits, Message};

use crate::support::{poll_once, subscribe};

const MIB: usize = 1024 * 1024;

type Publishing<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

fn publish<'a>(events: &'a Events, ctx: &'a Context, bytes: usize) -> Publishing<'a> {
    Box::pin(events.publish(ctx, Message::new("s", vec![0; bytes])))
}

fn plain(ctx: &Context, events: Events) -> (Events, Context) {
    // Without a trace, headers are empty, so that sizes are exact.
    (events.propagator(throughline::Propagator::new([])), ctx.clone())
}

#[tokio::test]
async fn a_group_holds_at_most_16_mib_by_default_and_a_publisher_waits_until_a_message_is_handled() {
    let (events, ctx) = plain(&Context::background(), Events::in_process());
    let group = subscribe(&events, "s", "g").await;
    for _ in 0..16 {
        publish(&events, &ctx, MIB).await.unwrap();
    }
    let mut next = publish(&events, &ctx, 1);
    assert!(poll_once(&mut next).await.is_pending(), "the group is full");
    let taken = group.next().await.unwrap();
    assert!(poll_once(&mut next).await.is_pending(), "a message counts until it is handled");
    taken.acknowledge();
    next.await.unwrap();
}

#[tokio::test]
async fn payload_and_headers_count_towards_the_bytes_of_a_group() {
    let limits = GroupLimits { bytes: 10, ..GroupLimits::default() };
    let (events, ctx) = plain(&Context::background(), Events::in_process_with(limits));
    let group = subscribe(&events, "s", "g").await;
    let counters = group.counters();
    let mut message = Message::new("s", "1234");
    message.headers.insert("abc", "def".parse().unwrap());
    events.publish(&ctx, message.clone()).await.unwrap();
    assert_eq!((counters.waiting(), counters.waiting_bytes()), (1, 10));
    message.headers.append("a", "".parse().unwrap());
    let error = events.publish(&ctx, message).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_message_that_no_group_can_hold_is_refused_at_once_and_names_the_limit() {
    let (events, ctx) = plain(&Context::background(), Events::in_process());
    let group = subscribe(&events, "s", "g").await;
    publish(&events, &ctx, 16 * MIB).await.unwrap();
    let error = publish(&events, &ctx, 16 * MIB + 1).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::ResourceExhausted, Some(false)));
    assert!(error.message().contains("16777217") && error.message().contains("16777216"), "{error}");
    group.next().await.unwrap().acknowledge();
    events.drain().await;
}

#[tokio::test]
async fn the_limits_of_a_group_can_be_set_and_never_let_a_group_hold_nothing() {
    let limits = GroupLimits { messages: 2, ..GroupLimits::default() };
    let (events, ctx) = plain(&Context::background(), Events::in_process_with(limits));
    let _group = subscribe(&events, "s", "g").await;
    publish(&events, &ctx, 1).await.unwrap();
    publish(&events, &ctx, 1).await.unwrap();
    assert!(poll_once(&mut publish(&events, &ctx, 1)).await.is_pending());

    let limits = GroupLimits { messages: 0, bytes: usize::MAX };
    let (events, ctx) = plain(&ctx, Events::in_process_with(limits));
    let _group = subscribe(&events, "s", "g").await;
    publish(&events, &ctx, 1).await.unwrap();
    assert!(poll_once(&mut publish(&events, &ctx, 1)).await.is_pending(), "0 messages count as 1");
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_waits_ends_with_its_context_and_leaves_no_count_behind() {
    let limits = GroupLimits { messages: 3, bytes: 100 };
    let (events, ctx) = plain(&Context::background(), Events::in_process_with(limits));
    let group = subscribe(&events, "s", "g").await;
    publish(&events, &ctx, 60).await.unwrap();

    let error = publish(&events, &ctx.with_timeout(Duration::from_secs(3)), 60).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let request = ctx.with_cancel();
    let mut waiting = publish(&events, &request, 60);
    assert!(poll_once(&mut waiting).await.is_pending());
    request.cancel();
    assert_eq!(waiting.await.unwrap_err().code(), Code::Cancelled);

    let counters = group.counters();
    assert_eq!((counters.waiting(), counters.waiting_bytes()), (1, 60));
    // Neither messages nor bytes are held for the publishers that gave up.
    publish(&events, &ctx, 40).await.unwrap();
    publish(&events, &ctx, 0).await.unwrap();
    for _ in 0..3 {
        group.next().await.unwrap().acknowledge();
    }
    assert_eq!((counters.waiting(), counters.waiting_bytes(), counters.acknowledged()), (0, 0, 3));
    events.drain().await;
}

#[tokio::test]
async fn small_messages_do_not_overtake_a_large_one_that_waits() {
    let limits = GroupLimits { bytes: 100, ..GroupLimits::default() };
    let (events, ctx) = plain(&Context::background(), Events::in_process_with(limits));
    let group = subscribe(&events, "s", "g").await;
    publish(&events, &ctx, 50).await.unwrap();
    let (mut large, mut small) = (publish(&events, &ctx, 100), publish(&events, &ctx, 1));
    assert!(poll_once(&mut large).await.is_pending() && poll_once(&mut small).await.is_pending());
    group.next().await.unwrap().acknowledge();
    assert!(poll_once(&mut small).await.is_pending() && poll_once(&mut large).await.is_ready());
    group.next().await.unwrap().acknowledge();
    assert!(poll_once(&mut small).await.is_ready());
}

#[tokio::test]
async fn a_publisher_that_waits_for_a_group_returns_when_the_group_ends() {
    let limits = GroupLimits { bytes: 100, ..GroupLimits::default() };
    let (events, ctx) = plain(&Context::background(), Events::in_process_with(limits));
    let group = subscribe(&events, "s", "g").await;
    let counters = group.counters();
    publish(&events, &ctx, 100).await.unwrap();
    let mut waiting = publish(&events, &ctx, 100);
    assert!(poll_once(&mut waiting).await.is_pending());
    drop(group);
    waiting.await.unwrap();
    assert_eq!((counters.discarded(), counters.waiting(), counters.waiting_bytes()), (2, 0, 0));
    events.drain().await;
}

#[tokio::test(start_paused = true)]
async fn the_counters_show_messages_that_wait_or_pause_and_not_those_being_handled() {
    let (events, ctx) = plain(&Context::background(), Events::in_process());
    let group = subscribe(&events, "s", "g").await;
    let counters = group.counters();
    let waiting = || (counters.waiting(), counters.waiting_bytes());
    publish(&events, &ctx, 7).await.unwrap();
    publish(&events, &ctx, 5).await.unwrap();
    assert_eq!(waiting(), (2, 12));
    let seven = group.next().await.unwrap();
    assert_eq!(waiting(), (1, 5));
    seven.redeliver_after(Duration::from_secs(1));
    assert_eq!(waiting(), (2, 12));
    drop(group);
    assert_eq!(waiting(), (0, 0));
}

#[tokio::test]
async fn a_malformed_subject_is_an_invalid_argument() {
    let (events, ctx) = plain(&Context::background(), Events::in_process());
    let error = events.publish(&ctx, Message::new("card..ordered", "")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let error = events.subscribe(&ctx, "card.*", "g").await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::InvalidArgument, Some(false)));
}
