//! Places of the layer in a stack, and what it then knows of a request.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use http_body_util::BodyExt;
use serde_json::Value;
use throughline::{Cause, Context, ContextLayer};
use tokio::sync::oneshot;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::cors::CorsLayer;
use tower_http::timeout::TimeoutLayer;

use crate::support::{Traced, number, serve, text};

#[tokio::test]
async fn layers_of_tower_http_work_outside_in_one_builder() {
    let service = Traced::new("cards");
    let stack = || {
        ServiceBuilder::new()
            .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_millis(50)))
            .layer(CorsLayer::permissive())
            .layer(service.internal().outer_layers_may_drop())
    };
    let hanging = get(std::future::pending::<()>);
    let app = Router::new().route("/", get(|| async { "seven" })).route("/hangs", hanging).layer(stack());
    let address = serve(app).await;
    let response = reqwest::get(format!("http://{address}/")).await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert_eq!(response.text().await.unwrap(), "seven");
    let response = reqwest::get(format!("http://{address}/hangs")).await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (408, ""));
    let span = service.spans(2).await.remove(1);
    assert!(text(&span, "throughline.cancel.cause").is_some_and(|cause| cause.eq_ignore_ascii_case("abandoned")));

    // The same without axum.
    let inner = tower::service_fn(async |_: Request<Body>| {
        Ok::<_, std::convert::Infallible>(axum::http::Response::new(Body::from("seven")))
    });
    let response = stack().service(inner).oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "seven");
}

#[tokio::test]
async fn a_layer_around_the_whole_router_is_served_by_axum() {
    let service = Traced::new("cards");
    let app =
        Router::new().route("/cards/{id}", get(async |Extension(ctx): Extension<Context>| ctx.is_done().to_string()));
    let app = Router::new().fallback_service(service.internal().layer(app));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    assert_eq!(reqwest::get(format!("http://{address}/cards/7")).await.unwrap().text().await.unwrap(), "false");
    assert_eq!(reqwest::get(format!("http://{address}/made/up")).await.unwrap().status(), 404);
    for span in service.spans(2).await {
        assert_eq!(span.name, "GET", "the layer sees no route");
    }
}

#[tokio::test]
async fn a_nested_router_shows_the_path_that_the_client_has_sent() {
    let service = Traced::new("cards");
    let cards = Router::new().route("/{id}", get(|| async {})).layer(service.internal());
    let address = serve(Router::new().nest("/api/cards", cards)).await;
    reqwest::get(format!("http://{address}/api/cards/7")).await.unwrap();
    let span = service.span().await;
    assert_eq!((text(&span, "url.path"), text(&span, "http.route")), (Some("/api/cards/7"), Some("/api/cards/{id}")));
}

#[tokio::test]
async fn an_ipv6_address_has_no_brackets() {
    for (host, address, port) in
        [("[::1]:8080", "::1", Some(8080.0)), ("[2001:db8::7]", "2001:db8::7", None), ("cards:80", "cards", Some(80.0))]
    {
        let service = Traced::new("cards");
        let responding = tower::service_fn(async |_: Request<Body>| {
            Ok::<_, std::convert::Infallible>(axum::http::Response::new(Body::empty()))
        });
        let request = Request::get("/").header("host", host).body(Body::empty()).unwrap();
        drop(service.internal().layer(responding).oneshot(request).await.unwrap());
        let span = service.span().await;
        assert_eq!((text(&span, "server.address"), number(&span, "server.port")), (Some(address), port));
    }
}

/// The status and problem of a request whose handler never responds.
///
/// `end` ends its context or its base.
async fn ended(layer: ContextLayer, end: impl FnOnce()) -> (u16, Value) {
    let (called, is_called) = oneshot::channel();
    let called = Arc::new(Mutex::new(Some(called)));
    let handler = get(move || {
        called.lock().unwrap().take().unwrap().send(()).unwrap();
        std::future::pending::<()>()
    });
    let mut app = Router::new().route("/", handler).layer(layer);
    let response = tokio::spawn(app.call(Request::new(Body::empty())));
    is_called.await.unwrap();
    end();
    let response = response.await.unwrap().unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap())
}

#[tokio::test]
async fn a_base_that_is_done_for_any_cause_means_unavailable() {
    type End = fn(&throughline::CancelHandle);
    let ends: [End; 3] = [
        |base| base.cancel(),
        |base| base.cancel_with(Cause::Shutdown),
        |base| base.cancel_with(std::io::Error::other("row 7 of users")),
    ];
    for end in ends {
        let (service, base) = (Traced::new("cards"), Context::background().with_cancel());
        let layer = service.internal().base(&base).max_timeout(Duration::from_secs(3600));
        let (status, problem) = ended(layer.clone(), || end(&base)).await;
        let members = (&problem["code"], &problem["retryable"]);
        assert_eq!((status, members), (503, (&"UNAVAILABLE".into(), &true.into())));
        assert!(!problem.to_string().contains("row 7"), "{problem}");
        // The same for later requests.
        let responding = tower::service_fn(async |_: Request<Body>| {
            Ok::<_, std::convert::Infallible>(axum::http::Response::new(Body::empty()))
        });
        assert_eq!(layer.layer(responding).oneshot(Request::new(Body::empty())).await.unwrap().status(), 503);
    }
}

#[tokio::test]
async fn a_handler_that_responds_with_the_error_of_its_done_base_is_unavailable_too() {
    let service = Traced::new("cards");
    for is_chosen in [true, false] {
        let base = Context::background().with_cancel();
        let (called, is_called) = oneshot::channel();
        let called = Arc::new(Mutex::new(Some(called)));
        let handler = get(async move |Extension(ctx): Extension<Context>| {
            called.lock().unwrap().take().unwrap().send(()).unwrap();
            let stopped = ctx.run(std::future::pending::<()>()).await.unwrap_err();
            let error = throughline::Error::from(stopped);
            if is_chosen { (StatusCode::IM_A_TEAPOT, error).into_response() } else { error.into_response() }
        });
        let mut app = Router::new().route("/", handler).layer(service.internal().base(&base));
        let response = tokio::spawn(app.call(Request::new(Body::empty())));
        is_called.await.unwrap();
        base.cancel();
        let response = response.await.unwrap().unwrap();
        assert_eq!(response.status().as_u16(), if is_chosen { 418 } else { 503 });
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&problem["code"], &problem["retryable"]), (&"UNAVAILABLE".into(), &true.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_base_is_a_503_and_one_of_the_request_a_504() {
    let base = Context::background().with_timeout(Duration::from_secs(5));
    assert_eq!(ended(ContextLayer::internal().base(&base), || {}).await.0, 503);
    let base = Context::background().with_timeout(Duration::from_secs(5));
    let layer = ContextLayer::internal().base(&base).max_timeout(Duration::from_secs(1));
    assert_eq!(ended(layer, || {}).await.0, 504);
}
