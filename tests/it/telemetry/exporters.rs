//! Custom exporters: when their methods are called, and several exporters side by side.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};

use throughline::Context;
use throughline::telemetry::{self, DropReason, ExportError, ExportFuture, Exporter, MemoryExporter, TelemetryGuard};
use throughline::trace::Batch;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::support::PATIENCE;

fn spans(telemetry: &TelemetryGuard, count: usize) {
    let ctx = Context::background().with_tracer(telemetry.tracer());
    (0..count).for_each(|_| ctx.span("work").start().end());
}

/// Returns the same result for each batch.
struct Always(Result<(), ExportError>);

impl Exporter for Always {
    fn export<'a>(&'a self, _: &'a Batch) -> ExportFuture<'a> {
        Box::pin(async { self.0.clone() })
    }
}

fn rejects(spans: u64) -> Always {
    Always(Err(ExportError::Rejected { spans, message: "too odd".into() }))
}

fn fails() -> Always {
    Always(Err(ExportError::failed("down")))
}

/// Buffers spans until it is flushed.
#[derive(Clone, Default)]
struct Buffered {
    held: Arc<Mutex<usize>>,
    written: Arc<AtomicUsize>,
}

impl Exporter for Buffered {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        Box::pin(async {
            *self.held.lock().unwrap() += batch.spans.len();
            Ok(())
        })
    }

    fn flush(&self) -> ExportFuture<'_> {
        Box::pin(async {
            self.written.fetch_add(std::mem::take(&mut *self.held.lock().unwrap()), SeqCst);
            Ok(())
        })
    }
}

#[tokio::test]
async fn t15_buffered_spans_are_written_before_a_flush_or_a_shutdown_returns() {
    let exporter = Buffered::default();
    let written = Arc::clone(&exporter.written);
    let telemetry = telemetry::builder("cards").exporter(exporter).build().unwrap();
    spans(&telemetry, 700);
    telemetry.force_flush(PATIENCE).await.unwrap();
    assert_eq!(written.load(SeqCst), 700);
    spans(&telemetry, 7);
    telemetry.shutdown(PATIENCE).await.unwrap();
    assert_eq!(written.load(SeqCst), 707);
}

#[tokio::test]
async fn t15_an_exporter_is_dropped_before_a_shutdown_returns() {
    /// Writes when it is dropped, like a `BufWriter`.
    struct Late(Arc<AtomicUsize>, AtomicUsize);

    impl Exporter for Late {
        fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
            self.1.fetch_add(batch.spans.len(), SeqCst);
            Box::pin(async { Ok(()) })
        }
    }

    impl Drop for Late {
        fn drop(&mut self) {
            self.0.fetch_add(self.1.load(SeqCst), SeqCst);
        }
    }

    for _ in 0..50 {
        let written = Arc::new(AtomicUsize::new(0));
        let exporter = Late(Arc::clone(&written), AtomicUsize::new(0));
        let telemetry = telemetry::builder("cards").exporter(exporter).build().unwrap();
        spans(&telemetry, 10);
        telemetry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(written.load(SeqCst), 10);
    }
}

#[tokio::test]
async fn a_flush_that_fails_or_panics_returns_an_error_and_the_thread_survives() {
    struct FailingFlush(&'static str);

    impl Exporter for FailingFlush {
        fn export<'a>(&'a self, _: &'a Batch) -> ExportFuture<'a> {
            Box::pin(async { Ok(()) })
        }

        fn flush(&self) -> ExportFuture<'_> {
            assert!(self.0 != "panics", "a flush that panics");
            Box::pin(async { Err(ExportError::failed("the disk is full")) })
        }
    }

    for (how, message) in [("fails", "the disk is full"), ("panics", "the exporter panicked")] {
        let reported = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reported);
        let builder = telemetry::builder("cards").exporter(FailingFlush(how)).on_error(move |_| {
            count.fetch_add(1, SeqCst);
        });
        let telemetry = builder.build().unwrap();
        for _ in 0..2 {
            spans(&telemetry, 1);
            let error = telemetry.force_flush(PATIENCE).await.unwrap_err();
            assert_eq!((error.lost, error.error.as_deref()), (0, Some(&ExportError::failed(message))));
            let text = error.to_string();
            assert!(text.contains(message) && !text.contains("were lost"), "{text}");
        }
        let error = telemetry.shutdown(PATIENCE).await.unwrap_err();
        assert_eq!((error.lost, error.stats.exported), (0, 2));
        assert_eq!(error.error.as_deref(), Some(&ExportError::failed(message)));
        assert_eq!(reported.load(SeqCst), 3);
    }
}

#[tokio::test]
async fn t15_a_span_is_counted_once_with_several_exporters() {
    let lost = async |first: Always, second: Always| {
        let builder = telemetry::builder("cards").exporter(first).exporter(second).on_error(|_| {});
        let telemetry = builder.build().unwrap();
        spans(&telemetry, 10);
        let stats = telemetry.shutdown(PATIENCE).await.unwrap_err().stats;
        assert_eq!(stats.emitted, stats.exported + stats.dropped(), "{stats}");
        (stats.dropped_because(DropReason::Rejected), stats.dropped_because(DropReason::ExportFailed))
    };
    assert_eq!(lost(rejects(1), fails()).await, (0, 10));
    assert_eq!(lost(fails(), rejects(1)).await, (0, 10));
    assert_eq!(lost(fails(), fails()).await, (0, 10));
    assert_eq!(lost(rejects(1), Always(Ok(()))).await, (1, 0));
    assert_eq!(lost(rejects(1), rejects(2)).await, (3, 0), "the rejected spans may differ");
    assert_eq!(lost(rejects(7), rejects(8)).await, (10, 0));
}

/// Blocks its thread at each batch until it is released, then sends the number of spans.
struct Blocking(Mutex<mpsc::Receiver<()>>, UnboundedSender<usize>);

impl Exporter for Blocking {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        // An error means that it is released for good.
        let _ = self.0.lock().unwrap().recv();
        let _ = self.1.send(batch.spans.len());
        Box::pin(async { Ok(()) })
    }
}

/// Sends the number of spans of each batch.
struct Prompt(UnboundedSender<usize>);

impl Exporter for Prompt {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        self.0.send(batch.spans.len()).unwrap();
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn t15_an_exporter_that_blocks_its_thread_does_not_delay_the_others() {
    let (release, may_go_on) = mpsc::channel();
    let (slow, mut by_slow) = unbounded_channel();
    let (prompt, mut by_prompt) = unbounded_channel();
    let builder = telemetry::builder("cards").exporter(Blocking(Mutex::new(may_go_on), slow)).exporter(Prompt(prompt));
    let telemetry = builder.max_batch(10).build().unwrap();
    spans(&telemetry, 200);
    let mut received = 0;
    while received < 200 {
        received += by_prompt.recv().await.unwrap();
    }
    assert_eq!((telemetry.stats().exported, telemetry.stats().queued), (0, 200), "not exported by all exporters");
    drop(release);
    telemetry.shutdown(PATIENCE).await.unwrap();
    let mut received = 0;
    while let Some(spans) = by_slow.recv().await {
        received += spans;
    }
    assert_eq!(received, 200);
}

#[tokio::test]
async fn r12_only_an_exporter_that_lags_behind_loses_spans() {
    let (release, may_go_on) = mpsc::channel();
    let (slow, mut by_slow) = unbounded_channel();
    let (prompt, mut by_prompt) = unbounded_channel();
    let builder = telemetry::builder("cards").exporter(Blocking(Mutex::new(may_go_on), slow)).exporter(Prompt(prompt));
    let telemetry = builder.max_batch(10).max_queue(100, usize::MAX).build().unwrap();
    for _ in 0..100 {
        spans(&telemetry, 10);
        assert_eq!(by_prompt.recv().await, Some(10));
    }
    drop(release);
    let last = (*telemetry).clone();
    telemetry.shutdown(PATIENCE).await.expect("the spans were dropped before the shutdown");
    let mut received = 0;
    while let Some(spans) = by_slow.recv().await {
        received += spans;
    }
    assert_eq!(received, 100);
    let stats = last.stats();
    assert_eq!((stats.emitted, stats.exported, stats.dropped_because(DropReason::QueueFull)), (1_000, 100, 900));
}

#[tokio::test]
async fn without_an_exporter_spans_count_as_exported() {
    let telemetry = telemetry::builder("cards").build().unwrap();
    spans(&telemetry, 3);
    telemetry.force_flush(PATIENCE).await.unwrap();
    let stats = (*telemetry).clone();
    telemetry.shutdown(PATIENCE).await.unwrap();
    late_span(&stats);
    let stats = stats.stats();
    assert_eq!((stats.emitted, stats.exported, stats.dropped_because(DropReason::AfterShutdown)), (4, 3, 1));
}

fn late_span(telemetry: &telemetry::Telemetry) {
    Context::background().with_tracer(telemetry.tracer()).span("too late").start().end();
}

#[tokio::test]
async fn every_exporter_gets_every_span() {
    let (first, second) = (MemoryExporter::default(), MemoryExporter::default());
    let telemetry = telemetry::builder("cards").exporter(first.clone()).exporter(second.clone()).build().unwrap();
    spans(&telemetry, 1_500);
    telemetry.shutdown(PATIENCE).await.unwrap();
    assert_eq!((first.spans().len(), second.spans().len()), (1_500, 1_500));
    assert!(first.batches().iter().all(|batch| batch.spans.len() <= 512));
}
