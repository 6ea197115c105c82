//! What a service counts, by route.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use throughline::{Code, Context, ContextLayer, Ctx, Error, Route};
use throughline_service::{Json, Service};
use throughline_transport::Transport;
use tokio::sync::mpsc;

use crate::support::{Gate, SECOND, Served, post};

#[tokio::test(start_paused = true)]
async fn a_route_counts_its_requests_failures_sheds_causes_and_durations() {
    let handler = async |Ctx(_): Ctx, Json(work): Json<String>| match work.as_str() {
        "succeed" => Ok("done"),
        "take 100 ms" => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok("done")
        }
        "take too long" => std::future::pending().await,
        "panic" => panic!("as asked"),
        _ => Err(Error::new(Code::FailedPrecondition, "the balance is too low")),
    };
    let service: Service = Service::new("balance")
        .route("reserve", handler)
        .route_options("reserve", Route::new().timeout(SECOND).min_remaining(Duration::from_millis(50)));
    let stats = service.stats();
    let served = Served::start(service).await;
    for work in ["succeed", "succeed", "take 100 ms"] {
        served.post("/reserve", &work).await.unwrap();
    }
    for work in ["fail", "fail", "take too long", "panic"] {
        served.post("/reserve", &work).await.unwrap_err();
    }
    let short = Context::background().with_timeout(Duration::from_millis(20));
    assert_eq!(served.post_in(&short, "/reserve", &"succeed").await.unwrap_err().code(), Code::DeadlineExceeded);

    let counts = stats.snapshot().routes.remove("POST /reserve").unwrap();
    assert_eq!((counts.requests, counts.in_flight, counts.shed), (8, 0, 1));
    let failures: Vec<_> = counts.failures.into_iter().collect();
    assert_eq!(failures, [("DEADLINE_EXCEEDED", 2), ("FAILED_PRECONDITION", 2), ("INTERNAL", 1)]);
    let cancelled: Vec<_> = counts.cancelled.into_iter().collect();
    assert_eq!(cancelled, [("deadline_exceeded", 1), ("panicked", 1)]);
    let durations = counts.duration;
    assert_eq!((durations.p50, durations.max), (Duration::ZERO, SECOND));
    assert!(durations.p90 == SECOND && durations.mean == Duration::from_micros(137_500), "{durations:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_request_is_in_flight_until_its_caller_gives_up_and_that_is_no_failure() {
    let (started, mut starts) = mpsc::channel(1);
    let service: Service = Service::new("slow").route("wait", async move |Ctx(ctx): Ctx| {
        started.send(ctx).await.unwrap();
        std::future::pending::<()>().await;
    });
    let stats = service.stats();
    let served = Served::start(service).await;
    let transport = served.transport.clone();
    let call = tokio::spawn(async move { transport.send(&Context::background(), "slow", post("/wait", &())).await });
    let ctx = starts.recv().await.unwrap();
    let route = |name: &str| stats.snapshot().routes.remove(name).unwrap();
    assert_eq!((route("POST /wait").requests, route("POST /wait").in_flight), (1, 1));

    call.abort();
    ctx.done().await;
    while route("POST /wait").in_flight > 0 {
        tokio::task::yield_now().await;
    }
    let counts = route("POST /wait");
    assert!(counts.failures.is_empty(), "{:?}", counts.failures);
    assert_eq!(counts.cancelled.into_iter().collect::<Vec<_>>(), [("client_disconnected", 1)]);
    served.stop().await;
}

#[tokio::test]
async fn the_names_of_routes_are_bounded_whatever_callers_send() {
    let service: Service =
        Service::new("cards").route("cards/{id}/block", async || "blocked").get("count", async || "7");
    let stats = service.stats();
    let served = Served::start(service).await;
    for id in 0..600 {
        served.post(&format!("/cards/{id}/block"), &()).await.unwrap();
        served.post(&format!("/unknown/{id}"), &()).await.unwrap_err();
    }
    let method = Method::from_bytes(b"BREW").unwrap();
    served.request(method, "/count").await.unwrap_err();
    let routes = stats.snapshot().routes;
    let counts: Vec<_> = routes.iter().map(|(name, counts)| (name.as_str(), counts.requests)).collect();
    assert_eq!(counts, [("(other)", 600), ("GET /count", 0), ("POST /cards/{id}/block", 600), ("_OTHER /count", 1)]);
    assert_eq!(routes["(other)"].failures["NOT_FOUND"], 600);
    served.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_stats_route_has_the_documented_shape_and_does_not_count_itself() {
    let service: Service = Service::new("balance").route("reserve", async || {
        tokio::time::sleep(Duration::from_micros(1500)).await;
        "reserved"
    });
    let served = Served::start(service).await;
    served.post("/reserve", &()).await.unwrap();
    for _ in 0..3 {
        served.get("/stats").await.unwrap();
    }
    let stats: Value = serde_json::from_slice(served.get("/stats").await.unwrap().body()).unwrap();
    let millis = 2.0;
    let expected = json!({
        "service": "balance",
        "routes": { "POST /reserve": {
            "requests": 1, "in_flight": 0, "shed": 0, "failures": {}, "cancelled": {},
            "duration_ms": { "p50": millis, "p90": millis, "p99": millis, "max": millis, "mean": millis },
        } },
        "listener": { "refused": 0, "late_responses": 0 },
    });
    assert_eq!(stats, expected);
    served.stop().await;
}

#[tokio::test]
async fn requests_that_the_listener_refuses_are_part_of_the_stats() {
    let gate = Gate::closed();
    let service: Service = Service::new("busy").route("wait", gate.handler());
    let stats = service.stats();
    assert!(stats.snapshot().listener.is_none(), "it does not listen");
    let transport = Transport::in_process().max_in_flight(1.try_into().unwrap());
    let served = Served::start_on(transport, service).await;
    let (first, second) = tokio::join!(served.post("/wait", &()), async {
        gate.reached().await;
        let second = served.post("/wait", &()).await;
        gate.open();
        second
    });
    first.unwrap();
    assert_eq!(second.unwrap_err().code(), Code::ResourceExhausted);
    let stats = stats.snapshot();
    assert_eq!((stats.listener.unwrap().refused, stats.routes["POST /wait"].requests), (1, 1));
    served.stop().await;
}

#[tokio::test]
async fn a_request_that_a_hook_renames_counts_for_the_route_that_it_began_with() {
    let layer = ContextLayer::internal().on_response(|span, _| span.set_route("/renamed"));
    let service: Service = Service::new("cards").context_layer(layer).route("block", async || "blocked");
    let stats = service.stats();
    let served = Served::start(service).await;
    served.post("/block", &()).await.unwrap();
    let routes = stats.snapshot().routes;
    let counts: Vec<_> =
        routes.iter().map(|(name, counts)| (name.as_str(), counts.requests, counts.in_flight)).collect();
    assert_eq!(counts, [("POST /block", 1, 0)]);
    served.stop().await;
}
