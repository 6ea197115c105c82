//! Processes that get signals. Each test starts itself again as the service.

#![allow(clippy::print_stdout, reason = "the tests read the output of the processes")]

use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::extract::Path;
use axum::routing::get;
use axum::{Extension, Router};
use throughline::{Context, ContextLayer, Shutdown, telemetry};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::collector::Collector;
use crate::support::{is_own, start_own_process};

/// What the service has started and completed.
static REQUESTS: AtomicUsize = AtomicUsize::new(0);
static AUDITS: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The `main` of the README, with three routes. Prints what has happened.
fn run_service(grace: Duration) {
    let served = Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let telemetry = telemetry::init("cards").unwrap();
        let shutdown = Shutdown::on_signal(grace).unwrap();
        let in_slow = shutdown.clone();
        let slow = move || {
            println!("slow request");
            let requested = in_slow.requested();
            async move {
                // It is in flight when the signal arrives, and goes on until the test lets it end.
                requested.await;
                println!("signal received");
                let end = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
                end.await.unwrap().unwrap();
                "slow"
            }
        };
        let blocked = || async {
            println!("blocked");
            std::thread::park_timeout(Duration::from_secs(60));
        };
        let app =
            Router::new().route("/fast/{turns}", get(fast)).route("/slow", get(slow)).route("/blocked", get(blocked));
        let app = app.layer(ContextLayer::internal().base(shutdown.context()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("listening on {}", listener.local_addr().unwrap());
        let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.requested());
        shutdown.serve(server).await.unwrap();
        shutdown.finish(telemetry).await
    });
    let [begun, ended] = [&AUDITS[0], &AUDITS[1]].map(|count| count.load(Relaxed));
    println!("{served}");
    println!("done: {} {begun} {ended} {}", REQUESTS.load(Relaxed), served.stats.emitted);
}

/// Takes some turns of the runtime, and leaves twice as much work in the background.
async fn fast(Extension(ctx): Extension<Context>, Path(turns): Path<u64>) -> &'static str {
    REQUESTS.fetch_add(1, Relaxed);
    AUDITS[0].fetch_add(1, Relaxed);
    ctx.detach().spawn(async move {
        let span = Context::current().span("audit").start();
        take(2 * turns).await;
        span.end();
        AUDITS[1].fetch_add(1, Relaxed);
    });
    take(turns).await;
    "fast"
}

async fn take(turns: u64) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

/// A running service, whose output is read line by line.
struct Service {
    child: Child,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Service {
    /// `None` in the process of the service, where it has ended.
    fn start(test: &str, name: &str, collector: SocketAddr, grace: Duration) -> Option<Service> {
        let started = start_own_process(test, |command| {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")).env("OTEL_SERVICE_NAME", name);
            command.stdin(Stdio::piped());
        });
        let Some(mut child) = started else {
            run_service(grace);
            return None;
        };
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut service = Service { child, output, address: ([127, 0, 0, 1], 0).into() };
        service.address = service.line("listening on ").parse().unwrap();
        Some(service)
    }

    /// Reads up to the line that begins with this, and returns the rest of it.
    fn line(&mut self, beginning: &str) -> String {
        let mut all = String::new();
        loop {
            let from = all.len();
            assert_ne!(self.output.read_line(&mut all).unwrap(), 0, "no line {beginning:?} in:\n{all}");
            // The test harness prints the name of the test before the first line.
            if let Some(at) = all[from..].find(beginning) {
                return all[from + at + beginning.len()..].trim_end().to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn end(mut self) -> ExitStatus {
        std::io::copy(&mut self.output, &mut std::io::sink()).unwrap();
        self.child.wait().unwrap()
    }
}

fn get_path(address: SocketAddr, path: &str) -> impl Future<Output = reqwest::Result<String>> + Send + use<> {
    let url = format!("http://{address}{path}");
    async move { reqwest::get(url).await?.error_for_status()?.text().await }
}

#[test]
fn r14_a_sigterm_neither_cuts_off_a_request_nor_loses_a_span() {
    let (runtime, collector) = (runtime(), Collector::default());
    let otlp = runtime.block_on(collector.http());
    let test = "shutdown::process::r14_a_sigterm_neither_cuts_off_a_request_nor_loses_a_span";
    let Some(mut service) = Service::start(test, "cards", otlp, Duration::from_secs(20)) else { return };
    for _ in 0..3 {
        runtime.block_on(get_path(service.address, "/fast/0")).unwrap();
    }
    let slow = runtime.spawn(get_path(service.address, "/slow"));
    service.line("slow request");
    service.signal("TERM");
    service.line("signal received");
    service.child.stdin.take().unwrap().write_all(b"end\n").unwrap();
    assert_eq!(runtime.block_on(slow).unwrap().unwrap(), "slow");
    assert_eq!(service.line("shutdown: "), "0 requests and 0 tasks cancelled; 7 of 7 spans exported");
    assert!(service.end().success());
    assert_eq!(collector.received().len(), 7, "four requests and three audits");
}

#[test]
fn r25_a_collector_that_refuses_connections_does_not_hold_up_the_end_and_is_named() {
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let otlp = refusing.local_addr().unwrap();
    drop(refusing);
    let test = "shutdown::process::r25_a_collector_that_refuses_connections_does_not_hold_up_the_end_and_is_named";
    let Some(mut service) = Service::start(test, "cards", otlp, Duration::from_secs(20)) else { return };
    runtime().block_on(get_path(service.address, "/fast/0")).unwrap();
    service.signal("INT");
    let report = service.line("shutdown: ");
    assert!(report.contains("2 spans were lost") && report.contains("connection refused"), "{report}");
    assert!(service.end().success());
}

#[test]
fn a_second_signal_ends_the_process_at_once_also_if_its_runtime_is_blocked() {
    let test = "shutdown::process::a_second_signal_ends_the_process_at_once_also_if_its_runtime_is_blocked";
    let (runtime, collector) = (runtime(), Collector::default());
    let otlp = runtime.block_on(collector.http());
    for (name, status) in [("TERM", 143), ("INT", 130)] {
        let Some(mut service) = Service::start(test, "cards", otlp, Duration::from_secs(3600)) else { return };
        let blocked = runtime.spawn(get_path(service.address, "/blocked"));
        service.line("blocked");
        service.signal(name);
        // Two signals in the same instant count as one.
        while service.child.try_wait().unwrap().is_none() {
            service.signal(name);
            std::thread::yield_now();
        }
        assert_eq!(service.end().code(), Some(status), "{name}");
        runtime.block_on(blocked).unwrap().unwrap_err();
    }
}

/// How many services the test below starts. `THROUGHLINE_SIGTERMS` sets another number.
const SIGTERMS: u32 = 20;

#[test]
fn r26_every_started_request_gets_its_response_and_every_ended_span_is_exported() {
    const TEST: &str =
        "shutdown::process::r26_every_started_request_gets_its_response_and_every_ended_span_is_exported";
    if is_own(TEST) {
        return run_service(Duration::from_secs(20));
    }
    let count = std::env::var("THROUGHLINE_SIGTERMS").map_or(SIGTERMS, |count| count.parse().unwrap());
    let (runtime, collector) = (runtime(), Collector::default());
    let otlp = runtime.block_on(collector.http());
    let limit = Arc::new(Semaphore::new(4));
    let mut services = JoinSet::new();
    for number in 0..count {
        let limit = Arc::clone(&limit);
        let one = async move {
            let _permit = limit.acquire_owned().await.unwrap();
            get_signal_under_load(TEST, number, otlp).await
        };
        services.spawn_on(one, runtime.handle());
    }
    let ends = runtime.block_on(services.join_all());
    let received = collector.received();
    let mut slowest = Duration::ZERO;
    let mut total = [0; 2];
    for End { name, responses, requests, audits, emitted, took, report } in ends {
        assert!(requests > 0, "{name}: it was under load");
        assert_eq!(responses, requests, "{name}: responses, requests");
        assert_eq!(audits, [requests; 2], "{name}: background work begun, ended");
        assert_eq!(emitted, 2 * requests, "{name}: spans");
        let exported = received.iter().filter(|(service, _)| *service == name).count();
        assert_eq!(exported, emitted, "{name}: spans exported, ended; {report}");
        slowest = slowest.max(took);
        total = [total[0] + requests, total[1] + exported];
    }
    println!("{count} SIGTERMs, {} requests, {} spans, slowest exit {slowest:.1?}", total[0], total[1]);
}

struct End {
    name: String,
    responses: usize,
    requests: usize,
    audits: [usize; 2],
    emitted: usize,
    took: Duration,
    report: String,
}

/// Starts a service, sends it requests over eight connections, and SIGTERM in the middle of them.
async fn get_signal_under_load(test: &'static str, number: u32, otlp: SocketAddr) -> End {
    let name = format!("cards-{number}");
    let start = {
        let name = name.clone();
        move || Service::start(test, &name, otlp, Duration::from_secs(20)).unwrap()
    };
    let mut service = tokio::task::spawn_blocking(start).await.unwrap();
    let (address, responses) = (service.address, Arc::new(AtomicUsize::new(0)));
    let progress = Arc::new(Semaphore::new(0));
    let mut clients = JoinSet::new();
    for client in 0..8_u64 {
        let (responses, progress) = (Arc::clone(&responses), Arc::clone(&progress));
        clients.spawn(async move {
            let http = reqwest::Client::new();
            for request in 0.. {
                let url = format!("http://{address}/fast/{}", (client + request) % 8 * 50);
                let Ok(response) = http.get(url).send().await else { return };
                assert_eq!(response.status(), 200);
                if response.text().await.is_ok_and(|body| body == "fast") {
                    responses.fetch_add(1, Relaxed);
                    progress.add_permits(1);
                }
            }
        });
    }
    let _ = progress.acquire_many(8 + number % 64).await.unwrap();
    let read = move || {
        service.signal("TERM");
        let began = Instant::now();
        let report = service.line("shutdown: ");
        let done = service.line("done: ");
        assert!(service.end().success());
        (report, done, began.elapsed())
    };
    let (report, done, took) = tokio::task::spawn_blocking(read).await.unwrap();
    clients.join_all().await;
    let counts: Vec<usize> = done.split(' ').map(|count| count.parse().unwrap()).collect();
    let [requests, begun, ended, emitted] = counts[..] else { panic!("{done}") };
    End { name, responses: responses.load(Relaxed), requests, audits: [begun, ended], emitted, took, report }
}
