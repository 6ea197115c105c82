//! Settings that a service follows while it runs.

use std::sync::Arc;

use throughline::{Code, ContextLayer, Ctx, Route};
use throughline_service::Service;
use throughline_service::config::{RouteSettings, ServiceSettings};
use tokio::sync::{mpsc, watch};

use crate::support::{SECOND, Served};

async fn remaining(Ctx(ctx): Ctx) -> String {
    format!("{:?}", ctx.remaining())
}

#[tokio::test(start_paused = true)]
async fn a_change_holds_for_the_next_request_and_what_is_absent_is_as_the_code_says() {
    let (sender, settings) = watch::channel(Arc::new(ServiceSettings::default()));
    let service: Service = Service::new("reports")
        .route("report", remaining)
        .route("year", remaining)
        .context_layer(ContextLayer::internal().max_timeout(10 * SECOND))
        .route_options("year", Route::new().timeout(60 * SECOND))
        .settings(settings);
    let stats = service.stats();
    let served = Served::start(service).await;
    let left = async |route: &str| String::from_utf8(served.post(route, &()).await.unwrap().body().to_vec()).unwrap();
    assert_eq!((left("/report").await, left("/year").await), ("Some(10s)".into(), "Some(60s)".into()));

    let slow = RouteSettings { timeout: Some(90 * SECOND), ..RouteSettings::default() };
    let routes = [("year".to_owned(), slow)].into();
    sender.send_replace(Arc::new(ServiceSettings { max_timeout: Some(5 * SECOND), routes, ..Default::default() }));
    assert_eq!((left("/report").await, left("/year").await), ("Some(5s)".into(), "Some(90s)".into()));

    sender.send_replace(Arc::default());
    assert_eq!((left("/report").await, left("/year").await), ("Some(10s)".into(), "Some(60s)".into()));
    assert_eq!(stats.snapshot().routes["POST /report"].requests, 3, "the counts survive a change");
    served.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_in_flight_keeps_the_timeout_that_it_has_started_with() {
    let (sender, settings) =
        watch::channel(Arc::new(ServiceSettings { max_timeout: Some(10 * SECOND), ..Default::default() }));
    let (started, mut starts) = mpsc::channel(1);
    let wait = async move || {
        started.send(()).await.unwrap();
        tokio::time::sleep(5 * SECOND).await;
        "done"
    };
    let service: Service = Service::new("slow").route("wait", wait).settings(settings);
    let served = Served::start(service).await;
    let (first, ()) = tokio::join!(served.post("/wait", &()), async {
        starts.recv().await.unwrap();
        sender.send_replace(Arc::new(ServiceSettings { max_timeout: Some(SECOND), ..Default::default() }));
    });
    assert_eq!(first.unwrap().body(), "done");
    assert_eq!(served.post("/wait", &()).await.unwrap_err().code(), Code::DeadlineExceeded);
    served.stop().await;
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_max_in_flight_are_refused_probes_are_not_and_the_limit_can_rise() {
    let limit = |max_in_flight| Arc::new(ServiceSettings { max_in_flight: Some(max_in_flight), ..Default::default() });
    let (sender, settings) = watch::channel(limit(1));
    let (started, mut starts) = mpsc::channel(4);
    let wait = async move || {
        started.send(()).await.unwrap();
        tokio::time::sleep(SECOND).await;
        "done"
    };
    let service: Service = Service::new("busy").route("wait", wait).settings(settings);
    let stats = service.stats();
    let served = Served::start(service).await;
    let (first, ()) = tokio::join!(served.post("/wait", &()), async {
        starts.recv().await.unwrap();
        let error = served.post("/wait", &()).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::ResourceExhausted, "busy has 1 requests in flight"));
        served.get("/health/ready").await.unwrap();
        sender.send_replace(limit(2));
        assert_eq!(served.post("/wait", &()).await.unwrap().body(), "done");
    });
    first.unwrap();
    assert_eq!(served.post("/wait", &()).await.unwrap().body(), "done", "nothing is counted twice");
    assert_eq!(stats.snapshot().routes["POST /wait"].failures["RESOURCE_EXHAUSTED"], 1);
    served.stop().await;
}
