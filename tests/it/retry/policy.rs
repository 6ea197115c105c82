//! What is retried, how often, and within which budget.

use std::io;
use std::time::Duration;

use h2::Reason;
use http::StatusCode;

use throughline::{Code, Context, Error, Idempotent, RetryLayer, RetryPolicy};
use tower::retry::budget::TpsBudget;

use super::{BoxError, Peer, Reply, get, millis, request, retrying, seconds};

async fn attempts_for(policy: &RetryPolicy, reply: Reply) -> usize {
    let peer = Peer::new([reply]);
    let _ = peer.call(&retrying(policy), get(&Context::background())).await;
    peer.count()
}

#[tokio::test(start_paused = true)]
async fn a_call_is_sent_again_until_it_succeeds() {
    let (peer, policy) = (Peer::statuses([503, 502]), RetryPolicy::new());
    let response = peer.call(&retrying(&policy), get(&Context::background())).await.unwrap();
    assert_eq!((response.status(), peer.count(), policy.retry_count()), (StatusCode::OK, 3, 2));
}

#[tokio::test(start_paused = true)]
async fn after_the_last_attempt_its_result_is_returned() {
    for (max_attempts, sent) in [(0, 1), (1, 1), (2, 2), (5, 5)] {
        let policy = RetryPolicy::new().max_attempts(max_attempts);
        let peer = Peer::statuses([503, 503, 503, 503, 502, 200]);
        let response = peer.call(&retrying(&policy), get(&Context::background())).await.unwrap();
        assert_eq!(peer.count(), sent);
        assert_eq!(response.status(), if sent == 5 { 502 } else { 503 });
    }
    let failures = (0..3).map(|_| Reply::Fail(io::Error::from(io::ErrorKind::ConnectionRefused).into()));
    let peer = Peer::new(failures);
    let error = peer.call(&retrying(&RetryPolicy::new()), get(&Context::background())).await.unwrap_err();
    assert_eq!((error.code(), peer.count()), (Code::Unavailable, 3));
}

#[tokio::test(start_paused = true)]
async fn statuses_of_a_passing_state_are_retried_and_others_are_not() {
    for (status, sent) in [
        (200, 1),
        (304, 1),
        (400, 1),
        (404, 1),
        (408, 2),
        (409, 1),
        (429, 2),
        (499, 1),
        (500, 1),
        (501, 1),
        (502, 2),
        (503, 2),
        (504, 2),
        (505, 1),
    ] {
        assert_eq!(attempts_for(&RetryPolicy::new(), Reply::Status(status)).await, sent, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_without_a_response_are_retried_by_their_meaning() {
    let reset = |reason: Reason| -> BoxError { h2::Error::from(reason).into() };
    let cases: [(BoxError, usize); 9] = [
        (io::Error::from(io::ErrorKind::ConnectionRefused).into(), 2),
        (io::Error::from(io::ErrorKind::ConnectionReset).into(), 2),
        (io::Error::from(io::ErrorKind::TimedOut).into(), 2),
        (reset(Reason::REFUSED_STREAM), 2),
        (reset(Reason::INTERNAL_ERROR), 1),
        (reset(Reason::CANCEL), 1),
        (Error::new(Code::Internal, "no").with_retryable(true).into(), 2),
        (Error::new(Code::Unavailable, "no").with_retryable(false).into(), 1),
        (Error::new(Code::FailedPrecondition, "no").into(), 1),
    ];
    for (failure, sent) in cases {
        let named = format!("{failure:?}");
        assert_eq!(attempts_for(&RetryPolicy::new(), Reply::Fail(failure)).await, sent, "{named}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_a_layer_inside_ends_by_its_own_timeout_is_retried() {
    use tower::{Layer, ServiceExt};
    let peer = Peer::new([Reply::Hang]);
    let limited = tower::timeout::TimeoutLayer::new(seconds(1)).layer(peer.clone());
    let ctx = Context::background().with_timeout(seconds(30));
    let response = retrying(&RetryPolicy::new()).layer(limited).oneshot(get(&ctx)).await.unwrap();
    assert_eq!((response.status(), peer.count(), peer.dropped()), (StatusCode::OK, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn only_idempotent_methods_are_retried() {
    // RFC 9110 §9.2.2.
    for (method, sent) in [
        ("GET", 2),
        ("HEAD", 2),
        ("OPTIONS", 2),
        ("TRACE", 2),
        ("PUT", 2),
        ("DELETE", 2),
        ("POST", 1),
        ("PATCH", 1),
        ("CONNECT", 1),
        ("BREW", 1),
    ] {
        let peer = Peer::statuses([503]);
        let policy = RetryPolicy::new();
        let call = request(method, &Context::background());
        let response = peer.call(&retrying(&policy), call).await.unwrap();
        assert_eq!(peer.count(), sent, "{method}");
        assert_eq!((response.status().is_success(), policy.retry_count()), (sent == 2, sent as u64 - 1), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_is_not_retried_even_if_the_callee_refused_it() {
    let refused: [BoxError; 2] = [
        h2::Error::from(Reason::REFUSED_STREAM).into(),
        Error::new(Code::Unavailable, "not processed").with_retryable(true).into(),
    ];
    for failure in refused {
        let peer = Peer::new([Reply::Fail(failure)]);
        let call = request("POST", &Context::background());
        assert!(peer.call(&retrying(&RetryPolicy::new()), call).await.is_err());
        assert_eq!(peer.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn idempotence_can_be_declared_by_request_and_by_policy() {
    let sent = async |layer: &RetryLayer, method, change: fn(&mut http::Request<()>)| {
        let peer = Peer::statuses([503]);
        let mut call = request(method, &Context::background());
        change(&mut call);
        peer.call(layer, call).await.unwrap();
        peer.count()
    };
    let by_method = retrying(&RetryPolicy::new());
    let by_path = retrying(&RetryPolicy::new().idempotent_if(|method, uri| method == "POST" && uri.path() == "/7"));
    let unchanged: fn(&mut http::Request<()>) = |_| {};
    let declare: fn(&mut http::Request<()>) = |call| {
        call.extensions_mut().insert(Idempotent(true));
    };
    let forbid: fn(&mut http::Request<()>) = |call| {
        call.extensions_mut().insert(Idempotent(false));
    };
    let with_key: fn(&mut http::Request<()>) =
        |call| drop(call.headers_mut().insert("idempotency-key", "7".parse().unwrap()));
    let elsewhere: fn(&mut http::Request<()>) = |call| *call.uri_mut() = "http://cards/8".parse().unwrap();
    assert_eq!(sent(&by_method, "POST", declare).await, 2);
    assert_eq!(sent(&by_method, "POST", with_key).await, 2);
    assert_eq!(sent(&by_method, "GET", forbid).await, 1);
    assert_eq!(sent(&by_path, "POST", unchanged).await, 2);
    assert_eq!(sent(&by_path, "POST", elsewhere).await, 1);
    assert_eq!(sent(&by_path, "POST", forbid).await, 1);
    assert_eq!(sent(&by_path, "PATCH", unchanged).await, 1);
    assert_eq!(sent(&by_path, "GET", elsewhere).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_rule_decides_which_errors_are_retried_but_not_against_the_callee() {
    let policy = RetryPolicy::new().retry_if(|error| error.code() == Code::Aborted);
    assert_eq!(attempts_for(&policy, Reply::Status(409)).await, 2);
    assert_eq!(attempts_for(&policy, Reply::Status(503)).await, 1);
    let refused = |retryable| Reply::Fail(Error::new(Code::Aborted, "no").with_retryable(retryable).into());
    assert_eq!(attempts_for(&policy, refused(true)).await, 2);
    assert_eq!(attempts_for(&policy, refused(false)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_policy_share_one_budget_and_their_counts() {
    // One retry per second, and none for the calls.
    let policy = RetryPolicy::new().budget(TpsBudget::new(seconds(1), 1, 0.0)).backoff(Duration::ZERO, Duration::ZERO);
    let (one, other) = (retrying(&policy), retrying(&policy.clone()));
    let ctx = Context::background();
    let statuses = async |layer| Peer::statuses([503]).call(layer, get(&ctx)).await.unwrap().status().as_u16();
    assert_eq!(statuses(&one).await, 200);
    assert_eq!(statuses(&other).await, 503, "the budget is used up");
    assert_eq!((policy.retry_count(), policy.over_budget_count()), (1, 1));
    tokio::time::advance(seconds(2)).await;
    assert_eq!(statuses(&other).await, 200);
    assert_eq!((policy.retry_count(), policy.over_budget_count()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_outage_sends_a_fifth_more_requests_and_not_three_times_as_many() {
    let policy = RetryPolicy::new().budget(TpsBudget::new(seconds(10), 0, 0.2)).backoff(millis(1), millis(1));
    let (layer, peer) = (retrying(&policy), Peer::statuses([503; 3000]));
    for _ in 0..1000 {
        peer.call(&layer, get(&Context::background())).await.unwrap();
    }
    assert_eq!((peer.count(), policy.retry_count()), (1200, 200));
    assert_eq!(policy.over_budget_count(), 1000, "each call asks until it is refused");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_not_be_retried_uses_no_budget() {
    let policy = RetryPolicy::new();
    for (method, status) in [("POST", 503), ("GET", 404), ("GET", 200)] {
        let call = request(method, &Context::background());
        Peer::statuses([status]).call(&retrying(&policy), call).await.unwrap();
    }
    assert_eq!((policy.retry_count(), policy.over_budget_count()), (0, 0));
}

#[derive(Clone, Debug, PartialEq)]
struct Tenant(u32);

#[tokio::test(start_paused = true)]
async fn each_attempt_is_the_same_request() {
    let peer = Peer::statuses([503]);
    let mut call = request("PUT", &Context::background());
    call.headers_mut().insert("accept", "text/plain".parse().unwrap());
    call.extensions_mut().insert(Tenant(7));
    *call.version_mut() = http::Version::HTTP_2;
    peer.call(&retrying(&RetryPolicy::new()), call).await.unwrap();
    let attempts = peer.attempts.lock().unwrap();
    assert_eq!(attempts.len(), 2);
    for attempt in &*attempts {
        let head = &attempt.head;
        assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("PUT", "http://cards/7"));
        assert_eq!(head.version, http::Version::HTTP_2);
        assert_eq!(head.headers["accept"], "text/plain");
        assert_eq!(head.extensions.get(), Some(&Tenant(7)));
    }
}
