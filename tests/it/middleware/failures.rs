//! Sources of errors are visible inside the process, and not outside.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex};

use axum::body::Body;
use axum::http::{Request, Response};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use http_body_util::BodyExt;
use throughline::trace::Status;
use throughline::{Code, Context, ContextLayer, Error, SpanRecord};
use tower::{Layer, Service, ServiceExt, service_fn};
use tracing::field::{Field, Visit};
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::layer::{Context as Scope, SubscriberExt};

use crate::support::grpc::{call_grpc, serve_grpc};
use crate::support::{Traced, client, serve, text};

/// The lines of the log: level, error, and whether they have a trace.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Level, String, bool)>>>);

impl<S: Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Scope<'_, S>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "error" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        if event.metadata().target() == "throughline::error" {
            let mut text = Text(String::new());
            event.record(&mut text);
            let has_trace = Context::current().span_context().is_some();
            self.0.lock().unwrap().push((*event.metadata().level(), text.0, has_trace));
        }
    }
}

/// Sets the subscriber of this thread.
///
/// Two others live as long as the process. While there is only one in a process, `tracing` lets the
/// first thread that reaches a callsite decide for all threads whether it is enabled, and that
/// thread may have no subscriber.
fn subscribe(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    static OTHERS: LazyLock<[Dispatch; 2]> = LazyLock::new(|| [(); 2].map(|()| Dispatch::new(NoSubscriber::default())));
    LazyLock::force(&OTHERS);
    tracing::subscriber::set_default(subscriber)
}

fn exceptions(span: &SpanRecord) -> Vec<String> {
    let all = span.events.iter().filter(|event| event.name == "exception");
    all.map(|event| event.attributes.get("exception.message").unwrap().as_str().unwrap().to_owned()).collect()
}

fn orphan() -> std::io::Error {
    std::io::Error::other("row 7 of users has no owner")
}

/// The response of `handler`, its span and its log lines, with the layer for `tracing`.
async fn observed(handler: fn() -> axum::response::Response) -> (String, SpanRecord, Vec<(Level, String, bool)>) {
    let (service, lines) = (Traced::new("cards"), Lines::default());
    let subscriber = tracing_subscriber::registry().with(service.telemetry.layer()).with(lines.clone());
    let _default = subscribe(subscriber);
    let handler = service_fn(move |_: Request<Body>| std::future::ready(Ok::<_, Infallible>(handler())));
    let response = service.internal().layer(handler).oneshot(Request::new(Body::empty())).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let lines = lines.0.lock().unwrap().clone();
    (String::from_utf8_lossy(&body).into_owned(), service.span().await, lines)
}

#[tokio::test]
async fn the_source_of_an_error_is_on_the_span_and_in_the_log_and_not_in_the_response() {
    let (body, span, lines) = observed(|| Error::wrap(Code::Internal, orphan()).into_response()).await;
    assert!(body.contains("internal error") && !body.contains("row 7"), "{body}");
    let shown = "INTERNAL: internal error: row 7 of users has no owner";
    assert_eq!(exceptions(&span), [shown]);
    assert_eq!(span.status, Status::Error("internal error".into()));
    assert_eq!(lines, [(Level::ERROR, shown.to_owned(), true)]);
}

#[tokio::test]
async fn the_source_of_a_4xx_is_on_the_span_without_an_error_status_and_in_the_log_at_debug() {
    let refuse = || {
        let source = "ten".parse::<u64>().unwrap_err();
        Error::wrap(Code::InvalidArgument, source).with_message("amount is not a number").into_response()
    };
    let (_, span, lines) = observed(refuse).await;
    let shown = "INVALID_ARGUMENT: amount is not a number: invalid digit found in string";
    assert_eq!((exceptions(&span), &span.status), (vec![shown.to_owned()], &Status::Unset));
    assert_eq!(lines, [(Level::DEBUG, shown.to_owned(), true)]);
}

#[tokio::test]
async fn an_error_that_the_handler_has_recorded_is_one_event() {
    let record = || {
        let error = Error::wrap(Code::Internal, orphan());
        Context::current().current_span().record_error(&error);
        error.into_response()
    };
    assert_eq!(exceptions(&observed(record).await.1).len(), 1);
}

#[tokio::test]
async fn a_handlers_own_error_is_shown_although_the_context_is_done() {
    for (error, status, shown) in [
        (Error::new(Code::Internal, "invariant broken"), 500, "INTERNAL: invariant broken"),
        (Error::new(Code::Unavailable, "the pool is empty"), 503, "UNAVAILABLE: the pool is empty"),
        (
            Error::new(Code::DeadlineExceeded, "storage needed 50 ms"),
            503,
            "UNAVAILABLE: shutting down: DEADLINE_EXCEEDED: storage needed 50 ms",
        ),
    ] {
        let (service, lines) = (Traced::new("cards"), Lines::default());
        let _default = subscribe(tracing_subscriber::registry().with(lines.clone()));
        let base = Context::background().with_cancel();
        let layer = service.internal().base(&base);
        let base = Mutex::new(base);
        let handler = service_fn(|_: Request<Body>| {
            base.lock().unwrap().cancel_with(throughline::Cause::Shutdown);
            std::future::ready(Ok::<_, Infallible>(error.clone().into_response()))
        });
        let response = layer.layer(handler).oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), status);
        drop(response);
        assert_eq!(exceptions(&service.span().await), [shown]);
        assert_eq!(*lines.0.lock().unwrap(), [(Level::ERROR, shown.to_owned(), true)]);
    }
}

#[tokio::test]
async fn requests_with_no_time_left_do_not_fill_the_log() {
    let lines = Lines::default();
    let _default = subscribe(tracing_subscriber::registry().with(lines.clone()));
    let service = Traced::new("cards");
    let never = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let request = Request::get("/").header("grpc-timeout", "0n").body(Body::empty()).unwrap();
    let response = service.internal().layer(never).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 504);
    drop(response);
    assert_eq!(exceptions(&service.span().await).len(), 0);
    assert_eq!(lines.0.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_service_that_fails_has_an_error_type_and_its_source_is_shown() {
    type Failure = Box<dyn std::error::Error + Send + Sync>;
    async fn fail<E: Send + Sync + 'static>(error: E) -> SpanRecord {
        let (service, error) = (Traced::new("cards"), Mutex::new(Some(error)));
        let mut failing = service.internal().layer(service_fn(|_: Request<Body>| {
            std::future::ready(Err::<Response<Body>, E>(error.lock().unwrap().take().unwrap()))
        }));
        assert!(failing.call(Request::new(Body::empty())).await.is_err());
        service.span().await
    }
    let boxed = fail::<Failure>(orphan().into()).await;
    assert_eq!((text(&boxed, "error.type"), exceptions(&boxed)), (Some("_OTHER"), vec![orphan().to_string()]));
    let own = fail(Error::wrap(Code::DataLoss, orphan())).await;
    let shown = "DATA_LOSS: data loss: row 7 of users has no owner";
    assert_eq!((text(&own, "error.type"), exceptions(&own)), (Some("DATA_LOSS"), vec![shown.to_owned()]));
    let unknown = fail(7).await;
    assert_eq!((text(&unknown, "error.type"), exceptions(&unknown).len()), (Some("_OTHER"), 0));
    for span in [boxed, own, unknown] {
        assert_eq!(span.status, Status::Error("the service failed".into()));
    }
}

#[tokio::test]
async fn the_source_of_a_status_of_tonic_is_on_the_span() {
    let (service, caller) = (Traced::new("cards"), Traced::new("api"));
    let layer = client().tracer(caller.telemetry.tracer().clone());
    for error in [tonic::Status::from_error(Box::new(orphan())), Error::wrap(Code::Internal, orphan()).into()] {
        let error = Arc::new(Mutex::new(Some(error)));
        let address =
            serve_grpc(service.internal(), move |_| std::future::ready(Err(error.lock().unwrap().take().unwrap())))
                .await;
        call_grpc(&layer, &Context::background(), address, "/cards.Cards/Get", "").await.unwrap_err();
    }
    for span in service.spans(2).await {
        let [exception] = &exceptions(&span)[..] else { panic!("one: {span:?}") };
        assert!(exception.contains("row 7 of users has no owner"), "{exception}");
    }
}

#[tokio::test]
async fn the_span_of_a_refused_connection_has_the_source() {
    use throughline::SendWith;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let caller = Traced::new("api");
    let ctx = Context::background().with_tracer(caller.telemetry.tracer());
    let error = reqwest::Client::new().get(format!("http://{closed}/")).send_with(&ctx, &client()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let [exception] = &exceptions(&caller.span().await)[..] else { panic!("one") };
    assert!(exception.to_lowercase().contains("connection refused"), "{exception}");
}

#[tokio::test]
async fn a_source_below_a_client_is_not_in_the_response_above() {
    let inner = Traced::new("users");
    let failing = || async { Err::<(), _>(Error::wrap(Code::Internal, orphan())) };
    let users = serve(Router::new().route("/", get(failing)).layer(inner.internal())).await;
    let ask = move |Extension(ctx): Extension<Context>| async move {
        use throughline::SendWith;
        reqwest::Client::new().get(format!("http://{users}/")).send_with(&ctx, &client()).await.map(|_| ())
    };
    let api = serve(Router::new().route("/", get(ask)).layer(ContextLayer::edge())).await;
    let body = reqwest::get(format!("http://{api}/")).await.unwrap().text().await.unwrap();
    assert!(!body.contains("row 7"), "{body}");
}
