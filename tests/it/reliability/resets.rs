//! R18: very many streams that are reset, on one HTTP/2 connection.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::{StreamExt, stream};
use throughline::{Code, Context, ContextLayer, Error, SendWith};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::server::{Contexts, Server};
use super::{Alive, MEGABYTE, resident, size};
use crate::support::{PATIENCE, client, is_own_process};

/// The streams that are open at one time.
const WORKERS: usize = 50;
/// h2's default for streams that it resets because of errors of the peer.
const LOCAL_RESETS: usize = 1_024;

static CALLED: [Semaphore; WORKERS] = [const { Semaphore::const_new(0) }; WORKERS];

#[test]
fn r18_reset_streams_leave_no_context_no_memory_and_one_connection() {
    if is_own_process("reliability::resets::r18_reset_streams_leave_no_context_no_memory_and_one_connection", &[]) {
        tokio::runtime::Runtime::new().unwrap().block_on(reset_many(size("THROUGHLINE_RESETS", 5_000)));
    }
}

async fn reset_many(count: usize) {
    let (alive, contexts) = (Alive::default(), Contexts::new());
    let held = alive.clone();
    let hold = move |Path(worker): Path<usize>| {
        let alive = held.one();
        async move {
            let _alive = alive;
            CALLED[worker].add_permits(1);
            std::future::pending::<()>().await;
        }
    };
    let endless = async |Extension(ctx): Extension<Context>| {
        assert_eq!(ctx.err(), None);
        let first = stream::iter([Ok::<_, Infallible>("half")]);
        Response::new(Body::from_stream(first.chain(stream::pending())))
    };
    let app = Router::new()
        .route("/hold/{worker}", get(hold))
        .route("/endless", get(endless))
        .route("/", get(|| async { "seven" }))
        .layer(contexts.under(ContextLayer::internal()));
    let server = Server::start(app).await;
    let http = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let to = format!("http://{}", server.address);
    // The first request opens the connection.
    assert_eq!(one(&http, &to).await.unwrap(), "seven");

    cancel_calls(&http, &to, count / 10).await;
    let before = resident();
    cancel_calls(&http, &to, count).await;
    let growth = resident().saturating_sub(before);
    eprintln!("R18: {count} streams reset by the client: {} KiB more are resident", growth / 1024);
    assert!(growth <= 16 * MEGABYTE, "{growth} bytes");

    // Streams that the server itself resets, because its deadline ends their bodies. On a busy
    // machine the deadline may pass before the response begins.
    let mut resets = 0;
    while resets <= 2 * LOCAL_RESETS {
        let requests = (0..4 * WORKERS).map(|_| async {
            let request = http.get(format!("{to}/endless")).header("grpc-timeout", "100m");
            match tokio::time::timeout(PATIENCE, request.send()).await.unwrap() {
                Ok(response) => response.status() == 200 && response.bytes().await.is_err(),
                // The reset may overtake the head in the client. A lost connection is seen below.
                Err(_) => true,
            }
        });
        let is_reset = futures_util::future::join_all(requests).await;
        resets += is_reset.into_iter().filter(|is_reset| *is_reset).count();
    }

    assert_eq!(one(&http, &to).await.unwrap(), "seven");
    assert_eq!(server.accepted(), 1, "one connection for all");
    drop(http);
    server.stop().await;
    let ended = async {
        while alive.count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("every handler ends");
    contexts.all_end().await;
}

async fn one(http: &reqwest::Client, to: &str) -> Result<String, Error> {
    let ctx = Context::background().with_timeout(PATIENCE);
    Ok(http.get(to).send_with(&ctx, &client()).await?.text().await?)
}

/// Cancels `count` calls, each after its handler was called.
async fn cancel_calls(http: &reqwest::Client, to: &str, count: usize) {
    let mut workers = JoinSet::new();
    for (worker, called) in CALLED.iter().enumerate() {
        let (http, url) = (http.clone(), format!("{to}/hold/{worker}"));
        workers.spawn(async move {
            for _ in 0..count / WORKERS {
                let ctx = Context::background().with_timeout(Duration::from_secs(3600)).with_cancel();
                let (request, of_call) = (http.get(&url), ctx.context().clone());
                let call = tokio::spawn(async move { request.send_with(&of_call, &client()).await });
                called.acquire().await.unwrap().forget();
                ctx.cancel();
                let error = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
                assert_eq!(error.code(), Code::Cancelled);
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
}
