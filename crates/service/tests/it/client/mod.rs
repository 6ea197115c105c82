//! Clients: discovery, balancing, breakers and retries over a medium of the test.

mod all;
mod media;

use std::time::Duration;

use http::Method;
use throughline::{Cause, Code, Context, Error, RetryPolicy};
use throughline_service::Client;
use throughline_service::breaker::{BreakerSettings, BreakerState};
use throughline_service::config::{ClientBreakerSettings, ClientRouteSettings, ClientSettings};
use throughline_transport::{NoSuchService, Transport};

use self::media::{Behaviour, Fleet};
use crate::support::{Spans, millis};

fn background() -> Context {
    Context::background()
}

/// An instance that takes 5 ms, and one that takes longer.
fn fast_and_slow(slow: Duration) -> (Fleet, Client) {
    let fleet = Fleet::of(&["fast", "slow"]);
    fleet.set("fast", Behaviour::delay(millis(5)));
    fleet.set("slow", Behaviour::delay(slow));
    let client = Client::new("balance", &fleet.transport());
    (fleet, client)
}

#[tokio::test(start_paused = true)]
async fn a_call_sends_json_and_returns_json() {
    let fleet = Fleet::of(&["a"]);
    let client = Client::new("balance", &fleet.transport());
    let sum: u64 = client.call(&background(), "sum", &[20, 22]).await.unwrap();
    assert_eq!(sum, 42);
    let seen = fleet.last_request();
    assert_eq!((seen.uri.to_string().as_str(), &seen.method), ("http://balance/sum", &Method::POST));
    assert_eq!(seen.headers["content-type"], "application/json");
    assert!(seen.headers.contains_key("traceparent"));
    fleet.set("a", Behaviour::body(b""));
    client.call::<()>(&background(), "close", &()).await.unwrap();
    fleet.set("a", Behaviour::body(b"7"));
    assert_eq!(client.get::<u8>(&background(), "/size").await.unwrap(), 7);
    assert_eq!((fleet.last_request().method, fleet.last_request().uri.path()), (Method::GET, "/size"));
    assert_eq!(client.call_bytes(&background(), "raw", "x").await.unwrap(), "7");
}

#[tokio::test(start_paused = true)]
async fn garbage_in_a_response_is_internal_with_service_and_route_and_not_its_content() {
    let fleet = Fleet::of(&["a"]);
    fleet.set("a", Behaviour::body(br#"{"secret":"hunter2"}"#));
    let client = Client::new("balance", &fleet.transport());
    let error = client.call::<u64>(&background(), "sum", &[1]).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().contains("balance") && error.message().contains("sum"), "{error}");
    assert!(!format!("{error:?} {error:#}").contains("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_service_names_it() {
    let fleet = Fleet::of(&["a"]);
    fleet.set("a", Behaviour::error(Error::new(Code::FailedPrecondition, "the card is blocked")));
    let client = Client::new("balance", &fleet.transport());
    let error = client.call::<u64>(&background(), "sum", &[1]).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "the card is blocked"));
    assert_eq!(error.origin(), Some("balance"));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_service_fails_at_once_and_is_looked_up_again() {
    let transport = Transport::in_process();
    let client = Client::new("balance", &transport);
    let start = tokio::time::Instant::now();
    let error = client.call::<u64>(&background(), "sum", &[1]).await.unwrap_err();
    assert_eq!((error.code(), start.elapsed()), (Code::NotFound, Duration::ZERO));
    assert_eq!(NoSuchService::find_in(&error).map(NoSuchService::service), Some("balance"));
    let mut listener = transport.listen("balance").await.unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = listener.next().await {
            incoming.responder.respond(http::Response::new("42".into()));
        }
    });
    assert_eq!(client.call::<u64>(&background(), "sum", &[1]).await.unwrap(), 42);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_first_calls_share_one_look_up() {
    let fleet = Fleet::of(&["a"]);
    let client = Client::new("balance", &fleet.transport());
    let ctx = background();
    let calls = (0..1000).map(|_| client.call::<u64>(&ctx, "sum", &[1]));
    for result in futures_util::future::join_all(calls).await {
        assert_eq!(result.unwrap(), 1);
    }
    assert_eq!(fleet.look_ups(), 1);
}

#[tokio::test(start_paused = true)]
async fn at_least_90_percent_of_the_calls_go_to_the_fast_one_of_two_instances() {
    let (fleet, client) = fast_and_slow(millis(100));
    let callers = (0..4).map(|_| async {
        for _ in 0..250 {
            client.call::<u64>(&background(), "sum", &[1]).await.unwrap();
        }
    });
    futures_util::future::join_all(callers).await;
    let (fast, slow) = (fleet.calls("fast"), fleet.calls("slow"));
    assert!(fast >= 900 && fast + slow == 1000, "{fast} fast, {slow} slow");
    assert!(slow > 0, "it was tried");
}

#[tokio::test(start_paused = true)]
async fn calls_that_their_callers_drop_do_not_make_a_slow_instance_look_fast() {
    let (fleet, client) = fast_and_slow(millis(60_000));
    let mut dropped = 0;
    for _ in 0..500 {
        let ctx = background();
        let call = client.call::<u64>(&ctx, "sum", &[1]);
        dropped += usize::from(tokio::time::timeout(millis(20), call).await.is_err());
    }
    assert_eq!(dropped, fleet.calls("slow"));
    assert!(dropped <= 50, "{dropped} of 500");
}

#[tokio::test(start_paused = true)]
async fn a_dead_instance_fails_at_most_one_call_per_caller() {
    let fleet = Fleet::of(&["alive", "dead"]);
    fleet.set("alive", Behaviour::delay(millis(2)));
    fleet.set("dead", Behaviour::unreachable());
    let client = Client::new("balance", &fleet.transport());
    let callers = (0..10).map(|_| async {
        let mut failed = Vec::new();
        for number in 0..100 {
            if client.call::<u64>(&background(), "sum", &[1]).await.is_err() {
                failed.push(number);
            }
        }
        failed
    });
    let failed = futures_util::future::join_all(callers).await;
    assert!(failed.iter().all(|failed| failed.len() <= 1), "{failed:?}");
    assert!(failed.iter().any(|failed| !failed.is_empty()), "the dead one was tried");
}

#[tokio::test(start_paused = true)]
async fn without_a_ready_instance_a_call_fails_at_once_and_an_instance_that_comes_back_is_used_again() {
    let fleet = Fleet::of(&["a", "b"]);
    for name in ["a", "b"] {
        fleet.set(name, Behaviour::unreachable());
    }
    let client = Client::new("balance", &fleet.transport());
    client.set_breaker(BreakerSettings { jitter: 0.0, unreachable_limit: 1, ..BreakerSettings::default() });
    for _ in 0..2 {
        client.call::<u64>(&background(), "sum", &[1]).await.unwrap_err();
    }
    assert!(client.breakers().iter().all(|breaker| breaker.state() == BreakerState::Open));
    let sent = fleet.calls("a") + fleet.calls("b");
    assert_eq!(sent, 2);
    let error = client.call::<u64>(&background(), "sum", &[1]).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)));
    assert!(error.message().contains("balance"), "{error}");
    assert!(error.retry_after().is_some_and(|after| after <= millis(1000)));
    assert_eq!(fleet.calls("a") + fleet.calls("b"), sent, "nothing was sent");

    fleet.set("a", Behaviour::ok());
    tokio::time::advance(millis(1000)).await;
    let mut succeeded = 0;
    for _ in 0..20 {
        succeeded += usize::from(client.call::<u64>(&background(), "sum", &[1]).await.is_ok());
    }
    assert!(succeeded >= 19, "{succeeded} of 20: at most the probe of the other fails");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_leaves_gets_no_new_calls_and_ends_those_in_flight() {
    let fleet = Fleet::of(&["a", "b"]);
    for name in ["a", "b"] {
        fleet.set(name, Behaviour::delay(millis(500)));
    }
    let client = Client::new("balance", &fleet.transport());
    let ctx = background();
    let calls = futures_util::future::join_all((0..10).map(|_| client.call::<u64>(&ctx, "sum", &[1])));
    let (results, before) = tokio::join!(calls, async {
        tokio::time::sleep(millis(100)).await;
        fleet.remove("a");
        fleet.calls("a")
    });
    assert!(before > 0 && results.iter().all(Result::is_ok));
    for _ in 0..20 {
        client.call::<u64>(&ctx, "sum", &[1]).await.unwrap();
    }
    assert_eq!(fleet.calls("a"), before);
    fleet.insert("a");
    fleet.set("b", Behaviour::unreachable());
    tokio::time::sleep(millis(1)).await;
    for _ in 0..3 {
        let _ = client.call::<u64>(&ctx, "sum", &[1]).await;
    }
    assert!(fleet.calls("a") > before, "it is used again");
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_instance_and_has_a_span_of_its_own() {
    let (fleet, spans) = (Fleet::of(&["a", "b"]), Spans::default());
    for name in ["a", "b"] {
        fleet.set(name, Behaviour::error_once(Error::new(Code::Unavailable, "restarting")));
    }
    let client = Client::new("balance", &fleet.transport()).idempotent(["sum"]);
    let ctx = spans.context().with_timeout(millis(10_000));
    assert_eq!(client.call::<u64>(&ctx, "sum", &[1]).await.unwrap(), 1);
    assert_eq!((fleet.calls("a").min(fleet.calls("b")), fleet.calls("a") + fleet.calls("b")), (1, 3));
    let spans = spans.take();
    let names: Vec<_> = spans.iter().map(|span| span.name.to_string()).collect();
    assert_eq!(names, ["POST /sum"; 3]);
    let resend = |span: &throughline::SpanRecord| {
        span.attributes.iter().find(|(key, _)| *key == "http.request.resend_count").map(|(_, value)| value.to_string())
    };
    assert_eq!(spans.iter().map(resend).collect::<Vec<_>>(), [None, Some("1".into()), Some("2".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_not_declared_idempotent_is_not_retried() {
    let fleet = Fleet::of(&["a", "b"]);
    for name in ["a", "b"] {
        fleet.set(name, Behaviour::error(Error::new(Code::Unavailable, "restarting").with_retryable(true)));
    }
    let client = Client::new("balance", &fleet.transport()).idempotent(["search"]).retry(RetryPolicy::new());
    client.call::<u64>(&background(), "sum", &[1]).await.unwrap_err();
    assert_eq!(fleet.calls("a") + fleet.calls("b"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_route_counts_unless_the_context_has_less() {
    let fleet = Fleet::of(&["a"]);
    fleet.set("a", Behaviour::delay(millis(60_000)));
    let client = Client::new("balance", &fleet.transport()).timeout(millis(2000)).route_timeout("sum", millis(500));
    for (left, route, expected) in
        [(None, "sum", 500), (None, "other", 2000), (Some(100), "sum", 100), (Some(9000), "sum", 500)]
    {
        let ctx = left.map_or_else(background, |left| background().with_timeout(millis(left)));
        let start = tokio::time::Instant::now();
        let error = client.call::<u64>(&ctx, route, &[1]).await.unwrap_err();
        assert_eq!((error.code(), start.elapsed().as_millis()), (Code::DeadlineExceeded, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn timeouts_of_settings_replace_those_of_the_same_rank_in_the_code() {
    let fleet = Fleet::of(&["a"]);
    fleet.set("a", Behaviour::delay(millis(60_000)));
    let search = ClientRouteSettings { timeout: Some(millis(700)), ..ClientRouteSettings::default() };
    let routes = [("search".to_owned(), search)].into();
    let settings = ClientSettings { timeout: Some(millis(300)), routes, ..ClientSettings::default() };
    let client = Client::new("balance", &fleet.transport())
        .timeout(millis(2000))
        .route_timeout("search", millis(900))
        .route_timeout("statement", millis(1500))
        .settings(settings);
    for (route, expected) in [("sum", 300), ("search", 700), ("statement", 1500)] {
        let start = tokio::time::Instant::now();
        client.call::<u64>(&background(), route, &[1]).await.unwrap_err();
        assert_eq!(start.elapsed().as_millis(), expected, "{route}");
    }
}

#[tokio::test(start_paused = true)]
async fn routes_that_settings_declare_idempotent_are_added_to_those_of_the_code() {
    let fleet = Fleet::of(&["a"]);
    let search = ClientRouteSettings { idempotent: true, ..ClientRouteSettings::default() };
    let settings = ClientSettings { routes: [("search".to_owned(), search)].into(), ..ClientSettings::default() };
    let client = Client::new("balance", &fleet.transport())
        .idempotent(["list"])
        .retry(RetryPolicy::new().idempotent_if(|_, uri| uri.path() == "/sum"))
        .settings(settings);
    for (route, is_retried) in [("search", true), ("list", true), ("sum", true), ("reserve", false)] {
        fleet.set("a", Behaviour::error_once(Error::new(Code::Unavailable, "restarting")));
        assert_eq!(client.call::<u64>(&background(), route, &[1]).await.is_ok(), is_retried, "{route}");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_decide_when_the_breakers_of_the_instances_open() {
    let fleet = Fleet::of(&["a"]);
    fleet.set("a", Behaviour::error(Error::new(Code::Internal, "no")));
    let breaker = ClientBreakerSettings { min_requests: Some(2), ..ClientBreakerSettings::default() };
    let settings = ClientSettings { breaker, ..ClientSettings::default() };
    let client = Client::new("balance", &fleet.transport()).settings(settings);
    for _ in 0..4 {
        client.call::<u64>(&background(), "sum", &[1]).await.unwrap_err();
    }
    assert_eq!((client.breakers()[0].state(), fleet.calls("a")), (BreakerState::Open, 2));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cancelled_is_dropped_at_the_instance() {
    let fleet = Fleet::of(&["a"]);
    fleet.set("a", Behaviour::delay(millis(60_000)));
    let client = Client::new("balance", &fleet.transport());
    let caller = background().with_cancel();
    let (result, ()) = tokio::join!(client.call::<u64>(&caller, "sum", &[1]), async {
        tokio::time::sleep(millis(10)).await;
        assert_eq!(fleet.running(), 1);
        caller.cancel_with(Cause::ClientDisconnected);
    });
    assert_eq!((result.unwrap_err().code(), fleet.running()), (Code::Cancelled, 0));
}
