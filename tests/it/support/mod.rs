//! Services on loopback ports, and the spans that they record.

mod codec;
pub mod collector;
pub mod grpc;

use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use axum::Router;
use throughline::telemetry::{self, MemoryExporter, TelemetryGuard};
use throughline::{ClientLayer, ContextLayer, SpanRecord};
use tokio::net::TcpListener;

/// A limit for waiting: longer than any test takes when it passes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A service with its own telemetry.
pub struct Traced {
    pub memory: MemoryExporter,
    pub telemetry: TelemetryGuard,
}

impl Traced {
    pub fn new(name: &str) -> Traced {
        let memory = MemoryExporter::default();
        let telemetry = telemetry::builder(name).exporter(memory.clone()).build().unwrap();
        Traced { memory, telemetry }
    }

    pub fn internal(&self) -> ContextLayer {
        ContextLayer::internal().tracer(self.telemetry.tracer().clone())
    }

    pub fn edge(&self) -> ContextLayer {
        ContextLayer::edge().tracer(self.telemetry.tracer().clone())
    }

    /// Waits for `count` spans, and returns all of them.
    pub async fn spans(&self, count: u64) -> Vec<SpanRecord> {
        let enough = async {
            while self.telemetry.stats().emitted < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("the spans end");
        self.telemetry.force_flush(PATIENCE).await.unwrap();
        self.memory.spans()
    }

    pub async fn span(&self) -> SpanRecord {
        let mut spans = self.spans(1).await;
        assert_eq!(spans.len(), 1, "{spans:?}");
        spans.remove(0)
    }
}

/// Runs `test` in its own process, with these environment variables. For global settings.
///
/// Returns `true` in that process. In the first process, it starts the other one, checks that the
/// test passes there, and returns `false`.
pub fn is_own_process(test: &str, variables: &[(&str, &str)]) -> bool {
    let set = |child: &mut Command| {
        child.envs(variables.iter().copied());
    };
    let Some(output) = output_of_own_process(test, set) else { return true };
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && shown.contains("1 passed"),
        "{shown}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// Runs `test` in its own process, set up by `prepare`, and returns the output.
///
/// Returns `None` in that process. The test's output there is not captured.
pub fn output_of_own_process(test: &str, prepare: impl FnOnce(&mut Command)) -> Option<Output> {
    Some(start_own_process(test, prepare)?.wait_with_output().unwrap())
}

const OWN: &str = "THROUGHLINE_TEST_OF_THIS_PROCESS";

/// Whether this process was started for `test` alone.
pub fn is_own(test: &str) -> bool {
    std::env::var_os(OWN).is_some_and(|own| own == test)
}

/// As [`output_of_own_process`], without waiting for the process. Its output is piped.
pub fn start_own_process(test: &str, prepare: impl FnOnce(&mut Command)) -> Option<Child> {
    if is_own(test) {
        return None;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--test-threads=1", "--nocapture"]).env(OWN, test);
    child.stdout(Stdio::piped()).stderr(Stdio::piped());
    prepare(&mut child);
    Some(child.spawn().unwrap())
}

/// Serves `app` on a loopback port until the test's runtime ends.
pub async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

pub fn client() -> ClientLayer {
    ClientLayer::internal()
}

pub fn text<'a>(span: &'a SpanRecord, key: &str) -> Option<&'a str> {
    span.attributes.get(key).and_then(|value| value.as_str())
}

/// The names of the span's events.
pub fn events(span: &SpanRecord) -> Vec<&str> {
    span.events.iter().map(|event| &*event.name).collect()
}

pub fn number(span: &SpanRecord, key: &str) -> Option<f64> {
    span.attributes.get(key).and_then(|value| value.as_f64().or(value.as_i64().map(|number| number as f64)))
}
