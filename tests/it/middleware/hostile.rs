//! Hostile headers are not logged, do not fail a request, and are counted.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use throughline::middleware::client::error_for_status;
use throughline::propagation::{Dropped, Format};
use throughline::{ClientLayer, Code, Context, ContextLayer, Error, Propagator};
use tower::{Layer, Service, service_fn};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A mark in every hostile value.
const MARK: &str = "s3cr3t";

/// Counts the bytes that a log of any format must write, and keeps the text.
#[derive(Clone, Default)]
struct Log {
    bytes: Arc<AtomicUsize>,
    text: Arc<Mutex<String>>,
}

impl Log {
    fn write(&self, text: &str) {
        self.bytes.fetch_add(text.len(), Ordering::Relaxed);
        self.text.lock().unwrap().push_str(text);
    }
}

impl Visit for &Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.write(span.metadata().name());
        span.record(&mut &*self);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut &*self);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.write(event.metadata().target());
        event.record(&mut &*self);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Every header that the layer reads, malformed in many ways.
fn hostile() -> Request<()> {
    let mut request = Request::new(());
    let long = |piece: &str, bytes: usize| piece.repeat(bytes / piece.len());
    let lines = [
        ("traceparent", format!("00-{MARK}-\u{e9}")),
        ("tracestate", long(&format!("{MARK}=1,"), 8_000)),
        ("baggage", long(&format!("{MARK}=\u{e9},"), 8_000)),
        ("baggage", format!("k={}", long(MARK, 9_000))),
        ("b3", long(&format!("{MARK}-"), 8_000)),
        ("x-b3-traceid", long(MARK, 8_000)),
        ("x-b3-spanid", MARK.to_owned()),
        ("uber-trace-id", long(&format!("{MARK}%3A"), 8_000)),
        ("x-amzn-trace-id", format!("Root={MARK}")),
        ("grpc-timeout", long(MARK, 8_000)),
        ("grpc-timeout", format!("-1{MARK}")),
        ("throughline-principal", long(&format!("{MARK}%00"), 8_000)),
    ];
    for (name, value) in lines {
        request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request
}

/// Sends `requests` hostile requests through `layer`, and checks that all get a 200.
///
/// The handler logs the size of its context's baggage.
fn serve_all(layer: &ContextLayer, requests: usize) -> Log {
    let log = Log::default();
    let all = [Format::TraceContext, Format::Baggage, Format::B3, Format::Jaeger, Format::XRay];
    let layer = layer.clone().propagator(Propagator::new(all));
    tracing::subscriber::with_default(log.clone(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut service = layer.layer(service_fn(async |request: Request<()>| {
                let ctx = request.extensions().get::<Context>().unwrap();
                assert!(ctx.span_context().is_none_or(|span| !span.is_remote()), "a new trace");
                tracing::info!(members = ctx.baggage().iter().count(), "handled");
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("fine"))))
            }));
            for _ in 0..requests {
                assert_eq!(service.call(hostile()).await.unwrap().status(), 200);
            }
        });
    });
    log
}

#[test]
fn hostile_headers_cost_at_most_200_bytes_of_log_a_request_and_are_not_logged() {
    for layer in [ContextLayer::internal(), ContextLayer::edge()] {
        let log = serve_all(&layer, 100);
        let text = log.text.lock().unwrap();
        assert_eq!(text.matches("handled").count(), 100, "the test sees log lines: {text}");
        assert!(!text.contains(MARK), "{text}");
        let handlers = text.len() / 100;
        assert!(log.bytes.load(Ordering::Relaxed) <= 200 * 100, "{handlers} bytes a request");
    }
}

#[test]
fn dropped_context_is_counted_and_the_request_is_handled() {
    let layer = ContextLayer::internal();
    assert_eq!(layer.dropped_context(), Dropped::default());
    serve_all(&layer, 3);
    let Dropped { spans, trace_states, baggage_members, deadlines, .. } = layer.dropped_context();
    assert_eq!((spans, trace_states, deadlines), (3 * 5, 0, 3 * 2), "without a traceparent the tracestate is not read");
    assert_eq!(baggage_members, 3 * (8_000 / 10 + 1));
}

#[tokio::test]
async fn baggage_beyond_a_layers_own_limit_is_counted_too() {
    let layer = ContextLayer::internal().max_baggage(100, 2);
    let mut service = layer.layer(service_fn(async |request: Request<()>| {
        assert_eq!(request.extensions().get::<Context>().unwrap().baggage().as_str(), "a=1,b=2");
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
    }));
    let request = Request::builder().header("baggage", "a=1,b=2,c=3,d=\u{e9}").body(()).unwrap();
    service.call(request).await.unwrap();
    assert_eq!(layer.dropped_context().baggage_members, 2);
}

#[tokio::test]
async fn the_problem_document_of_an_external_host_is_ignored() {
    let sent =
        Error::new(Code::NotFound, "all accounts are closed").with_retryable(true).through_service(Some("balance"));
    for (layer, code, origin) in
        [(ClientLayer::internal(), Code::NotFound, Some("balance")), (ClientLayer::external(), Code::Unavailable, None)]
    {
        let sent = sent.clone();
        let mut client = layer.layer(service_fn(move |_: Request<()>| {
            let mut response = sent.to_response().map(Full::new);
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            std::future::ready(Ok::<_, Infallible>(response))
        }));
        let response = client.call(Request::new(())).await.unwrap();
        let error = error_for_status(response).await.map(|_| ()).unwrap_err();
        assert_eq!((error.code(), error.origin()), (code, origin));
        assert_eq!(error.message().contains("accounts"), origin.is_some());
    }
}
