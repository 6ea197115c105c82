//! The stages of a shutdown, in virtual time.

#[cfg(unix)]
mod process;
mod servers;

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use throughline::telemetry::{self, MemoryExporter};
use throughline::{Cause, Context, ContextError, ContextLayer, Shutdown};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::text;

const GRACE: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(5);

fn shutdown() -> Shutdown {
    Shutdown::new(GRACE).background_limit(LIMIT)
}

/// Sends a request to a handler that gets its context.
async fn ask<F: Future<Output = Bytes> + Send + 'static>(
    layer: ContextLayer,
    handler: impl Fn(Context) -> F + Clone + Send + 'static,
) -> (StatusCode, String) {
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        let work = handler(request.extensions().get::<Context>().unwrap().clone());
        async { Ok::<_, Infallible>(Response::new(Full::new(work.await))) }
    });
    let response = layer.layer(service).oneshot(Request::new(Full::default())).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn internal(shutdown: &Shutdown) -> ContextLayer {
    ContextLayer::internal().base(shutdown.context())
}

#[tokio::test(start_paused = true)]
async fn a_request_in_flight_goes_on_during_the_grace() {
    let shutdown = shutdown();
    let slow = tokio::spawn(ask(internal(&shutdown), |_| async {
        tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
        "seven".into()
    }));
    tokio::task::yield_now().await;
    shutdown.request();
    shutdown.requested().await;
    let began = Instant::now();
    let drained = shutdown.drain().await;
    assert_eq!(slow.await.unwrap(), (StatusCode::OK, "seven".into()));
    assert!(drained.is_clean(), "{drained}");
    assert_eq!(began.elapsed().as_secs(), GRACE.as_secs() - 1, "no longer than the request");
    assert!(matches!(shutdown.context().cause(), Some(Cause::Shutdown)));
}

#[tokio::test(start_paused = true)]
async fn after_the_grace_a_request_is_cancelled_and_its_response_is_a_retryable_503() {
    let shutdown = shutdown();
    let hanging = tokio::spawn(ask(internal(&shutdown), |_| pending()));
    tokio::task::yield_now().await;
    let began = Instant::now();
    let drained = shutdown.drain().await;
    assert_eq!(began.elapsed().as_secs(), GRACE.as_secs());
    assert_eq!((drained.requests_cancelled, drained.tasks_cancelled, drained.still_running), (1, 0, 0));
    let (status, body) = hanging.await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("\"code\":\"UNAVAILABLE\"") && body.contains("\"retryable\":true"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn the_grace_ends_without_anybody_waiting_for_it() {
    let shutdown = shutdown();
    let request = shutdown.context().with_cancel();
    let began = Instant::now();
    shutdown.request();
    request.done().await;
    assert_eq!(began.elapsed().as_secs(), GRACE.as_secs());
    assert!(matches!(request.cause(), Some(Cause::Shutdown)));
    shutdown.drain().await;
}

#[tokio::test(start_paused = true)]
async fn without_work_a_drain_takes_no_time() {
    let shutdown = shutdown();
    let began = Instant::now();
    assert!(shutdown.drain().await.is_clean());
    assert!(shutdown.drain().await.is_clean(), "it may be called again");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn work_that_a_handler_detaches_outlives_the_grace_and_ends_by_itself() {
    let shutdown = shutdown();
    let (sender, written) = mpsc::channel();
    let (status, _) = ask(internal(&shutdown), move |ctx| {
        let sender = sender.clone();
        ctx.detach().spawn(async move {
            tokio::time::sleep(GRACE + LIMIT / 2).await;
            sender.send(()).unwrap();
        });
        async { "accepted".into() }
    })
    .await;
    assert_eq!(status, StatusCode::OK);
    let drained = shutdown.drain().await;
    assert!(drained.is_clean(), "{drained}");
    written.try_recv().expect("the work has ended before the drain");
}

#[tokio::test(start_paused = true)]
async fn background_work_is_cancelled_with_cause_shutdown_at_its_limit() {
    let shutdown = shutdown();
    let direct = shutdown.spawn(pending::<()>());
    let detached = shutdown.context().with_cancel().detach();
    let below = detached.with_timeout(GRACE * 9).spawn(pending::<()>());
    let began = Instant::now();
    let drained = shutdown.drain().await;
    assert_eq!(began.elapsed().as_secs(), (GRACE + LIMIT).as_secs());
    assert_eq!((drained.requests_cancelled, drained.tasks_cancelled, drained.still_running), (0, 2, 0));
    assert_eq!(direct.await.unwrap(), Err(ContextError::Canceled));
    assert_eq!(below.await.unwrap(), Err(ContextError::Canceled));
    assert!(matches!(detached.cause(), Some(Cause::Shutdown)));
    assert!(matches!(shutdown.context().detach().cause(), Some(Cause::Shutdown)), "detached too late");
}

#[tokio::test]
async fn blocking_work_that_does_not_stop_is_reported_as_still_running() {
    let shutdown = Shutdown::new(Duration::ZERO).background_limit(Duration::ZERO);
    let (release, blocked) = mpsc::channel::<()>();
    let (sender, started) = oneshot::channel();
    let blocking = shutdown.context().detach().spawn_blocking(move |_| {
        sender.send(()).unwrap();
        blocked.recv()
    });
    started.await.unwrap();
    let drained = shutdown.drain().await;
    assert_eq!((drained.tasks_cancelled, drained.still_running), (1, 1));
    release.send(()).unwrap();
    blocking.await.unwrap().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_flush_is_last_so_spans_of_cancelled_work_are_exported() {
    let memory = MemoryExporter::default();
    let telemetry = telemetry::builder("cards").exporter(memory.clone()).build().unwrap();
    let shutdown = shutdown();
    let tracer = telemetry.tracer().clone();
    let hanging = tokio::spawn(ask(internal(&shutdown).tracer(tracer.clone()), |ctx| {
        ctx.spawn(async {
            let span = Context::current().span("task").start();
            pending::<()>().await;
            span.end();
        });
        pending()
    }));
    let audit = shutdown.context().with_tracer(&tracer).detach();
    audit.spawn(async {
        let _span = Context::current().span("audit").start();
        pending::<()>().await;
    });
    tokio::task::yield_now().await;
    let report = shutdown.finish(telemetry).await;
    assert!(!report.is_clean(), "work was cancelled");
    assert_eq!(report.flush_error, None);
    assert_eq!(report.to_string(), "shutdown: 1 request and 2 tasks cancelled; 3 of 3 spans exported");
    hanging.await.unwrap();
    let mut spans = memory.spans();
    spans.sort_by(|a, b| a.name.cmp(&b.name));
    let cause = |name: &str| {
        let span = spans.iter().find(|span| span.name == name).unwrap();
        text(span, "throughline.cancel.cause").map(str::to_owned)
    };
    assert_eq!(cause("GET"), Some("shutdown".into()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_end_is_dropped_at_the_last_limit() {
    let shutdown = shutdown();
    let began = Instant::now();
    shutdown.request();
    let result: Result<(), Infallible> = shutdown.serve(pending()).await;
    assert_eq!(result, Ok(()));
    assert_eq!(began.elapsed().as_secs(), (GRACE + LIMIT).as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_returns_its_error_and_starts_no_shutdown() {
    let shutdown = shutdown();
    assert_eq!(shutdown.serve(async { Err("the port is taken") }).await, Err("the port is taken"));
    let mut requested = pin!(shutdown.requested());
    assert!(futures_util::poll!(&mut requested).is_pending());
}

#[tokio::test]
async fn the_first_request_of_a_shutdown_counts() {
    let shutdown = Shutdown::new(Duration::MAX);
    shutdown.request();
    shutdown.request();
    shutdown.requested().await;
    assert!(!shutdown.context().is_done(), "a grace without end");
    assert!(shutdown.drain().await.is_clean());
}
