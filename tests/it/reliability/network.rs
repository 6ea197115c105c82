//! R17: networks that delay, reorder, lose and cut off, on virtual time.
//!
//! A caller calls the service `front`, which calls `back` from spawned work. Messages are lost or
//! held back, links break and heal. No handler and no task of `ctx.spawn` outlives the deadline of
//! its own context.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use throughline::{ClientLayer, Context, ContextLayer, FutureExt};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};
use turmoil::net::{TcpListener, TcpStream};

use super::{Alive, One, size};

const CALLS: usize = 6;
const TICK: Duration = Duration::from_millis(20);
/// How long a handler may outlive its deadline.
const LATE: Duration = Duration::from_millis(100);

/// What has happened in all networks.
#[derive(Clone, Default)]
struct Seen {
    alive: Alive,
    /// How often work ended in which way.
    ends: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    latest: Arc<Mutex<Duration>>,
}

/// Work under a context. Its drop is its end.
struct Work {
    ctx: Context,
    seen: Seen,
    _alive: One,
}

impl Work {
    fn begin(ctx: &Context, seen: &Seen) -> Work {
        Work { ctx: ctx.clone(), seen: seen.clone(), _alive: seen.alive.one() }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let end = self.ctx.cause().map_or("finished", |cause| cause.name());
        *self.seen.ends.lock().unwrap().entry(end).or_default() += 1;
        let deadline = self.ctx.deadline().expect("every request has a deadline");
        let late = Instant::now().into_std().saturating_duration_since(deadline);
        let mut latest = self.seen.latest.lock().unwrap();
        *latest = late.max(*latest);
    }
}

/// Calls `to` over a connection of its own.
async fn call(ctx: &Context, to: &'static str, is_http2: bool) -> Result<Response<impl Sized>, throughline::Error> {
    let connect = service_fn(move |request: Request<Empty<Bytes>>| async move {
        let stream = TokioIo::new(TcpStream::connect((to, 80)).await?);
        let response = if is_http2 {
            let connecting = http2::handshake(TokioExecutor::new(), stream).await;
            let (mut sender, connection) = connecting.map_err(io::Error::other)?;
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        response.map_err(io::Error::other)
    });
    let uri = if is_http2 { format!("http://{to}/") } else { "/".to_owned() };
    let request = Request::get(uri).header("host", to).body(Empty::new()).unwrap();
    let response = ClientLayer::internal().layer(connect).oneshot(request).with_context(ctx).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().with_context(ctx).await?;
    Ok(Response::from_parts(head, body))
}

async fn serve<H, F>(handler: H) -> Result<(), Box<dyn std::error::Error>>
where
    H: Fn(Context) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    // A default for requests whose caller sends no timeout: here all of them do.
    let layer = ContextLayer::internal().max_timeout(Duration::from_secs(60));
    let listener = TcpListener::bind("0.0.0.0:80").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let handler = handler.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let work = handler(request.extensions().get::<Context>().unwrap().clone());
            async move {
                work.await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("done"))))
            }
        });
        let service = TowerToHyperService::new(layer.layer(service));
        tokio::spawn(async move {
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Waits for a while, or for ever.
async fn work_for(random: u64) {
    match random % 4 {
        0 => std::future::pending().await,
        _ => sleep(Duration::from_millis(random % 300)).await,
    }
}

fn run(seed: u64, seen: &Seen) {
    let mut random = Rng::with_seed(seed);
    let mut sim = turmoil::Builder::new();
    sim.rng_seed(seed).tick_duration(TICK).simulation_duration(Duration::from_secs(60)).enable_random_order();
    sim.min_message_latency(Duration::from_millis(1)).max_message_latency(Duration::from_millis(random.u64(1..100)));
    sim.fail_rate(0.02).repair_rate(0.2);
    let mut sim = sim.build();
    let is_http2 = seed.is_multiple_of(2);

    let (of_back, of_seed) = (seen.clone(), Arc::new(Mutex::new(random.fork())));
    let numbers = Arc::clone(&of_seed);
    sim.host("back", move || {
        let (seen, numbers) = (of_back.clone(), Arc::clone(&numbers));
        serve(move |ctx| {
            let (seen, random) = (seen.clone(), numbers.lock().unwrap().u64(..));
            async move {
                let _work = Work::begin(&ctx, &seen);
                work_for(random).await;
            }
        })
    });
    let of_front = seen.clone();
    sim.host("front", move || {
        let (seen, numbers) = (of_front.clone(), Arc::clone(&of_seed));
        serve(move |ctx| {
            let (seen, random) = (seen.clone(), numbers.lock().unwrap().u64(..));
            async move {
                let _work = Work::begin(&ctx, &seen);
                let (below, of_task) = (ctx.clone(), seen.clone());
                let task = ctx.spawn(async move {
                    let _work = Work::begin(&below, &of_task);
                    let _ = call(&below, "back", is_http2).await;
                });
                // Some handlers respond before their task has ended.
                if random % 3 > 0 {
                    let _ = task.await;
                } else {
                    sleep(Duration::from_millis(random % 50)).await;
                }
            }
        })
    });
    let timeouts: Vec<_> = (0..CALLS).map(|_| Duration::from_millis(random.u64(20..800))).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let of_caller = Arc::clone(&is_over);
    sim.client("caller", async move {
        let calls = timeouts.into_iter().map(|timeout| async move {
            let ctx = Context::background().with_timeout(timeout);
            let result = call(&ctx, "front", is_http2).await;
            assert!(result.is_ok() || ctx.remaining().is_some());
        });
        futures_util::future::join_all(calls).await;
        of_caller.store(true, Ordering::SeqCst);
        // A request that was held back arrives late, and its deadline is later by as much.
        sleep(Duration::from_millis(1_200)).await;
        Ok(())
    });

    let pairs = [("caller", "front"), ("front", "back")];
    while !sim.step().unwrap_or_else(|e| panic!("seed {seed}: {e}")) {
        let (one, other) = pairs[random.usize(..pairs.len())];
        match random.u32(..40) {
            _ if is_over.load(Ordering::SeqCst) => {
                for (one, other) in pairs {
                    sim.repair(one, other);
                    sim.release(one, other);
                }
            }
            0 => sim.partition(one, other),
            1 => sim.hold(one, other),
            2 | 3 => {
                sim.repair(one, other);
                sim.release(one, other);
            }
            _ => {}
        }
    }
    assert_eq!(seen.alive.count(), 0, "seed {seed}: work is left after the last call");
    let latest = *seen.latest.lock().unwrap();
    assert!(latest <= LATE, "seed {seed}: work ended {latest:?} after its deadline");
}

#[test]
fn r17_no_handler_outlives_its_deadline_on_a_bad_network() {
    let (seen, seeds) = (Seen::default(), size("THROUGHLINE_SEEDS", 1_000));
    for seed in 0..seeds {
        run(seed as u64, &seen);
    }
    let ends = seen.ends.lock().unwrap();
    eprintln!("R17: {seeds} seeds: ends of work {ends:?}, at most {:?} late", seen.latest.lock().unwrap());
    for end in ["finished", "deadline_exceeded", "client_disconnected", "request_finished"] {
        assert!(ends.contains_key(end), "no work ended by {end}: {ends:?}");
    }
}
