//! A second attempt beside a slow first one.

use std::time::Duration;

use axum::routing::get as route;
use axum::{Extension, Router};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use throughline::{Code, Context, Idempotent, RetryPolicy};
use tokio::time::Instant;
use tower::retry::budget::TpsBudget;
use tower::{Layer, ServiceExt};

use super::{Peer, Reply, get, millis, request, retrying, seconds};
use crate::support::{PATIENCE, Traced, serve};

fn hedging() -> RetryPolicy {
    RetryPolicy::new().hedge_after(millis(100)).backoff(Duration::ZERO, Duration::ZERO)
}

#[tokio::test(start_paused = true)]
async fn the_first_good_response_wins_and_the_other_attempt_is_cancelled() {
    for (replies, took, dropped) in [
        // The first is fast: there is no second.
        (vec![Reply::Slow(millis(50))], 50, 0),
        (vec![Reply::Hang], 100, 1),
        (vec![Reply::Slow(millis(300)), Reply::Slow(millis(500))], 300, 1),
        (vec![Reply::Slow(millis(900)), Reply::Slow(millis(200))], 300, 1),
    ] {
        let (peer, policy, started) = (Peer::new(replies), hedging(), Instant::now());
        peer.call(&retrying(&policy), get(&Context::background())).await.unwrap();
        assert_eq!((started.elapsed(), peer.dropped()), (millis(took), dropped));
        assert_eq!(peer.count() as u64, 1 + policy.retry_count());
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_fails_does_not_end_an_attempt_that_still_runs() {
    let (peer, started) = (Peer::new([Reply::Slow(millis(400)), Reply::Status(503)]), Instant::now());
    let response = peer.call(&retrying(&hedging()), get(&Context::background())).await.unwrap();
    assert_eq!((response.status().as_u16(), peer.count(), peer.dropped()), (200, 2, 0));
    assert_eq!(started.elapsed(), millis(400));

    // A response that is final is good, too.
    let peer = Peer::new([Reply::Slow(millis(400)), Reply::Status(404)]);
    let response = peer.call(&retrying(&hedging()), get(&Context::background())).await.unwrap();
    assert_eq!((response.status().as_u16(), peer.dropped()), (404, 1));
}

#[tokio::test(start_paused = true)]
async fn after_both_attempts_failed_the_call_is_retried_up_to_the_same_maximum() {
    let replies = || [Reply::Fail(reset()), Reply::Status(503), Reply::Status(503), Reply::Status(503)];
    let policy = hedging().max_attempts(2);
    let peer = Peer::new(replies());
    assert!(peer.call(&retrying(&policy), get(&Context::background())).await.is_ok_and(|it| it.status() == 503));
    assert_eq!(peer.count(), 2);
    let peer = Peer::new(replies());
    peer.call(&retrying(&hedging().max_attempts(9)), get(&Context::background())).await.unwrap();
    assert_eq!(peer.count(), 5);
}

fn reset() -> super::BoxError {
    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
}

#[tokio::test(start_paused = true)]
async fn only_what_may_be_retried_is_hedged() {
    let sent = async |policy: RetryPolicy, call: Request<()>| {
        let peer = Peer::new([Reply::Slow(seconds(1))]);
        peer.call(&retrying(&policy), call).await.unwrap();
        (peer.count(), policy.retry_count(), policy.over_budget_count())
    };
    let ctx = Context::background();
    assert_eq!(sent(hedging(), get(&ctx)).await, (2, 1, 0));
    assert_eq!(sent(hedging(), request("POST", &ctx)).await, (1, 0, 0));
    let mut declared = request("POST", &ctx);
    declared.extensions_mut().insert(Idempotent(true));
    assert_eq!(sent(hedging(), declared).await, (2, 1, 0));
    assert_eq!(sent(hedging().max_attempts(1), get(&ctx)).await, (1, 0, 0));
    let without_budget = hedging().budget(TpsBudget::new(seconds(1), 0, 0.0));
    assert_eq!(sent(without_budget, get(&ctx)).await, (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn no_hedge_is_sent_after_the_context_has_ended() {
    let ctx = Context::background().with_timeout(millis(100));
    let (peer, policy) = (Peer::new([Reply::Hang]), hedging());
    let error = peer.call(&retrying(&policy), get(&ctx)).await.unwrap_err();
    assert_eq!((error.code(), peer.count(), policy.retry_count()), (Code::DeadlineExceeded, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_gets_a_pause_too_long_ends_retries_but_not_the_attempt_beside_it() {
    let refused = || Reply::With(503, "retry-after", "3600");
    let policy = hedging().max_attempts(9);
    let peer = Peer::new([Reply::Slow(seconds(1)), refused()]);
    let response = peer.call(&retrying(&policy), get(&Context::background())).await.unwrap();
    assert_eq!((response.status().as_u16(), peer.count()), (200, 2));

    let peer = Peer::new([Reply::SlowFailure(seconds(1)), refused()]);
    let error = peer.call(&retrying(&policy), get(&Context::background())).await.unwrap_err();
    assert_eq!((error.code(), peer.count()), (Code::Unavailable, 2));

    // A pause that is not too long counts from the response that asked for it.
    let peer = Peer::new([Reply::SlowFailure(seconds(1)), Reply::With(503, "retry-after", "5")]);
    peer.call(&retrying(&policy), get(&Context::background())).await.unwrap();
    assert_eq!((peer.count(), peer.waits()), (3, vec![millis(100), seconds(5)]));
}

#[tokio::test(start_paused = true)]
async fn the_delay_can_be_a_percentile_of_the_last_calls() {
    let policy = RetryPolicy::new().hedge_after_percentile(0.9);
    let layer = retrying(&policy);
    let call = async |time: Duration| {
        let (peer, started) = (Peer::new([Reply::Slow(time)]), Instant::now());
        peer.call(&layer, get(&Context::background())).await.unwrap();
        (peer.count(), started.elapsed())
    };
    for time in 1..20 {
        assert_eq!(call(millis(time)).await.0, 1);
    }
    assert_eq!(call(seconds(1)).await, (1, seconds(1)), "there are too few calls");
    assert_eq!(call(seconds(1)).await, (2, millis(18)));
    assert_eq!(call(millis(17)).await.0, 1);
}

#[tokio::test]
async fn the_server_sees_that_the_attempt_that_lost_is_cancelled() {
    let callee = Traced::new("cards");
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let handler = move |Extension(ctx): Extension<Context>| async move {
        if !first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            return "done";
        }
        tokio::spawn(async move {
            ctx.done().await;
            let _ = sender.send(ctx.cause().unwrap().name());
        });
        std::future::pending().await
    };
    let address = serve(Router::new().route("/", route(handler)).layer(callee.internal())).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let request = Request::get(format!("http://{address}/")).body(Full::default()).unwrap();
    let layer = retrying(&RetryPolicy::new().hedge_after(millis(1)));
    let response = tokio::time::timeout(PATIENCE, layer.layer(client).oneshot(request)).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    let cause = tokio::time::timeout(PATIENCE, receiver.recv()).await.unwrap();
    assert_eq!(cause, Some("client_disconnected"));
}
