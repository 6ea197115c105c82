//! The end of a service: not ready, no new requests, those in flight end within the grace.

use std::sync::Arc;
use std::time::Duration;

use throughline::{Cause, Code, Context, Ctx, Error, Shutdown};
use throughline_service::Service;
use throughline_transport::Transport;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::{SECOND, post};

/// A service whose handler waits until it may go on, and says how it ended.
struct Slow {
    transport: Transport,
    shutdown: Shutdown,
    started: mpsc::Receiver<Context>,
    go_on: Arc<Notify>,
    health: throughline_service::Health,
    serving: JoinHandle<Result<(), Error>>,
}

impl Slow {
    async fn start(transport: Transport, grace: Duration) -> Slow {
        let (sender, started) = mpsc::channel(1);
        let go_on = Arc::new(Notify::new());
        let wait = {
            let go_on = Arc::clone(&go_on);
            async move |Ctx(ctx): Ctx| {
                sender.send(ctx).await.unwrap();
                go_on.notified().await;
                "done"
            }
        };
        let shutdown = Shutdown::new(grace);
        let service: Service = Service::new("slow").route("wait", wait);
        let (health, on, until) = (service.health(), transport.clone(), shutdown.clone());
        let serving = tokio::spawn(async move { service.serve(&on, &until).await });
        while transport.counters("slow").is_none() {
            tokio::task::yield_now().await;
        }
        Slow { transport, shutdown, started, go_on, health, serving }
    }

    async fn phase(&self) -> &'static str {
        self.health.readiness(&Context::background()).await.phase
    }

    /// Sends a request and waits until the handler has it.
    async fn send(&mut self) -> (JoinHandle<Result<http::Response<bytes::Bytes>, Error>>, Context) {
        let transport = self.transport.clone();
        let request = post("/wait", &());
        let call = tokio::spawn(async move { transport.send(&Context::background(), "slow", request).await });
        (call, self.started.recv().await.unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_in_flight_ends_and_a_new_one_is_refused_with_a_retryable_error() {
    let mut slow = Slow::start(Transport::in_process(), 20 * SECOND).await;
    assert_eq!(slow.phase().await, "serving");
    let (call, ctx) = slow.send().await;
    slow.shutdown.request();
    while slow.phase().await != "draining" {
        tokio::task::yield_now().await;
    }
    let error = slow.transport.send(&Context::background(), "slow", post("/wait", &())).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)));
    assert!(!ctx.is_done() && !slow.serving.is_finished());

    slow.go_on.notify_one();
    assert_eq!(call.await.unwrap().unwrap().body(), "done");
    slow.serving.await.unwrap().unwrap();
    assert!(slow.shutdown.drain().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn the_grace_of_the_shutdown_holds_where_the_drain_time_of_the_transport_is_shorter() {
    let transport = Transport::in_process().drain_timeout(SECOND);
    let mut slow = Slow::start(transport, 60 * SECOND).await;
    let (call, ctx) = slow.send().await;
    slow.shutdown.request();
    tokio::time::advance(59 * SECOND).await;
    assert!(!ctx.is_done(), "the transport's second has passed long ago");
    slow.go_on.notify_one();
    assert_eq!(call.await.unwrap().unwrap().body(), "done");
    slow.serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_grace_of_the_shutdown_holds_where_the_drain_time_of_the_transport_is_longer() {
    let transport = Transport::in_process().drain_timeout(3600 * SECOND);
    let mut slow = Slow::start(transport, 5 * SECOND).await;
    let (call, ctx) = slow.send().await;
    let asked = Instant::now();
    slow.shutdown.request();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)));
    assert!(matches!(ctx.cause(), Some(Cause::Shutdown)), "{:?}", ctx.cause());
    slow.serving.await.unwrap().unwrap();
    assert!(asked.elapsed() >= 5 * SECOND && asked.elapsed() < 6 * SECOND, "{:?}", asked.elapsed());
    assert_eq!(slow.shutdown.drain().await.still_running, 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_served_after_the_shutdown_has_started_returns_at_once() {
    let shutdown = Shutdown::new(20 * SECOND);
    shutdown.request();
    let service: Service = Service::new("late").route("wait", async || "done");
    let begun = Instant::now();
    service.serve(&Transport::in_process(), &shutdown).await.unwrap();
    assert!(begun.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_dropped_cancels_its_requests_and_is_not_ready() {
    let mut slow = Slow::start(Transport::in_process(), 20 * SECOND).await;
    let (call, ctx) = slow.send().await;
    slow.serving.abort();
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error.code(), Code::Unavailable | Code::Internal), "{error}");
    ctx.done().await;
    assert_eq!(slow.phase().await, "draining");
    assert!(slow.transport.send(&Context::background(), "slow", post("/wait", &())).await.is_err());
}
