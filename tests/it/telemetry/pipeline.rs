//! The way of spans to their exporter: which ones are exported, dropped and counted.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use throughline::Context;
use throughline::telemetry::{self, DropReason, ExportError, ExportFuture, Exporter, MemoryExporter, TelemetryGuard};
use throughline::trace::{Batch, Status};

use crate::support::collector::Collector;
use crate::support::{PATIENCE, is_own_process};

/// Handles each batch with the behaviour that the function returns.
struct Custom<F>(F);

impl<F: Fn(&Batch) -> Behaviour + Send + Sync + 'static> Exporter for Custom<F> {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        match (self.0)(batch) {
            Behaviour::Ok => Box::pin(async { Ok(()) }),
            Behaviour::Fail => Box::pin(async { Err(ExportError::failed("no")) }),
            Behaviour::Unavailable => Box::pin(async { Err(ExportError::unavailable("busy", None)) }),
            Behaviour::Hang => Box::pin(pending()),
            Behaviour::PanicLater => Box::pin(async { panic!("an exporter that panics") }),
            Behaviour::PanicNow => panic!("an exporter that panics at once"),
        }
    }
}

#[derive(Clone, Copy)]
enum Behaviour {
    Ok,
    Fail,
    Unavailable,
    Hang,
    PanicLater,
    PanicNow,
}

fn spans(telemetry: &TelemetryGuard, count: usize) {
    let ctx = Context::background().with_tracer(telemetry.tracer());
    (0..count).for_each(|_| ctx.span("work").start().end());
}

fn quiet(builder: telemetry::Builder) -> telemetry::Builder {
    builder.on_error(|_| {})
}

#[tokio::test]
async fn t11_several_telemetries_in_one_process_keep_their_spans_apart() {
    let services: Vec<_> = (0..11)
        .map(|index| {
            let memory = MemoryExporter::default();
            let telemetry = telemetry::builder(format!("service-{index}")).exporter(memory.clone()).build().unwrap();
            spans(&telemetry, index + 1);
            (memory, telemetry)
        })
        .collect();
    for (index, (memory, telemetry)) in services.into_iter().enumerate() {
        telemetry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(memory.spans().len(), index + 1);
        let names: Vec<_> = memory.batches().iter().map(|b| b.resource.service_name().unwrap().to_owned()).collect();
        assert!(names.iter().all(|name| *name == format!("service-{index}")));
    }
}

#[tokio::test]
async fn t16_a_shutdown_exports_every_ended_span_and_counts_later_ones_as_dropped() {
    let memory = MemoryExporter::default();
    let telemetry = telemetry::builder("cards").exporter(memory.clone()).build().unwrap();
    let ctx = Context::background().with_tracer(telemetry.tracer());
    spans(&telemetry, 2_000);
    let open = ctx.span("still open").start();
    let stats = (*telemetry).clone();
    telemetry.shutdown(PATIENCE).await.unwrap();
    assert_eq!(memory.spans().len(), 2_000);
    open.end();
    ctx.span("too late").start().end();
    let stats = stats.stats();
    assert_eq!((stats.emitted, stats.exported, stats.queued), (2_002, 2_000, 0));
    assert_eq!(stats.dropped_because(DropReason::AfterShutdown), 2);
}

#[test]
fn r10_a_shutdown_exports_at_once_on_any_runtime() {
    let current = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let one_worker = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    for runtime in [current, one_worker] {
        let memory = MemoryExporter::default();
        // A schedule delay that is longer than the test.
        let builder = telemetry::builder("cards").exporter(memory.clone()).schedule_delay(Duration::from_secs(3600));
        let telemetry = builder.build().unwrap();
        runtime.block_on(async {
            spans(&telemetry, 100);
            telemetry.shutdown(PATIENCE).await.unwrap();
        });
        assert_eq!(memory.spans().len(), 100);
    }
}

#[test]
fn t16_dropping_the_guard_exports_the_queue() {
    let memory = MemoryExporter::default();
    let telemetry = telemetry::builder("cards").exporter(memory.clone()).build().unwrap();
    spans(&telemetry, 100);
    drop(telemetry);
    assert_eq!(memory.spans().len(), 100);
}

#[tokio::test]
async fn r13_an_exporter_that_panics_loses_only_its_batch() {
    for panic in [Behaviour::PanicLater, Behaviour::PanicNow] {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let exporter =
            Custom(move |_: &Batch| if count.fetch_add(1, Ordering::SeqCst) == 0 { panic } else { Behaviour::Ok });
        let telemetry = quiet(telemetry::builder("cards")).exporter(exporter).build().unwrap();
        spans(&telemetry, 3);
        let error = telemetry.force_flush(PATIENCE).await.unwrap_err();
        assert_eq!((error.lost, error.stats.dropped_because(DropReason::ExporterPanicked)), (3, 3));
        spans(&telemetry, 4);
        telemetry.force_flush(PATIENCE).await.expect("the thread lives");
        let stats = telemetry.stats();
        assert_eq!((stats.emitted, stats.exported, stats.dropped()), (7, 4, 3));
        telemetry.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn r12_a_full_queue_drops_and_counts_spans_without_blocking() {
    let exporter = Custom(|_: &Batch| Behaviour::Hang);
    let builder = quiet(telemetry::builder("cards")).exporter(exporter).max_queue(100, usize::MAX).max_batch(10);
    let telemetry = builder.build().unwrap();
    spans(&telemetry, 10_000);
    let stats = telemetry.stats();
    // The export thread has taken at most one batch.
    let dropped = stats.dropped_because(DropReason::QueueFull);
    assert!((9_890..=9_900).contains(&dropped), "{stats}");
    assert_eq!(stats.emitted, stats.queued + stats.exported + stats.dropped());
    let error = telemetry.shutdown(Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(error.stats.dropped_because(DropReason::ShutdownTimeout), 10_000 - dropped);
    assert_eq!((error.stats.emitted, error.stats.dropped(), error.stats.queued), (10_000, 10_000, 0));
}

#[tokio::test]
async fn r12_the_queue_is_bounded_in_bytes() {
    let exporter = Custom(|_: &Batch| Behaviour::Hang);
    let builder =
        quiet(telemetry::builder("cards")).exporter(exporter).max_queue(usize::MAX, 1 << 20).max_batch(usize::MAX);
    let telemetry = builder.schedule_delay(Duration::from_secs(3600)).build().unwrap();
    let ctx = Context::background().with_tracer(telemetry.tracer());
    for _ in 0..1_000 {
        ctx.span("large").attribute("text", "x".repeat(10_000)).start().end();
    }
    let queued = telemetry.stats().queued;
    assert!((80..=105).contains(&queued), "about 100 of 10 kB: {queued}");
    telemetry.shutdown(Duration::ZERO).await.unwrap_err();
}

#[tokio::test]
async fn an_outage_is_reported_once_until_a_batch_is_exported_again() {
    let works = Arc::new(AtomicUsize::new(0));
    let (reports, behaviour) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&works));
    let count = Arc::clone(&reports);
    let exporter =
        Custom(move |_: &Batch| if behaviour.load(Ordering::SeqCst) == 0 { Behaviour::Fail } else { Behaviour::Ok });
    let builder = telemetry::builder("cards").exporter(exporter).on_error(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let telemetry = builder.build().unwrap();
    for (is_working, expected) in [(0, 1), (0, 1), (1, 1), (0, 2)] {
        works.store(is_working, Ordering::SeqCst);
        spans(&telemetry, 1);
        assert_eq!(telemetry.force_flush(PATIENCE).await.is_ok(), is_working == 1);
        assert_eq!(reports.load(Ordering::SeqCst), expected);
    }
    assert_eq!(telemetry.stats().dropped_because(DropReason::ExportFailed), 3);
}

#[tokio::test]
async fn an_export_that_times_out_and_one_that_fails_are_counted_under_different_reasons() {
    let cases = [(Behaviour::Hang, [1, 0]), (Behaviour::Unavailable, [1, 0]), (Behaviour::Fail, [0, 1])];
    for (behaviour, expected) in cases {
        let builder = quiet(telemetry::builder("cards")).exporter(Custom(move |_: &Batch| behaviour));
        let telemetry = builder.export_timeout(Duration::from_millis(50)).build().unwrap();
        spans(&telemetry, 1);
        let error = telemetry.force_flush(PATIENCE).await.unwrap_err();
        let reasons = [DropReason::ExportTimeout, DropReason::ExportFailed];
        assert_eq!(reasons.map(|reason| error.stats.dropped_because(reason)), expected, "{error}");
        assert_eq!(error.to_string().contains("export timed out"), expected == [1, 0], "{error}");
        telemetry.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn a_flush_returns_at_its_limit_when_an_exporter_hangs() {
    let telemetry = quiet(telemetry::builder("cards")).exporter(Custom(|_: &Batch| Behaviour::Hang)).build().unwrap();
    spans(&telemetry, 1);
    let error = telemetry.force_flush(Duration::from_millis(10)).await.unwrap_err();
    assert_eq!((error.lost, error.stats.queued), (0, 1), "the span is still queued");
    let error = telemetry.shutdown(Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(error.stats.dropped_because(DropReason::ShutdownTimeout), 1);
}

#[tokio::test]
async fn r14_a_shutdown_keeps_its_limit_while_an_earlier_flush_waits() {
    let (entered, mut entries) = tokio::sync::mpsc::unbounded_channel();
    let exporter = Custom(move |_: &Batch| {
        entered.send(()).unwrap();
        Behaviour::Hang
    });
    let telemetry = quiet(telemetry::builder("cards")).exporter(exporter).build().unwrap();
    let flushing = (*telemetry).clone();
    spans(&telemetry, 1);
    let flush = tokio::spawn(async move { flushing.force_flush(Duration::from_secs(3600)).await });
    entries.recv().await.unwrap();
    let shutdown = tokio::time::timeout(PATIENCE, telemetry.shutdown(Duration::from_millis(10)));
    let error = shutdown.await.expect("the limit of the shutdown holds").unwrap_err();
    assert_eq!(error.stats.dropped_because(DropReason::ShutdownTimeout), 1);
    flush.await.unwrap().expect_err("the span it waited for was dropped");
}

#[tokio::test]
async fn r13_an_export_future_that_panics_when_dropped_loses_only_its_batch() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a future that panics when dropped");
        }
    }
    struct Panics;
    impl Exporter for Panics {
        fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
            let bomb = Bomb;
            Box::pin(async move {
                if batch.spans[0].name == "hang" {
                    pending::<()>().await;
                }
                std::mem::forget(bomb);
                Ok(())
            })
        }
    }
    let builder = quiet(telemetry::builder("cards")).exporter(Panics).export_timeout(Duration::from_millis(10));
    let telemetry = builder.build().unwrap();
    let ctx = Context::background().with_tracer(telemetry.tracer());
    ctx.span("hang").start().end();
    let error = telemetry.force_flush(PATIENCE).await.unwrap_err();
    assert_eq!((error.lost, error.stats.dropped_because(DropReason::ExportTimeout)), (1, 1));
    spans(&telemetry, 2);
    telemetry.force_flush(PATIENCE).await.expect("the thread lives");
    telemetry.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn r12_status_descriptions_and_attributes_count_as_bytes() {
    let status = |span: &throughline::Span| span.set_status(Status::Error("x".repeat(10_000).into()));
    let many = |span: &throughline::Span| (0..100_i64).for_each(|i| span.set_attribute(format!("key-{i}"), i));
    for fill in [&status as &dyn Fn(&throughline::Span), &many] {
        let exporter = Custom(|_: &Batch| Behaviour::Hang);
        let builder = quiet(telemetry::builder("cards")).exporter(exporter).max_queue(usize::MAX, 1 << 20);
        let telemetry = builder.max_batch(usize::MAX).schedule_delay(Duration::MAX).build().unwrap();
        let ctx = Context::background().with_tracer(telemetry.tracer());
        for _ in 0..1_000 {
            let span = ctx.span("large").start();
            fill(&span);
        }
        assert!(telemetry.stats().dropped_because(DropReason::QueueFull) > 600, "{}", telemetry.stats());
        telemetry.shutdown(Duration::ZERO).await.unwrap_err();
    }
}

#[tokio::test]
async fn t16_unlimited_durations_do_not_panic() {
    let memory = MemoryExporter::default();
    let builder = telemetry::builder("cards").exporter(memory.clone()).schedule_delay(Duration::MAX);
    let telemetry = builder.export_timeout(Duration::MAX).build().unwrap();
    spans(&telemetry, 1);
    telemetry.force_flush(Duration::MAX).await.unwrap();
    spans(&telemetry, 1);
    telemetry.shutdown(Duration::MAX).await.unwrap();
    assert_eq!(memory.spans().len(), 2);
}

/// It sets the default of a process, so it runs in its own process. The receiver stays in this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t11_init_sets_the_default_once_and_exports_by_otlp_as_the_environment_says() {
    let collector = Collector::default();
    let endpoint = format!("http://{}", collector.http().await);
    let variables = [("OTEL_SERVICE_NAME", "named"), ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)];
    let test = "telemetry::pipeline::t11_init_sets_the_default_once_and_exports_by_otlp_as_the_environment_says";
    if !tokio::task::block_in_place(|| is_own_process(test, &variables)) {
        let received = collector.received();
        assert_eq!(received.len(), 1, "{received:?}");
        assert_eq!((received[0].0.as_str(), received[0].1.name.as_str()), ("named", "by default"));
        return;
    }
    let telemetry = telemetry::init("cards").unwrap();
    let error = telemetry::init("other").unwrap_err();
    assert!(error.to_string().contains("a default telemetry already"), "{error}");
    Context::background().span("by default").start().end();
    telemetry.shutdown(PATIENCE).await.unwrap();
}
