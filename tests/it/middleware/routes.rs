//! Options for single routes, names of routes, and requests with too little time.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use throughline::{Context, ContextLayer, Ctx, OnDisconnect, Route, StreamCtx};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::{Traced, events, text};

const SECOND: Duration = Duration::from_secs(1);

/// The deadlines that the handler sees: of its context, and of the whole exchange.
async fn deadlines(Ctx(ctx): Ctx, StreamCtx(whole): StreamCtx) -> String {
    format!("{:?} {:?}", ctx.remaining(), whole.remaining())
}

async fn ask(app: &Router, path: &str, timeout: Option<&str>) -> Response<Body> {
    let mut request = Request::get(path);
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn text_of(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_route_has_limits_of_its_own_but_never_lengthens_the_callers_timeout() {
    let routes = |layer: ContextLayer| {
        layer
            .route("/slow/{id}", Route::new().timeout(SECOND * 300))
            .route("/fast/{id}", Route::new().timeout(SECOND * 5))
            .route("/free/{id}", Route::new().no_timeout())
            .default_timeout(SECOND * 50)
    };
    let app = |layer| {
        let handler = || get(deadlines);
        Router::new()
            .route("/{name}/7", handler())
            .route("/slow/{id}", handler())
            .route("/fast/{id}", handler())
            .route("/free/{id}", handler())
            .layer(routes(layer))
    };
    for (path, sent, seen) in [
        ("/other/7", None, "Some(50s) None"),
        ("/slow/8", None, "Some(300s) None"),
        ("/fast/8", None, "Some(5s) None"),
        ("/free/8", None, "None None"),
        ("/slow/8", Some("2S"), "Some(2s) Some(2s)"),
        ("/fast/8", Some("2S"), "Some(2s) Some(2s)"),
        ("/free/8", Some("2S"), "Some(2s) Some(2s)"),
        ("/fast/8", Some("9S"), "Some(5s) Some(9s)"),
        ("/slow/8", Some("1H"), "Some(300s) Some(3600s)"),
    ] {
        for layer in [ContextLayer::edge(), ContextLayer::internal().max_timeout(SECOND * 60)] {
            assert_eq!(text_of(ask(&app(layer), path, sent).await).await, seen, "{path} {sent:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_without_a_limit_may_take_any_time_until_its_head_and_between_frames() {
    let handler = || async {
        sleep(SECOND * 1000).await;
        let frames = stream::unfold(0, async |sent| {
            sleep(SECOND * 1000).await;
            (sent < 2).then_some((Ok::<_, Infallible>("frame"), sent + 1))
        });
        Response::new(Body::from_stream(frames))
    };
    let layer = ContextLayer::edge().route("/export", Route::new().no_timeout());
    let app = Router::new().route("/export", get(handler)).layer(layer);
    assert_eq!(text_of(ask(&app, "/export", None).await).await, "frameframe");
    // The caller's own timeout holds.
    let start = Instant::now();
    let response = ask(&app, "/export", Some("1500S")).await;
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(start.elapsed(), SECOND * 1500);
}

#[tokio::test(start_paused = true)]
async fn the_limit_for_a_frame_can_differ_from_the_one_for_the_head() {
    let handler = || async {
        sleep(SECOND * 20).await;
        Response::new(Body::from_stream(stream::pending::<Result<&str, Infallible>>()))
    };
    let layer = ContextLayer::edge().route("/watch", Route::new().stall_timeout(SECOND * 5));
    let app = Router::new().route("/watch", get(handler)).layer(layer);
    let start = Instant::now();
    assert!(ask(&app, "/watch", None).await.into_body().collect().await.is_err());
    assert_eq!(start.elapsed(), SECOND * 25);
}

#[tokio::test]
async fn only_the_routes_that_say_so_go_on_after_a_disconnect() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let handler = move |Ctx(ctx): Ctx| async move {
        sender.send(ctx).unwrap();
        std::future::pending::<()>().await;
    };
    let layer = ContextLayer::internal().route("/charge", Route::new().on_disconnect(OnDisconnect::Detach));
    let app = Router::new().route("/charge", get(handler.clone())).route("/quote", get(handler)).layer(layer);
    for (path, is_done) in [("/charge", false), ("/quote", true)] {
        let mut request = Box::pin(ask(&app, path, None));
        let ctx = tokio::select! {
            _ = request.as_mut() => unreachable!("the handler never responds"),
            ctx = receiver.recv() => ctx.unwrap(),
        };
        drop(request);
        assert_eq!(ctx.is_done(), is_done, "{path}");
    }
}

#[tokio::test]
async fn a_health_check_records_no_spans_and_its_errors_still_name_the_service() {
    let service = Traced::new("cards");
    let handler = |Ctx(ctx): Ctx| async move {
        let _below = ctx.span("check the disk").start();
        assert!(!ctx.current_span().is_recording());
        Err::<(), _>(throughline::Error::new(throughline::Code::Unavailable, "the disk is full"))
    };
    let layer = service.internal().route("/healthz", Route::new().unrecorded());
    let app = Router::new().route("/healthz", get(handler)).route("/cards", get(|| async {})).layer(layer);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = Request::get("/healthz").header("traceparent", parent).body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let problem: serde_json::Value = serde_json::from_str(&text_of(response).await).unwrap();
    assert_eq!(problem["origin"], "cards");
    text_of(ask(&app, "/cards", None).await).await;
    assert_eq!(service.span().await.name, "GET /cards", "the only span");
}

/// Asks a service with `layer` on `/quote`, with a timeout. The service counts its calls.
fn counted(layer: &ContextLayer) -> (Arc<AtomicUsize>, impl AsyncFn(Option<&'static str>) -> StatusCode) {
    let calls = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&calls);
    let service = layer.layer(service_fn(move |request: Request<Body>| {
        count.fetch_add(1, Ordering::Relaxed);
        assert!(!request.extensions().get::<Context>().unwrap().is_done());
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
    }));
    let ask = async move |timeout: Option<&'static str>| {
        let mut request = Request::get("/quote");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        service.clone().call(request.body(Body::empty()).unwrap()).await.unwrap().status()
    };
    (calls, ask)
}

#[tokio::test]
async fn a_request_with_less_time_than_its_route_needs_is_shed() {
    let service = Traced::new("quotes");
    let layer = service.internal().route("/quote", Route::new().min_remaining(SECOND * 2));
    let (calls, ask) = counted(&layer);
    for (timeout, status, shed) in [(None, 200, 0), (Some("2S"), 200, 0), (Some("1999m"), 504, 1), (Some("0S"), 504, 2)]
    {
        assert_eq!((ask(timeout).await.as_u16(), layer.shed_count()), (status, shed), "{timeout:?}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let spans = service.spans(4).await;
    let shown: Vec<_> = spans.iter().map(|span| (text(span, "throughline.shed"), events(span))).collect();
    assert_eq!(shown[2], (Some("too little time"), vec!["throughline.shed"]));
    assert_eq!(shown[3], (Some("dead on arrival"), vec!["throughline.shed"]));
    assert_eq!(text(&spans[2], "throughline.cancel.cause"), Some("deadline_exceeded"));
    assert_eq!(text(&spans[2], "throughline.error.code"), Some("DEADLINE_EXCEEDED"));
}

#[tokio::test(start_paused = true)]
async fn at_most_a_part_of_the_requests_of_ten_seconds_is_shed() {
    let layer = ContextLayer::internal().max_timeout(SECOND * 60).max_shed_percent(20);
    let (calls, ask) = counted(&layer);
    for _ in 0..8 {
        assert_eq!(ask(None).await, 200);
    }
    // Of 10 requests 2 may be shed, of 15 requests 3. An expired timeout is ignored beyond that.
    let statuses = async || {
        let mut shed = 0;
        for _ in 0..10 {
            shed += usize::from(ask(Some("0S")).await == 504);
        }
        shed
    };
    assert_eq!((statuses().await, layer.shed_count(), layer.spared_count()), (3, 3, 7));
    tokio::time::advance(SECOND * 5).await;
    assert_eq!(statuses().await, 2, "of 28 requests 5 may be shed");
    tokio::time::advance(SECOND * 10).await;
    assert_eq!(statuses().await, 2, "the ten seconds are over");
    assert_eq!(calls.load(Ordering::Relaxed), 8 + 7 + 8 + 8);
    for _ in 0..3 {
        tokio::time::advance(SECOND * 1000).await;
        assert_eq!(statuses().await, 2);
    }
}

#[tokio::test]
async fn a_dry_run_sheds_nothing_and_counts() {
    let route = Route::new().min_remaining(SECOND * 2);
    let layer = ContextLayer::internal().route("/quote", route).shed_dry_run();
    let (calls, ask) = counted(&layer);
    for timeout in [None, Some("1S"), Some("0S"), Some("3S")] {
        assert_eq!(ask(timeout).await, 200);
    }
    assert_eq!((calls.load(Ordering::Relaxed), layer.shed_count(), layer.spared_count()), (4, 0, 2));
}

#[tokio::test]
async fn a_base_that_is_done_refuses_requests_also_in_a_dry_run() {
    let process = Context::background().with_cancel();
    let layer = ContextLayer::internal().base(&process).shed_dry_run();
    let (calls, ask) = counted(&layer);
    process.cancel();
    assert_eq!((ask(Some("1S")).await.as_u16(), layer.shed_count(), calls.load(Ordering::Relaxed)), (503, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hook_names_the_routes_of_a_service_without_axum() {
    let service = Traced::new("cards");
    let layer = service
        .edge()
        .route_fn(|head| head.uri.path().starts_with("/cards/").then_some("/cards/{id}".into()))
        .route("/cards/{id}", Route::new().timeout(SECOND * 7))
        .route("/cards.Cards/Get", Route::new().timeout(SECOND * 8));
    let handler = service_fn(async |request: Request<Body>| {
        let ctx = request.extensions().get::<Context>().unwrap();
        Ok::<_, Infallible>(Response::new(Body::from(format!("{:?}", ctx.remaining()))))
    });
    for (path, seen) in [("/cards/7", "Some(7s)"), ("/cards.Cards/Get", "Some(8s)"), ("/other", "Some(60s)")] {
        let response = layer.layer(handler).oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, seen, "{path}");
    }
    let mut shown: Vec<_> = service.spans(3).await;
    shown.sort_by_key(|span| std::cmp::Reverse(span.name.len()));
    assert_eq!((&*shown[0].name, text(&shown[0], "http.route")), ("GET /cards/{id}", Some("/cards/{id}")));
    assert_eq!((&*shown[1].name, text(&shown[1], "http.route")), ("GET", None));
}
