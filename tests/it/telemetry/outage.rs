//! Collectors that start late or throttle, and connections that are cut or go silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use throughline::Context;
use throughline::telemetry::otlp::{Config, OtlpExporter, Protocol};
use throughline::telemetry::{self, DropReason, TelemetryGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::PATIENCE;
use crate::support::collector::{Collector, Reply};

const BOTH: [Protocol; 2] = [Protocol::HttpProtobuf, Protocol::Grpc];

async fn address(protocol: Protocol, collector: &Collector) -> SocketAddr {
    if protocol == Protocol::Grpc { collector.grpc().await } else { collector.http().await }
}

fn exporting(protocol: Protocol, address: SocketAddr, config: Config) -> TelemetryGuard {
    let path = if protocol == Protocol::Grpc { "" } else { "/v1/traces" };
    let exporter = OtlpExporter::new(protocol, &format!("http://{address}{path}"), config).unwrap();
    telemetry::builder("cards").exporter(exporter).max_batch(1).on_error(|_| {}).build().unwrap()
}

fn spans(telemetry: &TelemetryGuard, count: usize) {
    let ctx = Context::background().with_tracer(telemetry.tracer());
    (0..count).for_each(|_| ctx.span("work").start().end());
}

/// 429, or RESOURCE_EXHAUSTED.
fn throttled(protocol: Protocol, after: &'static str) -> Reply {
    Reply::Refuse(if protocol == Protocol::Grpc { 8 } else { 429 }, Some(after))
}

#[tokio::test]
async fn r24_all_spans_are_sent_after_a_pause_that_the_receiver_requests() {
    for protocol in BOTH {
        let collector = Collector::default();
        collector.replies.lock().unwrap().extend([throttled(protocol, "1"), throttled(protocol, "1")]);
        let telemetry = exporting(protocol, address(protocol, &collector).await, Config::default());
        let start = Instant::now();
        spans(&telemetry, 5);
        telemetry.force_flush(PATIENCE).await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(2), "two pauses");
        assert_eq!((collector.attempts(), collector.received().len()), (7, 5));
        telemetry.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn r24_nothing_is_sent_during_a_pause_and_spans_stay_queued() {
    for protocol in BOTH {
        let collector = Collector::default();
        collector.replies.lock().unwrap().push_back(throttled(protocol, "30"));
        let telemetry = exporting(protocol, address(protocol, &collector).await, Config::default());
        spans(&telemetry, 1);
        while collector.attempts() == 0 {
            tokio::task::yield_now().await;
        }
        spans(&telemetry, 99);
        let error = telemetry.force_flush(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!((error.lost, error.stats.queued), (0, 100), "{error}");
        // The pause would end after the limit of the shutdown, so the shutdown does not wait.
        let error = telemetry.shutdown(Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(error.stats.dropped_because(DropReason::ExportFailed), 100, "{error}");
        assert!(error.error.is_some_and(|error| error.to_string().contains("responded with")));
        assert_eq!(collector.attempts(), 1);
    }
}

#[tokio::test]
async fn r11_spans_wait_for_a_collector_that_starts_late() {
    for protocol in BOTH {
        // A bound socket that does not listen refuses connections and reserves its port.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let telemetry = exporting(protocol, socket.local_addr().unwrap(), Config::default());
        spans(&telemetry, 100);
        let error = telemetry.force_flush(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!((error.lost, error.stats.queued), (0, 100), "{error}");
        let collector = Collector::default();
        let listener = socket.listen(64).unwrap();
        if protocol == Protocol::Grpc {
            collector.serve_grpc(listener)
        } else {
            collector.serve_http(listener)
        }
        telemetry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(collector.received().len(), 100, "{protocol:?}");
    }
}

#[tokio::test]
async fn r11_a_connection_that_is_cut_loses_no_span() {
    for protocol in BOTH {
        let (collector, proxy) = (Collector::default(), Proxy::default());
        proxy.cuts.store(2, SeqCst);
        let address = proxy.before(address(protocol, &collector).await).await;
        let telemetry = exporting(protocol, address, Config::default());
        spans(&telemetry, 10);
        telemetry.shutdown(PATIENCE).await.unwrap();
        assert_eq!((proxy.connections.load(SeqCst), collector.received().len()), (3, 10), "{protocol:?}");
    }
}

/// A TCP proxy between an exporter and its collector.
#[derive(Clone, Default)]
struct Proxy {
    /// The number of connections to close after their first byte.
    cuts: Arc<AtomicUsize>,
    /// If set, earlier connections read bytes, forward none, and are never closed.
    is_dead: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    async fn before(&self, upstream: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = self.clone();
        tokio::spawn(async move {
            while let Ok((mut down, _)) = listener.accept().await {
                proxy.connections.fetch_add(1, SeqCst);
                if proxy.cuts.fetch_update(SeqCst, SeqCst, |cuts| cuts.checked_sub(1)).is_ok() {
                    let _ = down.read_u8().await;
                    continue;
                }
                let up = TcpStream::connect(upstream).await.unwrap();
                let (from_down, to_down) = down.into_split();
                let (from_up, to_up) = up.into_split();
                let dies = !proxy.is_dead.load(SeqCst);
                tokio::spawn(proxy.clone().pass(from_down, to_up, dies));
                tokio::spawn(proxy.clone().pass(from_up, to_down, dies));
            }
        });
        address
    }

    async fn pass(self, mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, dies: bool) {
        let mut bytes = vec![0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if !(dies && self.is_dead.load(SeqCst)) && to.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn r22_a_connection_that_goes_silent_loses_no_span() {
    for protocol in BOTH {
        let (collector, proxy) = (Collector::default(), Proxy::default());
        let address = proxy.before(address(protocol, &collector).await).await;
        let config = Config { timeout: Duration::from_millis(500), ..Config::default() };
        let telemetry = exporting(protocol, address, config);
        spans(&telemetry, 1);
        telemetry.force_flush(PATIENCE).await.unwrap();
        let before = collector.received().len();
        proxy.is_dead.store(true, SeqCst);
        spans(&telemetry, 3);
        telemetry.force_flush(PATIENCE).await.unwrap();
        assert!(collector.received().len() >= before + 3, "{protocol:?}");
        assert!(proxy.connections.load(SeqCst) >= 2, "{protocol:?}");
        telemetry.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn r22_a_silent_connection_is_replaced_after_an_export_timeout() {
    for protocol in BOTH {
        let (collector, proxy) = (Collector::default(), Proxy::default());
        let address = proxy.before(address(protocol, &collector).await).await;
        let path = if protocol == Protocol::Grpc { "" } else { "/v1/traces" };
        // An attempt has no limit, only the batch has one.
        let config = Config { timeout: Duration::MAX, ..Config::default() };
        let exporter = OtlpExporter::new(protocol, &format!("http://{address}{path}"), config).unwrap();
        let builder = telemetry::builder("cards").exporter(exporter).on_error(|_| {});
        let telemetry = builder.export_timeout(Duration::from_secs(1)).build().unwrap();
        spans(&telemetry, 1);
        telemetry.force_flush(PATIENCE).await.unwrap();
        proxy.is_dead.store(true, SeqCst);
        spans(&telemetry, 1);
        let error = telemetry.force_flush(PATIENCE).await.unwrap_err();
        assert_eq!(error.stats.dropped_because(DropReason::ExportTimeout), 1, "{error}");
        spans(&telemetry, 1);
        telemetry.force_flush(PATIENCE).await.expect("another connection is used");
        telemetry.shutdown(PATIENCE).await.unwrap();
    }
}
