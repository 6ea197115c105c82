//! Routes, handlers, state, and requests that match none.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use serde::{Deserialize, Serialize};
use throughline::{Code, Context, ContextLayer, Ctx, Error, Route};
use throughline_service::axum::Router;
use throughline_service::axum::extract::{Path, State};
use throughline_service::axum::routing::{get, put};
use throughline_service::{Json, Service};
use throughline_transport::Transport;

use crate::support::{SECOND, Served, post};

#[derive(Serialize, Deserialize)]
struct Reservation {
    amount: i64,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Balance {
    left: i64,
}

type Ledger = Arc<AtomicI64>;

async fn reserve(
    Ctx(ctx): Ctx,
    State(ledger): State<Ledger>,
    Json(body): Json<Reservation>,
) -> Result<Json<Balance>, Error> {
    ctx.check()?;
    if ledger.load(Ordering::SeqCst) < body.amount {
        return Err(Error::new(Code::FailedPrecondition, "the balance is too low"));
    }
    Ok(Json(Balance { left: ledger.fetch_sub(body.amount, Ordering::SeqCst) - body.amount }))
}

async fn remaining(Ctx(ctx): Ctx) -> String {
    format!("{:?}", ctx.remaining())
}

#[tokio::test]
async fn a_handler_has_context_state_and_body_and_its_error_reaches_the_caller() {
    let balance = Service::new("balance").route("reserve", reserve).with_state(Ledger::new(AtomicI64::new(100)));
    let served = Served::start(balance).await;
    let response = served.post("/reserve", &Reservation { amount: 70 }).await.unwrap();
    assert_eq!(serde_json::from_slice::<Balance>(response.body()).unwrap(), Balance { left: 30 });
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");

    let error = served.post("/reserve", &Reservation { amount: 70 }).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "the balance is too low"));
    assert_eq!(error.origin(), Some("balance"), "without a tracer, the name of the service is in the path");
    served.stop().await;
}

#[tokio::test]
async fn an_unknown_route_is_not_found_and_names_the_service_and_the_route() {
    let served = Served::start(Service::new("balance").route("reserve", async || "reserved")).await;
    let error = served.post("/resreve", &1).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::NotFound, "balance has no route POST /resreve"));
    assert_eq!(error.origin(), Some("balance"));

    let long = format!("/{}", "x".repeat(5000));
    let error = served.post(&long, &1).await.unwrap_err();
    assert!(error.message().len() < 200, "{}", error.message().len());
    served.stop().await;
}

#[tokio::test]
async fn a_wrong_method_is_a_405_with_the_methods_that_the_route_takes() {
    let served = Served::start(Service::new("balance").route("reserve", async || "reserved")).await;
    let error = served.get("/reserve").await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert_eq!(error.message(), "the route /reserve of balance does not take GET");

    let request = Request::builder().uri("/reserve").body(Bytes::new()).unwrap();
    let response = served.raw(request).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()[header::ALLOW], "POST");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    served.stop().await;
}

#[tokio::test]
async fn get_routes_method_routes_and_merged_routers_are_routes_of_the_service() {
    let merged = Router::new().route("/cards/{id}", get(async |Path(id): Path<u32>| format!("card {id}")));
    let merged = merged.fallback(async || "another fallback");
    let service: Service = Service::new("cards")
        .get("count", async || "7")
        .method_routes("limits/{id}", put(async || "stored").delete(async || "removed"))
        .merge(merged);
    let served = Served::start(service).await;
    assert_eq!(served.get("/count").await.unwrap().body(), "7");
    assert_eq!(served.request(Method::PUT, "/limits/1").await.unwrap().body(), "stored");
    assert_eq!(served.request(Method::DELETE, "/limits/1").await.unwrap().body(), "removed");
    assert_eq!(served.get("/cards/4").await.unwrap().body(), "card 4");
    assert_eq!(served.get("/crads/4").await.unwrap_err().code(), Code::NotFound);
    served.stop().await;
}

#[tokio::test(start_paused = true)]
async fn options_of_one_route_do_not_change_the_others() {
    let service: Service = Service::new("reports")
        .route("report", remaining)
        .route("year", remaining)
        .context_layer(ContextLayer::internal().max_timeout(10 * SECOND))
        .route_options("report", Route::new().timeout(60 * SECOND));
    let served = Served::start(service).await;
    assert_eq!(served.post("/report", &()).await.unwrap().body(), "Some(60s)");
    assert_eq!(served.post("/year", &()).await.unwrap().body(), "Some(10s)");
    let ctx = Context::background().with_timeout(2 * SECOND);
    let left = served.post_in(&ctx, "/report", &()).await.unwrap();
    assert_eq!(left.body(), "Some(1.98s)", "the caller's timeout less its reply reserve is not lengthened");
    served.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_passes_its_deadline_is_dropped_and_its_caller_gets_the_error() {
    let service: Service = Service::new("slow")
        .route("wait", std::future::pending::<()>)
        .route_options("wait", Route::new().timeout(Duration::from_millis(250)));
    let served = Served::start(service).await;
    let error = served.post("/wait", &()).await.unwrap_err();
    assert_eq!((error.code(), error.origin()), (Code::DeadlineExceeded, Some("slow")));
    served.stop().await;
}

#[tokio::test]
async fn a_panic_fails_its_own_request_only() {
    let service: Service = Service::new("cards").route("block", async |Json(fails): Json<bool>| {
        assert!(!fails, "a panic of the handler");
        "blocked"
    });
    let served = Served::start(service).await;
    assert_eq!(served.post("/block", &true).await.unwrap_err().code(), Code::Internal);
    assert_eq!(served.post("/block", &false).await.unwrap().body(), "blocked");
    served.stop().await;
}

#[tokio::test]
async fn a_body_of_more_than_axums_two_megabytes_is_taken_and_the_transport_limits_it() {
    let service: Service = Service::new("files").route("size", async |Json(text): Json<String>| text.len().to_string());
    let served = Served::start_on(Transport::in_process().max_body(4 << 20), service).await;
    let size = 3 << 20;
    assert_eq!(served.post("/size", &"x".repeat(size)).await.unwrap().body(), &size.to_string());

    let error = served.post("/size", &"x".repeat(4 << 20)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    let response = served.raw(post("/size", &"seven")).await;
    assert_eq!(response.body(), "5");
    served.stop().await;
}

#[tokio::test]
async fn a_second_service_of_one_name_is_an_error_at_the_start() {
    let served = Served::start(Service::new("cards").route("block", async || "blocked")).await;
    let second: Service = Service::new("cards");
    let error = second.serve_until(&served.transport, &Context::background()).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    let error = Service::new("not a name").serve_until(&served.transport, &Context::background()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    served.stop().await;
}
