//! R16: a client that disconnects cancels a chain of nine services, with spawned work in each.

use std::time::{Duration, Instant};

use axum::routing::get;
use axum::{Extension, Router};
use throughline::{Context, ContextLayer, SendWith};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::server::Server;
use crate::support::{PATIENCE, client};

const HOPS: usize = 9;
const TIMES: usize = 200;

#[derive(Debug, PartialEq)]
enum Event {
    /// The last service of the chain has the request.
    Arrived,
    /// Work of `Context::spawn` was dropped.
    Dropped,
    /// A task of `tokio::spawn`, which only the context reaches, has seen this cause.
    Cancelled(&'static str),
}

struct OnDrop(UnboundedSender<Event>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Dropped);
    }
}

/// A service that calls `next` from spawned work, and waits for it.
fn app(http: reqwest::Client, next: Option<String>, events: UnboundedSender<Event>) -> Router {
    let handler = move |Extension(ctx): Extension<Context>| {
        let (http, next, events) = (http.clone(), next.clone(), events.clone());
        async move {
            let (watched, seen) = (ctx.clone(), events.clone());
            tokio::spawn(async move {
                watched.done().await;
                let _ = seen.send(Event::Cancelled(watched.cause().unwrap().name()));
            });
            let below = ctx.clone();
            let work = ctx.spawn(async move {
                let dropped = OnDrop(events);
                if let Some(next) = next {
                    let _ = http.get(next).send_with(&below, &client()).await;
                } else {
                    let _ = dropped.0.send(Event::Arrived);
                    std::future::pending::<()>().await;
                }
            });
            let _ = work.await;
        }
    };
    Router::new().route("/", get(handler)).layer(ContextLayer::internal())
}

async fn next(events: &mut UnboundedReceiver<Event>) -> Event {
    timeout(PATIENCE, events.recv()).await.expect("an event arrives in time").unwrap()
}

/// Returns the times from the disconnect to the last event of the chain.
async fn disconnect(http: impl Fn() -> reqwest::Client) -> Vec<Duration> {
    let (reporter, mut events) = unbounded_channel();
    let (mut servers, mut first) = (Vec::new(), None);
    for _ in 0..HOPS {
        let server = Server::start(app(http(), first.take(), reporter.clone())).await;
        first = Some(format!("http://{}/", server.address));
        servers.push(server);
    }
    let (http, first) = (http(), first.unwrap());
    let mut times = Vec::new();
    for time in 0..TIMES {
        let call = tokio::spawn(http.get(&first).send());
        assert_eq!(next(&mut events).await, Event::Arrived);
        let begin = Instant::now();
        call.abort();
        let (mut dropped, mut cancelled) = (0, 0);
        while (dropped, cancelled) != (HOPS, HOPS) {
            match next(&mut events).await {
                Event::Dropped => dropped += 1,
                Event::Cancelled(cause) => {
                    assert_eq!(cause, "client_disconnected", "chain {time}");
                    cancelled += 1;
                }
                Event::Arrived => panic!("chain {time}: a call was sent again"),
            }
        }
        times.push(begin.elapsed());
    }
    assert!(events.try_recv().is_err(), "nothing else happens");
    for server in servers {
        server.stop().await;
    }
    times
}

fn print(protocol: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    eprintln!("R16, {protocol}: median {:?}, p99 {:?}, longest {:?} of {TIMES}", at(50), at(99), at(100));
}

#[tokio::test]
async fn r16_a_disconnect_cancels_nine_hops_and_their_spawned_work_over_http1() {
    let http = || reqwest::Client::builder().http1_only().build().unwrap();
    print("HTTP/1", disconnect(http).await);
}

#[tokio::test]
async fn r16_a_disconnect_cancels_nine_hops_and_their_spawned_work_over_http2() {
    let http = || reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    print("HTTP/2", disconnect(http).await);
}
