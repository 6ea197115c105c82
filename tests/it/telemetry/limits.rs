//! The limits of a flush and a shutdown, with exporters that block.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use throughline::Context;
use throughline::telemetry::otlp::{Config, OtlpExporter, Protocol};
use throughline::telemetry::{self, DropReason, ExportError, ExportFuture, Exporter, TelemetryGuard};
use throughline::trace::Batch;
use tokio::time::timeout;

use crate::support::{PATIENCE, output_of_own_process};

const SHORT: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_secs(3600);

fn span(telemetry: &TelemetryGuard) {
    Context::background().with_tracer(telemetry.tracer()).span("work").start().end();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Export,
    Flush,
    Shutdown,
    Drop,
    OnError,
}

/// Blocks its thread until the other end of the channel is dropped.
#[derive(Clone)]
struct Gate(At, Arc<Mutex<mpsc::Receiver<()>>>);

impl Gate {
    fn pass(&self, at: At) {
        if self.0 == at {
            let _ = self.1.lock().unwrap().recv();
        }
    }
}

struct Gated(Gate);

impl Exporter for Gated {
    fn export<'a>(&'a self, _: &'a Batch) -> ExportFuture<'a> {
        Box::pin(async {
            self.0.pass(At::Export);
            if self.0.0 == At::OnError { Err(ExportError::failed("no")) } else { Ok(()) }
        })
    }

    fn flush(&self) -> ExportFuture<'_> {
        Box::pin(async {
            self.0.pass(At::Flush);
            Ok(())
        })
    }

    fn shutdown(&self) -> ExportFuture<'_> {
        Box::pin(async {
            self.0.pass(At::Shutdown);
            Ok(())
        })
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.0.pass(At::Drop);
    }
}

fn gated(at: At) -> (mpsc::Sender<()>, TelemetryGuard) {
    let (release, blocked) = mpsc::channel();
    let gate = Gate(at, Arc::new(Mutex::new(blocked)));
    let on_error = gate.clone();
    let builder = telemetry::builder("cards").exporter(Gated(gate));
    (release, builder.on_error(move |_| on_error.pass(At::OnError)).build().unwrap())
}

#[tokio::test]
async fn r25_a_shutdown_keeps_its_limit_wherever_an_exporter_blocks_its_thread() {
    for at in [At::Export, At::Shutdown, At::Drop, At::OnError] {
        let (release, guard) = gated(at);
        span(&guard);
        if matches!(at, At::Shutdown | At::Drop) {
            guard.force_flush(PATIENCE).await.unwrap();
        }
        let telemetry = (*guard).clone();
        let shutdown = timeout(PATIENCE, guard.shutdown(SHORT)).await;
        let error = shutdown.expect("the limit holds").unwrap_err();
        let lost = error.stats.dropped_because(DropReason::ShutdownTimeout);
        assert_eq!(lost, u64::from(matches!(at, At::Export | At::OnError)), "{at:?}: {error}");
        assert_eq!((error.lost, error.stats.queued), (lost, 0), "{at:?}");
        drop(release);
        let stats = telemetry.stats();
        assert_eq!(stats, error.stats, "{at:?}: spans that were given up are not counted again");
    }
}

#[tokio::test]
async fn r25_a_flush_keeps_its_limit_wherever_an_exporter_blocks_its_thread() {
    for at in [At::Export, At::Flush, At::OnError] {
        let (release, guard) = gated(at);
        span(&guard);
        let error = timeout(PATIENCE, guard.force_flush(SHORT)).await.expect("the limit holds").unwrap_err();
        assert_eq!(error.lost, 0, "{at:?}");
        drop(release);
        if at != At::OnError {
            guard.force_flush(PATIENCE).await.unwrap();
        }
        drop(guard);
    }
}

#[test]
fn r25_a_guard_that_is_dropped_keeps_its_limit_while_an_exporter_blocks_its_thread() {
    let (release, guard) = gated(At::Export);
    span(&guard);
    let (sender, dropped) = mpsc::channel();
    std::thread::spawn(move || {
        drop(guard);
        sender.send(()).unwrap();
    });
    dropped.recv_timeout(PATIENCE).expect("the limit holds");
    drop(release);
}

#[tokio::test]
async fn r25_a_limit_is_real_time_when_the_clock_is_paused() {
    tokio::time::pause();
    let (release, guard) = gated(At::Export);
    span(&guard);
    let telemetry = (*guard).clone();
    // The paused clock advances while the runtime is idle.
    let shutdown = tokio::spawn(guard.shutdown(PATIENCE));
    tokio::time::sleep(NEVER).await;
    drop(release);
    shutdown.await.unwrap().unwrap();
    assert_eq!(telemetry.stats().exported, 1);
}

/// Returns an address without a listener.
fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn refused(protocol: Protocol) -> telemetry::Builder {
    let path = if protocol == Protocol::Grpc { "" } else { "/v1/traces" };
    let url = format!("http://{}{path}", nowhere());
    telemetry::builder("cards").exporter(OtlpExporter::new(protocol, &url, Config::default()).unwrap())
}

#[tokio::test]
async fn r25_a_shutdown_ends_when_the_collector_refuses_the_connection_and_reports_it() {
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        for is_in_a_pause in [false, true] {
            let guard = refused(protocol).max_batch(1).on_error(|_| {}).build().unwrap();
            (0..5).for_each(|_| span(&guard));
            if is_in_a_pause {
                // Usually long enough for a first attempt. If not, this is the same as the other
                // case.
                let error = guard.force_flush(SHORT).await.unwrap_err();
                assert_eq!((error.lost, error.stats.queued), (0, 5), "it is retried");
            }
            let error = timeout(PATIENCE, guard.shutdown(NEVER)).await.expect("it ends at once").unwrap_err();
            assert_eq!(error.stats.dropped_because(DropReason::ExportFailed), 5, "{error}");
            assert!(error.to_string().contains("connection refused"), "{error}");
        }
    }
}

/// It checks the stderr of a process, so it runs in its own process.
#[test]
fn r25_dropping_the_guard_reports_that_the_collector_refuses_the_connection() {
    let test = "telemetry::limits::r25_dropping_the_guard_reports_that_the_collector_refuses_the_connection";
    let Some(output) = output_of_own_process(test, |_| {}) else {
        let guard = refused(Protocol::HttpProtobuf).on_error(|_| {}).build().unwrap();
        span(&guard);
        return drop(guard);
    };
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{message}");
    assert!(message.contains("throughline: telemetry of cards was dropped without a shutdown"), "{message}");
    assert!(message.contains("connection refused") && !message.contains("not exported in time"), "{message}");
}

#[test]
fn a_closed_stderr_does_not_panic() {
    let test = "telemetry::limits::a_closed_stderr_does_not_panic";
    let closed = |command: &mut std::process::Command| {
        let (reader, writer) = std::io::pipe().unwrap();
        command.stderr(writer);
        drop(reader);
    };
    let Some(output) = output_of_own_process(test, closed) else {
        let nonsense = |name: &str| (name == "OTEL_TRACES_SAMPLER").then(|| "nonsense".to_owned());
        let guard = refused(Protocol::HttpProtobuf).from_variables(&nonsense).build().unwrap();
        span(&guard);
        return drop(guard);
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
