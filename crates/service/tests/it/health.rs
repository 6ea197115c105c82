//! Whether a service is ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use throughline::{Code, Context, Error};
use throughline_service::Service;
use tower::ServiceExt as _;

use crate::support::{SECOND, Served};

fn get(route: &str) -> Request<Bytes> {
    Request::builder().uri(route).body(Bytes::new()).unwrap()
}

async fn ready(served: &Served) -> (StatusCode, Value) {
    let response = served.raw(get("/health/ready")).await;
    (response.status(), serde_json::from_slice(response.body()).unwrap())
}

#[tokio::test]
async fn a_service_is_live_and_its_readiness_follows_its_checks() {
    let is_up = Arc::new(AtomicBool::new(true));
    let storage = {
        let is_up = Arc::clone(&is_up);
        move |_ctx: Context| {
            let result = is_up.load(Ordering::SeqCst).then_some(()).ok_or(Error::new(Code::Unavailable, "no storage"));
            std::future::ready(result)
        }
    };
    let service: Service = Service::new("cards").ready_check("storage", storage).ready_check("queue", async |_| Ok(()));
    let served = Served::start(service).await;
    let all_ok = json!({ "ready": true, "phase": "serving", "checks": { "storage": "ok", "queue": "ok" } });
    assert_eq!(ready(&served).await, (StatusCode::OK, all_ok.clone()));

    is_up.store(false, Ordering::SeqCst);
    let (status, body) = ready(&served).await;
    assert_eq!((status, &body["ready"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)));
    assert_eq!(body["checks"], json!({ "storage": "UNAVAILABLE: no storage", "queue": "ok" }));
    assert_eq!(served.raw(get("/health/live")).await.status(), StatusCode::OK);

    is_up.store(true, Ordering::SeqCst);
    assert_eq!(ready(&served).await, (StatusCode::OK, all_ok));
    served.stop().await;
}

#[tokio::test(start_paused = true)]
async fn checks_run_at_the_same_time_and_one_that_hangs_is_not_ready_after_the_timeout() {
    let hang = async |ctx: Context| {
        assert_eq!(ctx.remaining(), Some(2 * SECOND));
        std::future::pending().await
    };
    let service: Service =
        Service::new("cards").ready_timeout(2 * SECOND).ready_check("a", hang).ready_check("b", hang);
    let served = Served::start(service).await;
    let begun = tokio::time::Instant::now();
    let (status, body) = ready(&served).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["checks"]["b"], "DEADLINE_EXCEEDED: deadline exceeded");
    assert!(begun.elapsed() >= 2 * SECOND && begun.elapsed() < 3 * SECOND);
    served.stop().await;
}

#[tokio::test]
async fn a_draining_service_is_not_ready_on_a_port_of_its_own_and_runs_no_checks() {
    let checks = Arc::new(AtomicUsize::new(0));
    let count = {
        let checks = Arc::clone(&checks);
        move |_ctx: Context| {
            checks.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(()))
        }
    };
    let service: Service = Service::new("cards").ready_check("count", count);
    let (admin, health) = (service.admin_router::<()>(), service.health());
    let ask = async |route: &str| {
        let request = get(route).map(throughline_service::axum::body::Body::from);
        admin.clone().oneshot(request).await.unwrap().status()
    };
    assert_eq!(ask("/health/ready").await, StatusCode::SERVICE_UNAVAILABLE, "it has not started");
    let served = Served::start(service).await;
    assert_eq!(ask("/health/ready").await, StatusCode::OK);
    assert_eq!(checks.load(Ordering::SeqCst), 1);
    served.stop().await;
    assert_eq!(ask("/health/ready").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask("/health/live").await, StatusCode::OK);
    assert_eq!(checks.load(Ordering::SeqCst), 1);
    assert_eq!(health.readiness(&Context::background()).await.phase, "draining");
}

#[tokio::test]
async fn a_service_may_have_routes_of_the_same_names_instead() {
    let service: Service = Service::new("cards").without_admin_routes().get("stats", async || "my own");
    let stats = service.stats();
    let served = Served::start(service).await;
    assert_eq!(served.get("/stats").await.unwrap().body(), "my own");
    assert_eq!(served.get("/health/live").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(stats.snapshot().routes["GET /stats"].requests, 1);
    served.stop().await;
}
