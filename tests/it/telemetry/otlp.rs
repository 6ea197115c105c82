//! OTLP to a receiver that decodes the requests.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use axum::Router;
use axum::routing::{any, post};
use http::StatusCode;
use http::header::LOCATION;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use throughline::telemetry::otlp::{Config, OtlpExporter, Protocol};
use throughline::telemetry::{self, DropReason, ExportError, TelemetryGuard};
use throughline::trace::{SpanKind, Status};
use throughline::{Context, Span};

use crate::support::collector::{Collector, Reply};
use crate::support::{PATIENCE, is_own_process, serve};

async fn exporting(protocol: Protocol, collector: &Collector, config: Config) -> TelemetryGuard {
    let url = match protocol {
        Protocol::HttpProtobuf => format!("http://{}/v1/traces", collector.http().await),
        Protocol::Grpc => format!("http://{}", collector.grpc().await),
    };
    let exporter = OtlpExporter::new(protocol, &url, config).unwrap();
    telemetry::builder("cards").exporter(exporter).on_error(|_| {}).build().unwrap()
}

fn start(telemetry: &TelemetryGuard) -> Span {
    Context::background().with_tracer(telemetry.tracer()).span("reserve").kind(SpanKind::Client).start()
}

const BOTH: [Protocol; 2] = [Protocol::HttpProtobuf, Protocol::Grpc];

#[tokio::test]
async fn the_collector_receives_the_spans_that_were_recorded() {
    for protocol in BOTH {
        let collector = Collector::default();
        let telemetry = exporting(protocol, &collector, Config::default()).await;
        let root = Context::background().with_tracer(telemetry.tracer()).span("root").start();
        let span = root.span("reserve").kind(SpanKind::Client).attribute("amount", 7).start();
        span.set_attribute("cards", vec!["a", "b"]);
        span.add_event("locked", [("by", "audit")]);
        span.add_link(root.span_context().unwrap().clone());
        span.set_status(Status::Error("no".into()));
        let (ours, parent) = (span.span_context().unwrap().clone(), root.span_context().unwrap().clone());
        span.end();
        root.end();
        telemetry.shutdown(PATIENCE).await.unwrap();

        let received = collector.received();
        assert_eq!(received.len(), 2);
        let (service, span) = &received[0];
        assert_eq!((service.as_str(), span.name.as_str(), span.kind), ("cards", "reserve", 3));
        assert_eq!(span.trace_id, ours.trace_id().to_bytes());
        assert_eq!(span.span_id, ours.span_id().to_bytes());
        assert_eq!(span.parent_span_id, parent.span_id().to_bytes());
        assert_eq!(span.flags, 0x101, "sampled, and known not to be remote");
        assert!(
            span.end_time_unix_nano >= span.start_time_unix_nano
                && span.start_time_unix_nano > 1_600_000_000_000_000_000
        );
        let value = |key: &str| span.attributes.iter().find(|a| a.key == key).and_then(|a| a.value.clone()?.value);
        assert_eq!(value("amount"), Some(Value::IntValue(7)));
        let Some(Value::ArrayValue(cards)) = value("cards") else { panic!("an array") };
        assert_eq!(cards.values.len(), 2);
        assert_eq!((span.events[0].name.as_str(), span.events[0].attributes.len()), ("locked", 1));
        assert_eq!(span.links[0].span_id, parent.span_id().to_bytes());
        let status = span.status.as_ref().unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, "no"));
    }
}

#[tokio::test]
async fn retryable_responses_are_retried() {
    // 14 is gRPC's UNAVAILABLE.
    for (protocol, refusals) in [(Protocol::HttpProtobuf, &[429, 502, 503, 504][..]), (Protocol::Grpc, &[14, 4, 1])] {
        let collector = Collector::default();
        let telemetry = exporting(protocol, &collector, Config::default()).await;
        for refusal in refusals {
            collector.replies.lock().unwrap().push_back(Reply::Refuse(*refusal, Some("0")));
        }
        start(&telemetry).end();
        telemetry.shutdown(PATIENCE).await.unwrap();
        assert_eq!((collector.attempts(), collector.received().len()), (refusals.len() + 1, 1));
    }
}

#[tokio::test]
async fn a_batch_that_is_refused_permanently_is_dropped_and_counted() {
    // 3 is gRPC's INVALID_ARGUMENT. 8 is RESOURCE_EXHAUSTED, here without a retry delay.
    for (protocol, refusal) in
        [(Protocol::HttpProtobuf, 400), (Protocol::HttpProtobuf, 500), (Protocol::Grpc, 3), (Protocol::Grpc, 8)]
    {
        let collector = Collector::default();
        let telemetry = exporting(protocol, &collector, Config::default()).await;
        collector.replies.lock().unwrap().push_back(Reply::Refuse(refusal, None));
        start(&telemetry).end();
        let error = telemetry.shutdown(PATIENCE).await.unwrap_err();
        assert_eq!(error.stats.dropped_because(DropReason::ExportFailed), 1);
        assert_eq!(collector.attempts(), 1);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_its_batch_is_dropped() {
    for status in [301, 302, 303, 307, 308] {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let login = async move || {
            count.fetch_add(1, SeqCst);
            "<html>who are you?</html>"
        };
        let moved = (StatusCode::from_u16(status).unwrap(), [(LOCATION, "/login")]);
        let app = Router::new().route("/v1/traces", post(async move || moved)).route("/login", any(login));
        let url = format!("http://{}/v1/traces", serve(app).await);
        let exporter = OtlpExporter::new(Protocol::HttpProtobuf, &url, Config::default()).unwrap();
        let telemetry = telemetry::builder("cards").exporter(exporter).on_error(|_| {}).build().unwrap();
        start(&telemetry).end();
        let error = telemetry.shutdown(PATIENCE).await.unwrap_err();
        assert_eq!(error.stats.dropped_because(DropReason::ExportFailed), 1, "{status}");
        assert_eq!(requests.load(SeqCst), 0, "{status}");
    }
}

#[tokio::test]
async fn a_partially_rejected_batch_is_counted_and_not_sent_again() {
    for protocol in BOTH {
        let collector = Collector::default();
        let telemetry = exporting(protocol, &collector, Config::default()).await;
        collector.replies.lock().unwrap().push_back(Reply::Partial(2));
        (0..5).for_each(|_| start(&telemetry).end());
        let error = telemetry.shutdown(PATIENCE).await.unwrap_err();
        assert_eq!((error.stats.exported, error.stats.dropped_because(DropReason::Rejected)), (3, 2));
        assert_eq!(collector.attempts(), 1);
    }
}

#[tokio::test]
async fn r11_an_unreachable_receiver_loses_a_batch_after_the_export_timeout() {
    for protocol in BOTH {
        let url = if protocol == Protocol::Grpc { "http://127.0.0.1:1" } else { "http://127.0.0.1:1/v1/traces" };
        let exporter = OtlpExporter::new(protocol, url, Config::default()).unwrap();
        let builder = telemetry::builder("cards").exporter(exporter).on_error(|_| {});
        let telemetry = builder.export_timeout(Duration::from_millis(300)).build().unwrap();
        start(&telemetry).end();
        let error = telemetry.force_flush(PATIENCE).await.unwrap_err();
        assert_eq!(error.stats.dropped_because(DropReason::ExportTimeout), 1);
        telemetry.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn messages_do_not_show_the_credentials_of_an_endpoint() {
    for protocol in BOTH {
        let refusing = Collector::default();
        let status = if protocol == Protocol::Grpc { 3 } else { 400 };
        refusing.replies.lock().unwrap().push_back(Reply::Refuse(status, None));
        let refusing = if protocol == Protocol::Grpc { refusing.grpc().await } else { refusing.http().await };
        for address in ["127.0.0.1:1".parse().unwrap(), refusing] {
            let url = format!("http://user:secret@{address}/v1/traces");
            let config = Config { timeout: Duration::from_millis(300), ..Config::default() };
            let exporter = OtlpExporter::new(protocol, &url, config).unwrap();
            let (sender, message) = mpsc::channel();
            let send_message = move |error: &ExportError| sender.send(error.to_string()).unwrap();
            let telemetry = telemetry::builder("cards").exporter(exporter).on_error(send_message).build().unwrap();
            start(&telemetry).end();
            telemetry.shutdown(PATIENCE).await.unwrap_err();
            let message = message.recv().unwrap();
            assert!(message.contains(&address.to_string()), "{message}");
            assert!(!message.contains("user") && !message.contains("secret"), "{message}");
        }
        for url in ["https://user:secret@collector:4318", "user:secret@collector:4318"] {
            let error = OtlpExporter::new(protocol, url, Config::default()).unwrap_err().to_string();
            assert!(error.contains("collector:4318") && !error.contains("secret"), "{error}");
        }
    }
}

#[tokio::test]
async fn configured_headers_are_sent_with_every_request() {
    for protocol in BOTH {
        let collector = Collector::default();
        let mut config = Config::default();
        config.headers.insert("x-tenant", "acme".parse().unwrap());
        let telemetry = exporting(protocol, &collector, config).await;
        start(&telemetry).end();
        telemetry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(collector.headers.lock().unwrap()[0]["x-tenant"], "acme");
    }
}

#[tokio::test]
async fn every_request_has_the_user_agent_of_the_exporter() {
    for protocol in BOTH {
        let collector = Collector::default();
        let telemetry = exporting(protocol, &collector, Config::default()).await;
        start(&telemetry).end();
        telemetry.shutdown(PATIENCE).await.unwrap();
        let headers = collector.headers.lock().unwrap();
        let agent = headers[0]["user-agent"].to_str().unwrap();
        assert!(agent.starts_with(concat!("throughline-otlp-exporter-rust/", env!("CARGO_PKG_VERSION"))), "{agent}");
    }
}

#[tokio::test]
async fn credentials_in_an_endpoint_are_sent_as_a_header() {
    for protocol in BOTH {
        let collector = Collector::default();
        let address = if protocol == Protocol::Grpc { collector.grpc().await } else { collector.http().await };
        let url = format!("http://user:se%40cret@{address}/v1/traces");
        let exporter = OtlpExporter::new(protocol, &url, Config::default()).unwrap();
        let telemetry = telemetry::builder("cards").exporter(exporter).build().unwrap();
        start(&telemetry).end();
        telemetry.shutdown(PATIENCE).await.unwrap();
        // "user:se@cret" in base64.
        assert_eq!(collector.headers.lock().unwrap()[0]["authorization"], "Basic dXNlcjpzZUBjcmV0");
    }
}

#[test]
fn debug_does_not_show_header_values() {
    let mut config = Config::default();
    config.headers.insert("x-api-key", "secret".parse().unwrap());
    let shown = format!("{config:?}");
    assert!(shown.contains("x-api-key") && !shown.contains("secret"), "{shown}");
    let exporter = OtlpExporter::new(Protocol::Grpc, "http://user:secret@localhost:4317", config).unwrap();
    let shown = format!("{exporter:?}");
    let shown = format!("{shown} {:?}", telemetry::builder("cards").exporter(exporter));
    assert!(!shown.contains("secret"), "{shown}");
}

/// Proxy variables apply to a whole process, so these tests run in their own processes.
const PROXIES: [&str; 3] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY"];

#[tokio::test]
async fn a_collector_on_this_host_is_reached_without_a_proxy() {
    let test = "telemetry::otlp::a_collector_on_this_host_is_reached_without_a_proxy";
    // No proxy listens there.
    if !is_own_process(test, &PROXIES.map(|name| (name, "http://127.0.0.1:1"))) {
        return;
    }
    for protocol in BOTH {
        let collector = Collector::default();
        let address = if protocol == Protocol::Grpc { collector.grpc().await } else { collector.http().await };
        let hosts = ["127.0.0.1", "localhost", "LOCALHOST", "[::ffff:127.0.0.1]"];
        for host in hosts {
            let url = format!("http://{host}:{}/v1/traces", address.port());
            let exporter = OtlpExporter::new(protocol, &url, Config::default()).unwrap();
            let telemetry = telemetry::builder("cards").exporter(exporter).on_error(|_| {}).build().unwrap();
            start(&telemetry).end();
            telemetry.shutdown(PATIENCE).await.unwrap_or_else(|e| panic!("{protocol:?} {host}: {e}"));
        }
        assert_eq!(collector.received().len(), hosts.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_on_another_host_is_reached_through_the_proxy() {
    let test = "telemetry::otlp::a_collector_on_another_host_is_reached_through_the_proxy";
    // The collector acts as the proxy: it gets the request for another host.
    let proxy = Collector::default();
    let url = format!("http://user:secret@{}", proxy.http().await);
    if !tokio::task::block_in_place(|| is_own_process(test, &PROXIES.map(|name| (name, url.as_str())))) {
        assert_eq!(proxy.received().len(), 1);
        let headers = &proxy.headers.lock().unwrap()[0];
        assert_eq!(headers["host"], "collector.example:4318");
        assert_eq!(headers["proxy-authorization"], "Basic dXNlcjpzZWNyZXQ=");
        return;
    }
    let url = "http://collector.example:4318/v1/traces";
    let exporter = OtlpExporter::new(Protocol::HttpProtobuf, url, Config::default()).unwrap();
    let telemetry = telemetry::builder("cards").exporter(exporter).build().unwrap();
    start(&telemetry).end();
    telemetry.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn one_connection_serves_all_batches() {
    for protocol in BOTH {
        let collector = Collector::default();
        let telemetry = exporting(protocol, &collector, Config::default()).await;
        for _ in 0..20 {
            start(&telemetry).end();
            telemetry.force_flush(PATIENCE).await.unwrap();
        }
        telemetry.shutdown(PATIENCE).await.unwrap();
        assert_eq!(collector.received().len(), 20);
        assert_eq!(collector.peers(), 1, "{protocol:?}");
    }
}
