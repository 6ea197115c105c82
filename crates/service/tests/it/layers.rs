//! Tower layers around a route and around a service, and the layer of the context.

use std::time::Duration;

use http::{HeaderName, Request};
use throughline::trace::{SpanKind, Tracer};
use throughline::{Code, Context, ContextLayer, Ctx, Error, SpanRecord};
use throughline_service::axum::body::Body;
use throughline_service::axum::error_handling::HandleErrorLayer;
use throughline_service::axum::handler::Handler as _;
use throughline_service::axum::middleware::{self, Next};
use throughline_service::{Service, layer_error};
use tokio::sync::mpsc;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::timeout::TimeoutLayer;

use crate::support::{Gate, SECOND, Served, Spans};

async fn never() {
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn a_layer_with_errors_around_one_route_leaves_the_others_alone() {
    let timeout = TimeoutLayer::new(SECOND);
    let service: Service = Service::new("slow")
        .route("wait", never.layer((HandleErrorLayer::new(layer_error), timeout)))
        .route("quick", async || "done");
    let served = Served::start(service).await;
    let error = served.post("/wait", &()).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::DeadlineExceeded, "the layer's timeout has passed"));
    assert_eq!(served.post("/quick", &()).await.unwrap().body(), "done");
    served.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_layer_of_the_service_is_around_routes_that_are_added_later_and_its_errors_are_responses() {
    let service: Service = Service::new("slow").layer(TimeoutLayer::new(SECOND)).route("wait", never);
    let served = Served::start(service).await;
    let error = served.post("/wait", &()).await.unwrap_err();
    assert_eq!((error.code(), error.origin()), (Code::DeadlineExceeded, Some("slow")));
    served.stop().await;
}

#[tokio::test]
async fn a_shared_limit_sheds_what_is_beyond_it_over_all_routes() {
    let gate = Gate::closed();
    // Of a tuple, the first is the outer one.
    let service: Service = Service::new("busy")
        .route("wait", gate.handler())
        .route("other", async || "done")
        .layer((LoadShedLayer::new(), GlobalConcurrencyLimitLayer::new(1)));
    let served = Served::start(service).await;
    let (first, second) = tokio::join!(served.post("/wait", &()), async {
        gate.reached().await;
        let second = served.post("/other", &()).await;
        gate.open();
        second
    });
    assert_eq!(first.unwrap().body(), "done");
    assert_eq!(second.unwrap_err().code(), Code::ResourceExhausted);
    served.stop().await;
}

#[tokio::test]
async fn a_layer_sees_the_context_and_an_error_of_the_library_inside_another_is_kept() {
    #[derive(Debug)]
    struct Wrapped(Error);
    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("wrapped")
        }
    }
    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let refuse = tower::layer::layer_fn(|_| {
        tower::service_fn(async |request: Request<Body>| {
            let ctx = request.extensions().get::<Context>().expect("the context is there");
            assert!(ctx.remaining().is_some());
            Err::<http::Response<Body>, _>(Wrapped(Error::new(Code::PermissionDenied, "not on Sundays")))
        })
    });
    let service: Service = Service::new("cards").route("block", async || "blocked").layer(refuse);
    let served = Served::start(service).await;
    let ctx = Context::background().with_timeout(SECOND);
    let error = served.post_in(&ctx, "/block", &()).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::PermissionDenied, "not on Sundays"));
    served.stop().await;
}

#[tokio::test]
async fn axum_middleware_fits_and_the_layer_added_last_runs_first() {
    async fn mark(name: &'static str, request: Request<Body>, next: Next) -> http::Response<Body> {
        let mut response = next.run(request).await;
        response.headers_mut().append("x-order", name.parse().unwrap());
        response
    }
    let inner = middleware::from_fn(async |request, next| mark("inner", request, next).await);
    let outer = middleware::from_fn(async |request, next| mark("outer", request, next).await);
    let service: Service = Service::new("cards").layer(inner).layer(outer).route("block", async || "blocked");
    let served = Served::start(service).await;
    let response = served.post("/block", &()).await.unwrap();
    let order: Vec<_> = response.headers().get_all("x-order").iter().collect();
    assert_eq!(order, ["inner", "outer"]);
    served.stop().await;
}

#[tokio::test]
async fn the_context_layer_can_be_replaced_and_its_hooks_and_header_stay() {
    let (ends, mut ended) = mpsc::unbounded_channel();
    let layer = ContextLayer::internal()
        .trace_response(HeaderName::from_static("x-trace-id"))
        .max_timeout(Duration::from_secs(3))
        .on_end(move |_, finished| ends.send(finished.route.map(str::to_owned)).unwrap());
    let service: Service = Service::new("cards").context_layer(layer).route("block", async |Ctx(ctx): Ctx| {
        assert!(ctx.remaining().is_some());
        "blocked"
    });
    let stats = service.stats();
    let served = Served::start(service).await;
    let response = served.post("/block", &()).await.unwrap();
    assert_eq!(response.headers()["x-trace-id"].len(), 32);
    assert_eq!(ended.recv().await.unwrap().as_deref(), Some("/block"));
    assert_eq!(stats.snapshot().routes["POST /block"].requests, 1);
    served.stop().await;
}

#[tokio::test]
async fn a_request_has_one_server_span_named_by_its_route_and_probes_have_none() {
    let spans = Spans::default();
    let service: Service = Service::new("cards")
        .context_layer(ContextLayer::internal().tracer(spans.tracer()))
        .route("cards/{id}/block", async || "blocked");
    let served = Served::start(service).await;
    // The sampling decision is the caller's.
    let ctx = spans.context();
    served.post_in(&ctx, "/cards/7/block", &()).await.unwrap();
    for route in ["/stats", "/health/live", "/health/ready"] {
        served.get(route).await.unwrap();
    }
    served.post_in(&ctx, "/unknown", &()).await.unwrap_err();
    served.stop().await;
    let servers: Vec<_> = spans.take().into_iter().filter(|span: &SpanRecord| span.kind == SpanKind::Server).collect();
    let names: Vec<_> = servers.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["POST /cards/{id}/block", "POST"]);
    assert!(!Tracer::current_default().is_enabled(), "the test's own tracer has recorded them");
}
