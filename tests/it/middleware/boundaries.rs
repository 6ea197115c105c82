//! What crosses a trust boundary, and drops whose cause is easy to get wrong.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::Command;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use throughline::trace::Status;
use throughline::{Cause, ClientLayer, Code, Context, ContextLayer, ReplyReserve, SendWith, SpanRecord};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::{Traced, client, events, number, serve, text};

async fn baggage(Extension(ctx): Extension<Context>) -> String {
    ctx.baggage().get("tenant").unwrap_or_default().into_owned()
}

async fn names(headers: HeaderMap) -> String {
    headers.keys().map(|name| name.as_str()).collect::<Vec<_>>().join(" ")
}

fn with_tenant() -> Context {
    let ctx = Context::background();
    ctx.with_baggage(ctx.baggage().insert("tenant", "acme").unwrap()).with_timeout(Duration::from_secs(10))
}

#[tokio::test]
async fn baggage_is_sent_to_internal_services_and_an_edge_ignores_it() {
    for (layer, seen) in [(ContextLayer::internal(), "acme"), (ContextLayer::edge(), "")] {
        let address = serve(Router::new().route("/", get(baggage)).layer(layer)).await;
        let request = reqwest::Client::new().get(format!("http://{address}/"));
        let response = request.send_with(&with_tenant(), &client()).await.unwrap();
        assert_eq!(response.text().await.unwrap(), seen);
    }
}

/// `OTEL_PROPAGATORS` holds for a whole process, so the test starts a process with it.
#[test]
fn the_default_formats_come_from_otel_propagators() {
    const NAMES: &str = "b3,ottrace,baggage";
    if std::env::var("OTEL_PROPAGATORS").is_ok_and(|names| names == NAMES) {
        return tokio::runtime::Runtime::new().unwrap().block_on(propagates_by_b3_only());
    }
    let again = "the_default_formats_come_from_otel_propagators";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args([again, "--nocapture"]).env("OTEL_PROPAGATORS", NAMES).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
    let expected = "throughline: ignoring an unknown propagator in OTEL_PROPAGATORS: \"ottrace\"\n";
    assert_eq!(err.matches(expected).count(), 1, "{err}");
}

async fn propagates_by_b3_only() {
    let traced = Traced::new("api");
    let caller = with_tenant().with_tracer(traced.telemetry.tracer()).span("call").start();
    let seen = |Extension(ctx): Extension<Context>, headers: HeaderMap| async move {
        let trace_id = ctx.span_context().unwrap().trace_id();
        format!("{trace_id} {} {}", headers.contains_key("b3"), headers.contains_key("traceparent"))
    };
    let address = serve(Router::new().route("/", get(seen)).layer(traced.internal())).await;
    let request = reqwest::Client::new().get(format!("http://{address}/"));
    let response = request.send_with(&caller, &client()).await.unwrap();
    assert_eq!(response.text().await.unwrap(), format!("{} true false", caller.span_context().unwrap().trace_id()));
}

#[tokio::test]
async fn a_forwarded_request_has_no_internal_headers_for_an_external_host() {
    let address = serve(Router::new().route("/", get(names))).await;
    let forwarded = reqwest::Client::new().get(format!("http://{address}/"));
    let forwarded = forwarded.header("baggage", "tenant=acme").header("grpc-timeout", "1H").header("tracestate", "a=1");
    let response = forwarded.send_with(&with_tenant(), &ClientLayer::external()).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "traceparent accept host");
}

#[tokio::test]
async fn a_response_after_a_redirect_has_the_final_url() {
    let moved = || async { axum::response::Redirect::to("/there") };
    let app = Router::new().route("/", get(moved)).route("/there", get(|| async { "here" }));
    let request = reqwest::Client::new().get(format!("http://{}/", serve(app).await));
    let response = request.send_with(&Context::background(), &client()).await.unwrap();
    assert_eq!(response.url().path(), "/there");
}

/// The span of a request to a handler that never responds, dropped after `after`.
async fn dropped_after(service: &Traced, layer: ContextLayer, after: Duration) -> SpanRecord {
    let hanging = service_fn(|_: Request<()>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let request = Request::get("/").header("grpc-timeout", "100S").body(()).unwrap();
    let mut call = Box::pin(layer.layer(hanging).oneshot(request));
    assert!(call.as_mut().now_or_never().is_none());
    tokio::time::advance(after).await;
    drop(call);
    tokio::time::resume();
    service.span().await
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_before_the_callers_reserve_is_a_disconnect_even_near_the_maximum() {
    let service = Traced::new("cards");
    // The caller's reserve is 5 s; the layer's maximum is 3 s.
    let reserve = ReplyReserve { min: Duration::from_secs(5), percent: 0, max: Duration::MAX };
    let layer = service.internal().reserve(reserve).max_timeout(Duration::from_secs(3));
    let span = dropped_after(&service, layer, Duration::from_secs(1)).await;
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("client_disconnected"));
}

#[tokio::test(start_paused = true)]
async fn a_drop_within_the_callers_reserve_is_a_deadline() {
    // The reserve of 100 s is 50 ms.
    for (after, cause) in
        [(99_949, "client_disconnected"), (99_950, "deadline_exceeded"), (101_000, "deadline_exceeded")]
    {
        let service = Traced::new("cards");
        let span = dropped_after(&service, service.internal(), Duration::from_millis(after)).await;
        assert_eq!(text(&span, "throughline.cancel.cause"), Some(cause), "after {after} ms");
        tokio::time::pause();
    }
}

#[tokio::test]
async fn a_panic_that_an_outer_layer_catches_is_recorded_as_a_panic() {
    let service = Traced::new("cards");
    let panicking = service_fn(|request: Request<()>| async move {
        assert!(request.extensions().get::<Context>().is_none(), "a handler that panics");
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let mut call = Box::pin(service.internal().layer(panicking).oneshot(Request::new(())));
    let caught = poll_fn(|cx| Poll::Ready(catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))).is_err())).await;
    assert!(caught);
    drop(call);
    let span = service.span().await;
    assert_eq!((text(&span, "error.type"), text(&span, "throughline.cancel.cause")), (Some("panic"), Some("panicked")));
}

#[tokio::test]
async fn a_response_without_a_body_on_the_wire_has_ended_when_it_is_dropped() {
    for (status, ended) in [(204, "request_finished"), (304, "request_finished"), (200, "client_disconnected")] {
        let service = Traced::new("cards");
        let responding = service_fn(move |_: Request<()>| async move {
            let mut response =
                Response::new(Body::from_stream(futures_util::stream::pending::<Result<String, Infallible>>()));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok::<_, Infallible>(response)
        });
        let seen = Mutex::new(None);
        let mut service_of = service.internal().layer(responding.map_request(|request: Request<()>| {
            *seen.lock().unwrap() = request.extensions().get::<Context>().cloned();
            request
        }));
        drop(service_of.call(Request::new(())).await.unwrap());
        let ctx = seen.lock().unwrap().take().unwrap();
        assert_eq!(ctx.cause().unwrap().name(), ended, "{status}");
    }
}

fn always_ready() -> Body {
    Body::from_stream(futures_util::stream::repeat(Ok::<_, Infallible>("more")))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_ends_with_its_request() {
    for is_late in [true, false] {
        let (service, base) = (Traced::new("cards"), Context::background().with_cancel());
        let responding = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(always_ready())) });
        let request = Request::get("/").header("grpc-timeout", "1S").body(()).unwrap();
        let layer = service.edge().base(&base);
        let mut body = Box::pin(layer.layer(responding).oneshot(request).await.unwrap().into_body());
        if is_late {
            tokio::time::advance(Duration::from_secs(1)).await;
        } else {
            base.cancel_with(Cause::Shutdown);
        }
        assert!(body.frame().await.unwrap().is_ok(), "the frame was ready in time");
        assert!(body.frame().await.unwrap().is_err());
        drop(body);
        tokio::time::resume();
        let cause = if is_late { "deadline_exceeded" } else { "shutdown" };
        assert_eq!(text(&service.span().await, "throughline.cancel.cause"), Some(cause));
        tokio::time::pause();
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_ends_with_its_call() {
    let responding = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(always_ready())) });
    for is_late in [true, false] {
        let (caller, base) = (Traced::new("api"), Context::background().with_cancel());
        let ctx = base.with_tracer(caller.telemetry.tracer()).with_timeout(Duration::from_secs(1));
        let mut request = Request::new(());
        request.extensions_mut().insert(ctx);
        let mut body = Box::pin(client().layer(responding).oneshot(request).await.unwrap().into_body());
        if is_late {
            tokio::time::advance(Duration::from_secs(1)).await;
        } else {
            base.cancel_with(Cause::Shutdown);
        }
        assert!(body.frame().await.unwrap().is_ok(), "the frame was ready in time");
        let code = body.frame().await.unwrap().unwrap_err().code();
        assert_eq!(code, if is_late { Code::DeadlineExceeded } else { Code::Cancelled });
        drop(body);
        tokio::time::resume();
        let span = caller.span().await;
        assert_eq!(events(&span), ["throughline.cancelled"]);
        tokio::time::pause();
    }
}

#[tokio::test]
async fn a_body_that_fails_half_way_is_a_failure_of_the_service_and_not_a_disconnect() {
    let own_error = || std::io::Error::from(throughline::Error::new(Code::DataLoss, "the disk is gone"));
    for (error, error_type) in [(std::io::Error::other("the disk is gone"), "_OTHER"), (own_error(), "DATA_LOSS")] {
        let service = Traced::new("files");
        let seen = Mutex::new(None);
        let failing = Mutex::new(Some(Body::from_stream(futures_util::stream::iter([Ok("half"), Err(error)]))));
        let responding = service_fn(|request: Request<()>| {
            *seen.lock().unwrap() = request.extensions().get::<Context>().cloned();
            let body = failing.lock().unwrap().take().unwrap();
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        });
        let body = service.internal().layer(responding).oneshot(Request::new(())).await.unwrap().into_body();
        assert!(body.collect().await.is_err());
        assert_eq!(seen.lock().unwrap().take().unwrap().cause().unwrap().name(), "request_finished");
        let span = service.span().await;
        assert_eq!(text(&span, "error.type"), Some(error_type));
        assert!(matches!(span.status, Status::Error(_)));
        assert_eq!(text(&span, "throughline.cancel.cause"), None);
        assert_eq!(span.events.iter().map(|event| event.name.as_ref()).collect::<Vec<_>>(), ["exception"]);
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_is_abandoned_and_not_an_error() {
    let caller = Traced::new("api");
    let hanging = service_fn(|_: Request<()>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let mut request = Request::new(());
    request.extensions_mut().insert(Context::background().with_tracer(caller.telemetry.tracer()));
    {
        let mut call = pin!(client().layer(hanging).oneshot(request));
        assert!(call.as_mut().now_or_never().is_none());
    }
    let span = caller.span().await;
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("abandoned"));
    assert_eq!(text(&span, "error.type"), None);
}

#[tokio::test]
async fn an_empty_response_that_is_not_read_has_ended() {
    let caller = Traced::new("api");
    let responding = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let mut request = Request::new(());
    request.extensions_mut().insert(Context::background().with_tracer(caller.telemetry.tracer()));
    drop(client().layer(responding).oneshot(request).await.unwrap());
    assert_eq!(text(&caller.span().await, "throughline.cancel.cause"), None);
}

#[tokio::test]
async fn a_call_without_a_port_has_the_default_port_of_its_scheme() {
    for (url, port) in [("http://cards/", 80.0), ("https://cards/", 443.0), ("https://cards:8443/", 8443.0)] {
        let caller = Traced::new("api");
        let responding = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let mut request = Request::get(url).body(()).unwrap();
        request.extensions_mut().insert(Context::background().with_tracer(caller.telemetry.tracer()));
        drop(client().layer(responding).oneshot(request).await.unwrap());
        assert_eq!(number(&caller.span().await, "server.port"), Some(port), "{url}");
    }
}
