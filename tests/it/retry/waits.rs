//! The wait before a retry, and the context's deadline and end.

use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, SystemTime};

use http::Request;
use throughline::propagation::deadline::parse_grpc_timeout;
use throughline::{Cause, Code, Context, RetryPolicy};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};

use super::{Peer, Reply, get, millis, retrying, seconds};

async fn waits(policy: &RetryPolicy, ctx: &Context, replies: impl IntoIterator<Item = Reply>) -> Vec<Duration> {
    let peer = Peer::new(replies);
    let _ = peer.call(&retrying(policy), get(ctx)).await;
    peer.waits()
}

fn busy(after: &'static str) -> Reply {
    Reply::With(503, "retry-after", after)
}

#[tokio::test(start_paused = true)]
async fn waits_are_random_below_a_limit_that_doubles() {
    let policy = RetryPolicy::new().max_attempts(6).backoff(millis(100), millis(400));
    let mut longest = [Duration::ZERO; 5];
    for _ in 0..20 {
        let waits = waits(&policy, &Context::background(), (0..5).map(|_| Reply::Status(503))).await;
        assert_eq!(waits.len(), 5);
        longest.iter_mut().zip(waits).for_each(|(longest, wait)| *longest = wait.max(*longest));
        // The budget is full again.
        tokio::time::advance(seconds(60)).await;
    }
    for (longest, limit) in longest.into_iter().zip([100, 200, 400, 400, 400]) {
        // The timer rounds up to the next millisecond.
        assert!(longest <= millis(limit + 1) && longest > millis(limit / 3), "{longest:?} of {limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_callee_is_not_called_before_the_time_that_it_asked_for() {
    for (after, asked) in [("2", seconds(2)), ("0", Duration::ZERO), (" 7 ", seconds(7))] {
        let [wait] = waits(&RetryPolicy::new(), &Context::background(), [busy(after)]).await[..] else { panic!() };
        assert!(wait >= asked && wait <= asked + millis(51), "{after}: {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_too_long_means_no_retry_and_garbage_is_absent() {
    let far = httpdate::fmt_http_date(SystemTime::now() + seconds(1 << 30));
    let hostile = [
        // At most 10 s by default. A longer pause is not cut short.
        ("11", None),
        ("3600", None),
        ("18446744073709551615", None),
        (&far, None),
        // These are not valid. The policy's own wait counts.
        ("-1", Some(())),
        ("99999999999999999999999999", Some(())),
        ("1e9", Some(())),
        ("soon", Some(())),
        ("", Some(())),
        ("Fri, 99 Foo 9999 99:99:99 GMT", Some(())),
        // In the past.
        ("Thu, 01 Jan 1970 00:00:00 GMT", Some(())),
    ];
    for (after, is_retried) in hostile {
        let after: &'static str = after.to_owned().leak();
        let waits = waits(&RetryPolicy::new(), &Context::background(), [busy(after)]).await;
        assert_eq!(waits.len(), is_retried.map_or(0, |()| 1), "{after}");
        assert!(waits.iter().all(|wait| *wait <= millis(51)), "{after}: {waits:?}");
    }
    let patient = RetryPolicy::new().max_retry_after(seconds(3600));
    let waits = waits(&patient, &Context::background(), [busy("3600")]).await;
    assert!(waits[..].first().is_some_and(|wait| *wait >= seconds(3600)), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_does_not_fit_into_the_time_left_is_not_begun() {
    // 10 ms of the second are kept for the response's way back.
    for (timeout, sent) in [(millis(900), 1), (millis(1005), 1), (millis(1100), 2)] {
        let policy = RetryPolicy::new().backoff(Duration::ZERO, Duration::ZERO);
        let peer = Peer::new([busy("1")]);
        let (ctx, started) = (Context::background().with_timeout(timeout), Instant::now());
        let response = peer.call(&retrying(&policy), get(&ctx)).await.unwrap();
        assert_eq!(peer.count(), sent, "{timeout:?}");
        if sent == 1 {
            assert_eq!((response.status().as_u16(), started.elapsed()), (503, Duration::ZERO), "at once");
            assert!(!ctx.is_done());
            assert_eq!((policy.retry_count(), policy.over_budget_count()), (0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_sends_the_time_that_is_left_and_an_identity_of_its_own() {
    let peer = Peer::new([busy("2"), busy("3")]);
    let ctx = Context::background().with_timeout(seconds(10));
    peer.call(&retrying(&RetryPolicy::new()), get(&ctx)).await.unwrap();
    let timeouts = peer.headers("grpc-timeout").into_iter().map(|timeout| parse_grpc_timeout(timeout?.as_bytes()));
    let timeouts: Vec<_> = timeouts.map(|timeout| timeout.unwrap().as_millis()).collect();
    let [first, second, third] = timeouts[..] else { panic!("{timeouts:?}") };
    assert_eq!(first, 9950);
    assert!((7890..=7950).contains(&second) && (4790..=4950).contains(&third), "{timeouts:?}");
    let mut identities = peer.headers("traceparent");
    identities.sort();
    identities.dedup();
    assert_eq!(identities.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_ends_the_wait_at_once_with_its_cause() {
    let request = Context::background().with_cancel();
    let (peer, started) = (Peer::new([busy("5")]), Instant::now());
    let layer = retrying(&RetryPolicy::new());
    let call = peer.call(&layer, get(request.context()));
    let cancel = async {
        tokio::time::sleep(seconds(1)).await;
        request.cancel_with(Cause::ClientDisconnected);
    };
    let (result, ()) = tokio::join!(call, cancel);
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Cancelled, "client disconnected"));
    assert_eq!((started.elapsed(), peer.count()), (seconds(1), 1));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_the_deadline_ends_is_the_last_one() {
    let ctx = Context::background().with_timeout(seconds(2));
    let (peer, started) = (Peer::new([Reply::Status(503), Reply::Hang]), Instant::now());
    let error = peer.call(&retrying(&RetryPolicy::new()), get(&ctx)).await.unwrap_err();
    assert_eq!((error.code(), peer.count()), (Code::DeadlineExceeded, 2));
    assert!(started.elapsed() <= seconds(2) + millis(1));
}

/// A service whose clones are never ready.
struct ReadyOnce(Option<Peer>);

impl Clone for ReadyOnce {
    fn clone(&self) -> Self {
        ReadyOnce(None)
    }
}

impl Service<Request<()>> for ReadyOnce {
    type Response = <Peer as Service<Request<()>>>::Response;
    type Error = <Peer as Service<Request<()>>>::Error;
    type Future = <Peer as Service<Request<()>>>::Future;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        if self.0.is_some() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        self.0.as_mut().expect("only the first one is ready").call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_for_the_retry_does_not_outlast_the_context() {
    let (ctx, started) = (Context::background().with_timeout(seconds(2)), Instant::now());
    let once = ReadyOnce(Some(Peer::statuses([503])));
    let error = retrying(&RetryPolicy::new()).layer(once).oneshot(get(&ctx)).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(started.elapsed() >= seconds(2) && started.elapsed() <= millis(2001));
}

#[tokio::test(start_paused = true)]
async fn a_call_under_a_done_context_is_not_sent_and_not_retried() {
    let ctx = Context::background().with_timeout(Duration::ZERO);
    let (peer, policy) = (Peer::statuses([503]), RetryPolicy::new());
    let error = peer.call(&retrying(&policy), get(&ctx)).await.unwrap_err();
    assert_eq!((error.code(), peer.count(), policy.retry_count()), (Code::DeadlineExceeded, 0, 0));
}
