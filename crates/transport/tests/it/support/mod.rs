//! What several tests share.

pub(crate) mod nats;

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use throughline::telemetry::{self, MemoryExporter, TelemetryGuard};
use throughline::trace::SpanKind;
use throughline::{Context, SpanRecord};
use throughline_transport::{Events, Subscription};

/// A context whose spans are kept.
pub(crate) fn traced() -> (MemoryExporter, TelemetryGuard, Context) {
    let memory = MemoryExporter::default();
    let telemetry = telemetry::builder("bank").exporter(memory.clone()).build().unwrap();
    let ctx = Context::background().with_tracer(telemetry.tracer());
    (memory, telemetry, ctx)
}

/// The spans of a kind that have ended.
pub(crate) async fn spans(memory: &MemoryExporter, telemetry: &TelemetryGuard, kind: SpanKind) -> Vec<SpanRecord> {
    telemetry.force_flush(Duration::from_secs(10)).await.unwrap();
    memory.spans().into_iter().filter(|span| span.kind == kind).collect()
}

/// Polls `future` once, without waiting.
pub(crate) async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

pub(crate) async fn subscribe(events: &Events, subject: &str, group: &str) -> Subscription {
    events.subscribe(&Context::background(), subject, group).await.unwrap()
}
