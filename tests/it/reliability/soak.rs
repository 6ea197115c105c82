//! R28: a server under load returns to its baseline.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use throughline::telemetry::{self, ExportFuture, Exporter};
use throughline::trace::{AlwaysOn, Batch};
use throughline::{Code, Context, ContextLayer, Error, SendWith};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::util::MapRequestLayer;

use super::server::{Contexts, Server};
use super::{Alive, MEGABYTE, resident, size};
use crate::support::{PATIENCE, client, is_own_process};

const WORKERS: usize = 20;
/// The ways in which a request of the load ends.
const WAYS: usize = 8;

/// Counts the spans, and drops them.
#[derive(Clone, Default)]
struct Count(Arc<AtomicU64>);

impl Exporter for Count {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        self.0.fetch_add(batch.spans.len() as u64, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(())))
    }
}

#[test]
fn r28_a_server_under_load_returns_to_its_baseline() {
    if is_own_process("reliability::soak::r28_a_server_under_load_returns_to_its_baseline", &[]) {
        // Panics of handlers are part of the load.
        std::panic::set_hook(Box::new(|panic| {
            if panic.payload().downcast_ref() != Some(&EXPECTED) {
                eprintln!("{panic}");
            }
        }));
        tokio::runtime::Runtime::new().unwrap().block_on(soak(size("THROUGHLINE_SOAK", 4_000)));
    }
}

const EXPECTED: &str = "a handler that panics";
static CALLED: Semaphore = Semaphore::const_new(0);

/// The service. It counts its `requests` outside of the layer.
fn app(alive: &Alive, layer: ContextLayer, requests: Arc<AtomicU64>) -> Router {
    let held = alive.clone();
    let hold = move || {
        let alive = held.one();
        async move {
            let _alive = alive;
            CALLED.add_permits(1);
            std::future::pending::<()>().await;
        }
    };
    let spawned = alive.clone();
    let spawn = move |Extension(ctx): Extension<Context>| {
        let alive = spawned.one();
        async move {
            // It outlives its handler, and not its request.
            drop(ctx.spawn(async move {
                let _alive = alive;
                std::future::pending::<()>().await;
            }));
            "spawned"
        }
    };
    let streaming = async || {
        let parts = stream::repeat(Ok::<_, Infallible>("part")).take(4);
        Response::new(Body::from_stream(parts.then(async |part| {
            tokio::task::yield_now().await;
            part
        })))
    };
    let endless = async || {
        let first = stream::iter([Ok::<_, Infallible>("half")]);
        Response::new(Body::from_stream(first.chain(stream::pending())))
    };
    let failing = async || -> Result<(), Error> { Err(Error::new(Code::NotFound, "no such card")) };
    let panicking = async || -> () { std::panic::panic_any(EXPECTED) };
    Router::new()
        .route("/", get(|| async { "seven" }))
        .route("/hold", get(hold))
        .route("/spawn", get(spawn))
        .route("/stream", get(streaming))
        .route("/endless", get(endless))
        .route("/fail", get(failing))
        .route("/panic", get(panicking))
        .layer(layer)
        .layer(MapRequestLayer::new(move |request: Request<Body>| {
            requests.fetch_add(1, Ordering::SeqCst);
            request
        }))
}

/// Sends a request, and ends it in one of the ways. Asserts its outcome.
async fn request(http: &reqwest::Client, to: &str, way: usize) {
    let ctx = Context::background().with_timeout(Duration::from_secs(600)).with_cancel();
    let get = |path: &str, ctx: &Context| {
        let (request, ctx) = (http.get(format!("{to}/{path}")), ctx.clone());
        async move { request.send_with(&ctx, &client()).await }
    };
    match way {
        0 => assert_eq!(get("", &ctx).await.unwrap().text().await.unwrap(), "seven"),
        1 => assert_eq!(get("fail", &ctx).await.unwrap_err().code(), Code::NotFound),
        2 => {
            let late = ctx.with_timeout(Duration::from_millis(40));
            assert_eq!(get("hold", &late).await.unwrap_err().code(), Code::DeadlineExceeded);
        }
        3 => {
            let call = tokio::spawn(get("hold", &ctx));
            // Some held request, not always this one, was called.
            CALLED.acquire().await.unwrap().forget();
            ctx.cancel();
            assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Cancelled);
        }
        4 => assert_eq!(get("stream", &ctx).await.unwrap().text().await.unwrap(), "partpartpartpart"),
        5 => {
            let mut body = http::Response::from(get("endless", &ctx).await.unwrap()).into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        }
        6 => assert_eq!(get("spawn", &ctx).await.unwrap().text().await.unwrap(), "spawned"),
        _ => assert!(get("panic", &ctx).await.is_err()),
    }
}

/// How many requests two clients send, one over HTTP/1 and one over HTTP/2.
///
/// The client's h2 closes a connection after 1,024 stream errors, such as responses that cross the
/// cancellation of their call. With 1,000 requests a connection cannot reach that.
const REQUESTS_OF_CLIENTS: usize = 2_000;

/// Sends `count` requests in all ways, half of them over HTTP/1, half over HTTP/2.
async fn load(to: &str, count: usize) {
    for sent in (0..count).step_by(REQUESTS_OF_CLIENTS) {
        load_by_two_clients(to, REQUESTS_OF_CLIENTS.min(count - sent)).await;
    }
}

async fn load_by_two_clients(to: &str, count: usize) {
    let of = |builder: reqwest::ClientBuilder| builder.build().unwrap();
    let clients = [of(reqwest::Client::builder().http1_only()), of(reqwest::Client::builder().http2_prior_knowledge())];
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (http, to) = (clients[worker % 2].clone(), to.to_owned());
        workers.spawn(async move {
            for index in 0..count / WORKERS {
                let work = request(&http, &to, index % WAYS);
                tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("way {} hangs", index % WAYS));
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
}

/// Waits until no handler and no connection is left, and returns the number of tasks.
async fn settle(alive: &Alive, tasks: usize) -> usize {
    let settled = async {
        while alive.count() > 0 || Handle::current().metrics().num_alive_tasks() > tasks {
            tokio::task::yield_now().await;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, settled).await;
    Handle::current().metrics().num_alive_tasks()
}

async fn soak(count: usize) {
    let (alive, contexts, exported) = (Alive::default(), Contexts::new(), Count::default());
    let telemetry = telemetry::builder("soak").sampler(AlwaysOn).exporter(exported.clone()).build().unwrap();
    let layer = contexts.under(ContextLayer::internal().tracer(telemetry.tracer().clone()));
    let requests = Arc::new(AtomicU64::new(0));
    let server = Server::start(app(&alive, layer, Arc::clone(&requests))).await;
    let to = format!("http://{}", server.address);
    let tasks = Handle::current().metrics().num_alive_tasks();

    load(&to, count / 4).await;
    assert_eq!((settle(&alive, tasks).await, alive.count()), (tasks, 0), "tasks and work are left");
    let before = resident();
    load(&to, count).await;
    assert_eq!((settle(&alive, tasks).await, alive.count()), (tasks, 0), "tasks and work are left");
    let growth = resident().saturating_sub(before);
    eprintln!("R28: {count} requests: {} KiB more are resident", growth / 1024);
    assert!(growth <= 16 * MEGABYTE, "{growth} bytes");

    telemetry.force_flush(PATIENCE).await.unwrap();
    let stats = telemetry.stats();
    assert_eq!(stats.emitted, requests.load(Ordering::SeqCst), "a span for each request");
    assert_eq!(exported.0.load(Ordering::SeqCst) + stats.dropped(), stats.emitted);
    server.stop().await;
    contexts.all_end().await;
}
