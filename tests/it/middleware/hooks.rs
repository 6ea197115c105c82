//! Hooks of both layers, the report of each end, and what else a layer shows on request.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use throughline::middleware::Finished;
use throughline::middleware::client::UrlTemplate;
use throughline::middleware::server::ProxyHeader;
use throughline::trace::{SpanKind, Tracer};
use throughline::{ClientLayer, Code, Context, ContextLayer, Error};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::grpc::{call_grpc, serve_grpc};
use crate::support::{Traced, client, number, serve, text};

/// The reports of a layer, as text.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<String>>>);

impl Reports {
    fn add(&self, end: &Finished<'_>) {
        let kind = if end.kind == SpanKind::Server { "server" } else { "client" };
        let mut parts = vec![kind.to_owned(), end.method.to_owned()];
        parts.extend(end.route.map(str::to_owned));
        parts.extend(end.rpc_method.map(|method| format!("rpc {method}")));
        parts.extend(end.peer.map(|peer| format!("to {peer}")));
        parts.extend(end.status.map(|status| status.as_str().to_owned()));
        parts.extend(end.rpc_status.map(str::to_owned));
        parts.extend(end.error_type.map(|kind| format!("error {kind}")));
        parts.extend(end.cause.map(|cause| format!("cause {}", cause.name())));
        self.0.lock().unwrap().push(parts.join(" "));
    }

    fn server(&self, layer: ContextLayer) -> ContextLayer {
        let reports = self.clone();
        layer.on_end(move |_, end| reports.add(end))
    }

    fn client(&self, layer: ClientLayer) -> ClientLayer {
        let reports = self.clone();
        layer.on_end(move |_, end| reports.add(end))
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The route that a handler without axum has found.
#[derive(Clone)]
struct Route(&'static str);

fn routed() -> Response<Body> {
    let mut response = Response::new(Body::from("7"));
    response.extensions_mut().insert(Route("/cards/{id}"));
    response
}

#[tokio::test]
async fn hooks_write_to_the_span_of_a_request_at_its_start_its_response_and_its_end() {
    let service = Traced::new("cards");
    let layer = service
        .internal()
        .on_start(|span, head| {
            assert_eq!(span.span_context(), Context::current().span_context(), "the context is ambient");
            span.set_attribute("bank.card", head.uri.path().len());
            span.remove_attribute("user_agent.original");
            span.remove_attribute("not.there");
        })
        .on_response(|span, head| match head.extensions.get() {
            Some(Route(route)) => span.set_route(route),
            None => panic!("the handler has set the route"),
        })
        .on_end(|span, end| {
            span.set_attribute("bank.took_us", end.duration.as_micros() as i64);
            span.set_attribute("bank.route", end.route.unwrap_or_default().to_owned());
            span.set_attribute("bank.started_route", format!("{:?}", end.started_route));
        });
    let request = Request::get("/cards/7").header("user-agent", "curl").body(Body::empty()).unwrap();
    let response = layer.layer(service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(routed())))).oneshot(request);
    response.await.unwrap().into_body().collect().await.unwrap();
    let span = service.span().await;
    assert_eq!((&*span.name, text(&span, "http.route")), ("GET /cards/{id}", Some("/cards/{id}")));
    assert_eq!((number(&span, "bank.card"), text(&span, "user_agent.original")), (Some(8.0), None));
    assert_eq!(text(&span, "bank.route"), Some("/cards/{id}"), "a hook at the end gets what another one has set");
    assert_eq!(text(&span, "bank.started_route"), Some("None"), "it was not known at the start");
    assert!(number(&span, "bank.took_us").is_some());
}

/// The reports of one request to `app`, whose body is read to its end.
async fn reports_of(app: Router, reports: &Reports, request: Request<Body>) -> Vec<String> {
    let _read = app.oneshot(request).await.unwrap().into_body().collect().await;
    reports.take()
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn each_request_is_reported_once_however_it_ends() {
    let reports = Reports::default();
    let half = || async {
        let chunks = futures_util::stream::iter([Err::<&str, _>(std::io::Error::other("gone"))]);
        Response::new(Body::from_stream(chunks))
    };
    let app = Router::new()
        .route("/cards/{id}", get(|| async { "7" }))
        .route("/none", get(|| async { Err::<(), _>(Error::new(Code::NotFound, "no such card")) }))
        .route("/down", get(|| async { Err::<(), _>(Error::new(Code::Unavailable, "restarting")) }))
        .route("/own", get(|| async { StatusCode::BAD_GATEWAY }))
        .route("/upgrade", get(|| async { StatusCode::SWITCHING_PROTOCOLS }))
        .route("/half", get(half))
        .layer(reports.server(ContextLayer::internal().tracer(Tracer::noop())));
    for (path, report) in [
        ("/cards/7", "server GET /cards/{id} 200"),
        ("/none", "server GET /none 404"),
        ("/down", "server GET /down 503 error UNAVAILABLE"),
        ("/own", "server GET /own 502 error 502"),
        ("/upgrade", "server GET /upgrade 101"),
        ("/half", "server GET /half 200 error _OTHER"),
    ] {
        assert_eq!(reports_of(app.clone(), &reports, request(path)).await, [report], "spans are not recorded");
    }
    let late = Request::get("/cards/7").header("grpc-timeout", "0n").body(Body::empty()).unwrap();
    let late = reports_of(app, &reports, late).await;
    assert_eq!(late, ["server GET /cards/{id} 504 error DEADLINE_EXCEEDED cause deadline_exceeded"]);
}

#[tokio::test]
async fn a_request_that_is_dropped_or_that_panics_or_whose_service_fails_is_reported_once() {
    let reports = Reports::default();
    let layer = || reports.server(ContextLayer::internal());
    let hanging = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
    let mut dropped = Box::pin(layer().layer(hanging).oneshot(request("/")));
    assert!(dropped.as_mut().now_or_never().is_none());
    drop(dropped);
    assert_eq!(reports.take(), ["server GET cause client_disconnected"]);

    let panicking = service_fn(|_: Request<Body>| async { panic!("a bug") as Result<Response<Body>, Infallible> });
    let panicked = tokio::spawn(layer().layer(panicking).oneshot(request("/"))).await;
    assert!(panicked.is_err());
    assert_eq!(reports.take(), ["server GET error panic cause panicked"]);

    let failing = service_fn(|_: Request<Body>| ready(Err::<Response<Body>, _>(Error::new(Code::DataLoss, "lost"))));
    assert!(layer().layer(failing).oneshot(request("/")).await.is_err());
    assert_eq!(reports.take(), ["server GET error DATA_LOSS"]);
}

#[tokio::test]
async fn the_methods_of_grpc_requests_are_reported_if_the_server_knows_them() {
    let reports = Reports::default();
    let handler = |request: tonic::Request<Bytes>| async move {
        match request.get_ref().is_empty() {
            true => Err(Error::new(Code::Aborted, "again").into()),
            false => Ok(Bytes::new()),
        }
    };
    let address = serve_grpc(reports.server(ContextLayer::internal()), handler).await;
    let layer = reports.client(client().peer("cards"));
    call_grpc(&layer, &Context::background(), address, "/cards.Cards/Get", "7").await.unwrap();
    call_grpc(&layer, &Context::background(), address, "/cards.Cards/Get", "").await.unwrap_err();
    let mut seen = reports.take();
    seen.sort();
    assert_eq!(
        seen,
        [
            "client POST rpc cards.Cards/Get to cards 200 ABORTED error ABORTED",
            "client POST rpc cards.Cards/Get to cards 200 OK",
            "server POST rpc cards.Cards/Get 200 ABORTED",
            "server POST rpc cards.Cards/Get 200 OK",
        ]
    );
    let refusing = ContextLayer::edge()
        .authenticator(|_| Err::<throughline::Principal, _>(Error::new(Code::Unauthenticated, "no token")));
    let address = serve_grpc(reports.server(refusing), |_| async { unreachable!() }).await;
    call_grpc(&client(), &Context::background(), address, "/made.Up/Name", "").await.unwrap_err();
    assert_eq!(reports.take(), ["server POST rpc _OTHER 200 UNAUTHENTICATED"]);
}

#[tokio::test]
async fn a_hook_that_panics_fails_neither_a_request_nor_a_call() {
    let service = Traced::new("cards");
    let layer = service
        .internal()
        .on_start(|span, _| {
            span.set_attribute("before", true);
            panic!("start")
        })
        .on_response(|_, _| panic!("response"))
        .on_end(|_, _| panic!("end"));
    let app = Router::new().route("/", get(|| async { "7" })).layer(layer);
    let address = serve(app).await;
    let calls = client()
        .tracer(service.telemetry.tracer().clone())
        .on_start(|_, _| panic!("start"))
        .on_response(|_, _| panic!("response"))
        .on_end(|_, _| panic!("end"));
    use throughline::SendWith;
    let request = reqwest::Client::new().get(format!("http://{address}/"));
    let response = request.send_with(&Context::background(), &calls).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "7");
    let spans = service.spans(2).await;
    let server = spans.iter().find(|span| span.kind == SpanKind::Server).unwrap();
    assert!(server.attributes.get("before").is_some(), "what the hook has done stays");
    assert!(spans.iter().all(|span| number(span, "http.response.status_code") == Some(200.0)));
}

#[tokio::test]
async fn only_the_hooks_of_the_outermost_layer_are_called() {
    let (outer, inner) = (Reports::default(), Reports::default());
    let unreachable = |layer: ContextLayer| layer.on_start(|_, _| unreachable!()).on_response(|_, _| unreachable!());
    let app = Router::new()
        .route("/", get(|| async { "7" }))
        .layer(inner.server(unreachable(ContextLayer::internal().trace_response(HeaderName::from_static("x-inner")))))
        .layer(outer.server(ContextLayer::internal()));
    let response = app.oneshot(request("/")).await.unwrap();
    assert_eq!(response.headers().get("x-inner"), None);
    drop(response.into_body().collect().await);
    assert_eq!((outer.take().len(), inner.take().len()), (1, 0));
}

#[tokio::test]
async fn the_trace_id_is_in_every_response_if_a_header_is_named_for_it() {
    let service = Traced::new("api");
    let app = |layer: ContextLayer| {
        let failing = || async { Err::<(), _>(Error::new(Code::NotFound, "no such card")) };
        Router::new().route("/", get(|| async { "7" })).route("/none", get(failing)).layer(layer)
    };
    let plain = app(service.edge()).oneshot(request("/")).await.unwrap();
    assert_eq!((plain.headers().get("traceresponse"), plain.headers().get("x-trace-id")), (None, None));
    drop(plain.into_body().collect().await);
    for (path, status) in [("/", 200), ("/none", 404)] {
        let full = app(service.edge().trace_response(HeaderName::from_static("traceresponse")));
        let bare = app(service.edge().trace_response(HeaderName::from_static("x-trace-id")));
        let full = full.oneshot(request(path)).await.unwrap();
        let bare = bare.oneshot(request(path)).await.unwrap();
        assert_eq!((full.status().as_u16(), bare.status().as_u16()), (status, status));
        let shown = (full.headers()["traceresponse"].clone(), bare.headers()["x-trace-id"].clone());
        drop((full.into_body().collect().await, bare.into_body().collect().await));
        let spans = service.spans(3).await;
        let [.., first, second] = &spans[..] else { panic!("there are several") };
        let (trace, span) = (first.span_context.trace_id(), first.span_context.span_id());
        assert_eq!(shown.0, format!("00-{trace}-{span}-01").as_str());
        assert_eq!(shown.1, second.span_context.trace_id().to_string().as_str());
        if path == "/" {
            service.spans(3).await;
        }
    }
}

#[tokio::test]
async fn the_client_address_is_the_connections_or_what_a_trusted_proxy_says() {
    let peer = |layer: ContextLayer| layer.peer_address(|head| head.extensions.get::<SocketAddr>().copied());
    let ingress = |layer: ContextLayer| peer(layer).trusted_proxies(ProxyHeader::XForwardedFor, |ip| ip.is_loopback());
    let broken = |layer: ContextLayer| peer(layer).trusted_proxies(ProxyHeader::XForwardedFor, |_| panic!("a bug"));
    type With<'a> = &'a dyn Fn(ContextLayer) -> ContextLayer;
    let none: With<'_> = &|layer| layer;
    for (with, connection, seen) in [
        (none, "127.0.0.1:4711", None),
        (&peer as With<'_>, "127.0.0.1:4711", Some("127.0.0.1")),
        (&ingress, "127.0.0.1:4711", Some("203.0.113.7")),
        (&ingress, "198.51.100.2:4711", Some("198.51.100.2")),
        (&broken, "127.0.0.1:4711", Some("127.0.0.1")),
    ] {
        let service = Traced::new("api");
        let app = Router::new().route("/", get(|| async { "7" })).layer(with(service.edge()));
        let mut request = request("/");
        request.headers_mut().insert("x-forwarded-for", "10.9.9.9, 203.0.113.7".parse().unwrap());
        request.extensions_mut().insert(connection.parse::<SocketAddr>().unwrap());
        drop(app.oneshot(request).await.unwrap().into_body().collect().await);
        let span = service.span().await;
        assert_eq!(text(&span, "client.address"), seen);
        let peer = seen.and(connection.split_once(':')).map(|(address, _)| address);
        assert_eq!(text(&span, "network.peer.address"), peer);
        assert_eq!(number(&span, "network.peer.port"), seen.map(|_| 4711.0));
    }
}

/// The reports of a call through `layer` to `peer`.
async fn call<R>(layer: ClientLayer, ctx: &Context, peer: impl Fn() -> R) -> Result<(), Error>
where
    R: Future<Output = Result<Response<Empty<Bytes>>, std::io::Error>>,
{
    let mut request = Request::post("http://balance/accounts/7").body(()).unwrap();
    request.extensions_mut().insert(ctx.clone());
    request.extensions_mut().insert(UrlTemplate::new("/accounts/{id}"));
    layer.layer(service_fn(|_: Request<()>| peer())).call(request).await.map(drop)
}

#[tokio::test]
async fn each_call_is_reported_once_however_it_ends() {
    let reports = Reports::default();
    let layer = || reports.client(ClientLayer::internal().peer("balance"));
    let ctx = Context::background();
    let responding = |status: u16| move || ready(Ok(Response::builder().status(status).body(Empty::new()).unwrap()));
    call(layer(), &ctx, responding(200)).await.unwrap();
    assert_eq!(reports.take(), ["client POST /accounts/{id} to balance 200"]);
    call(layer(), &ctx, responding(503)).await.unwrap();
    assert_eq!(reports.take(), ["client POST /accounts/{id} to balance 503 error 503"]);
    call(layer(), &ctx, || ready(Err(std::io::Error::other("refused")))).await.unwrap_err();
    assert_eq!(reports.take(), ["client POST /accounts/{id} to balance error UNAVAILABLE"]);
    assert!(call(layer(), &ctx, pending).now_or_never().is_none(), "it is dropped");
    assert_eq!(reports.take(), ["client POST /accounts/{id} to balance cause abandoned"]);
    call(layer(), &ctx.with_timeout(Duration::ZERO), responding(200)).await.unwrap_err();
    let not_sent = "client POST /accounts/{id} to balance error DEADLINE_EXCEEDED cause deadline_exceeded";
    assert_eq!(reports.take(), [not_sent]);
}

#[tokio::test]
async fn hooks_write_to_the_span_of_a_call() {
    let service = Traced::new("cards");
    let layer = client()
        .tracer(service.telemetry.tracer().clone())
        .on_start(|span, head| {
            assert_eq!((head.method, head.headers.get("traceparent")), (&Method::POST, None));
            span.set_route("/{any}");
            span.set_attribute("bank.path", head.uri.path().to_owned());
        })
        .on_response(|span, head| span.set_attribute("bank.version", format!("{:?}", head.version)))
        .on_end(|span, end| span.set_attribute("bank.route", format!("{:?} {:?}", end.started_route, end.route)));
    call(layer, &Context::background(), || ready(Ok(Response::new(Empty::new())))).await.unwrap();
    let span = service.span().await;
    assert_eq!((&*span.name, text(&span, "url.template")), ("POST /{any}", Some("/{any}")));
    assert_eq!((text(&span, "bank.path"), text(&span, "bank.version")), (Some("/accounts/7"), Some("HTTP/1.1")));
    assert_eq!(text(&span, "bank.route"), Some(r#"Some("/{any}") Some("/{any}")"#));
}

#[tokio::test]
async fn a_hook_sees_the_head_that_the_client_gets() {
    let seen = Arc::new(Mutex::new(None));
    let copy = Arc::clone(&seen);
    let layer = ContextLayer::edge().on_response(move |_, head| *copy.lock().unwrap() = Some(head.status));
    let teapot = |Extension(_): Extension<Context>| async { (StatusCode::IM_A_TEAPOT, "short").into_response() };
    let app = Router::new().route("/", get(teapot)).layer(layer);
    let response = app.oneshot(request("/")).await.unwrap();
    assert_eq!((*seen.lock().unwrap(), response.status().as_u16()), (Some(StatusCode::IM_A_TEAPOT), 418));
}
