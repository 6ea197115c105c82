//! Who may call a route.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::handler::Handler;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::request::Parts;
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use throughline::{ClientLayer, Code, Context, ContextLayer, Ctx, Error, Principal, SpanRecord};
use throughline_service::Authorize;
use tokio::sync::oneshot;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::Traced;

fn is_teller(principal: &Principal, _: &Parts) -> bool {
    principal.subject().starts_with("teller:")
}

fn request(principal: Option<&str>) -> Request<Body> {
    let builder = Request::get("/vault").header("authorization", "Bearer token-4711");
    let builder = principal.into_iter().fold(builder, |builder, name| builder.header("throughline-principal", name));
    builder.body(Body::empty()).unwrap()
}

async fn error_of<B: http_body::Body<Error: std::fmt::Debug>>(response: Response<B>) -> Error {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Error::from_response(head.status, &head.headers, &body).expect("it is an error")
}

/// Sends a request to `/vault` behind `rule`, and returns the error and the span.
async fn refusal(rule: Authorize, principal: Option<&str>) -> (Error, SpanRecord) {
    let traced = Traced::new("vault");
    let layer = ContextLayer::internal().tracer(traced.telemetry.tracer().clone());
    let handler = async || -> &'static str { unreachable!("the request is refused") };
    let app = Router::new().route("/vault", get(handler.layer(rule))).layer(layer);
    let error = error_of(app.oneshot(request(principal)).await.unwrap()).await;
    (error, traced.spans().await.pop().unwrap())
}

#[tokio::test]
async fn a_refusal_has_the_service_as_origin_and_is_on_the_trace_without_tokens() {
    let (error, span) = refusal(Authorize::new(is_teller), Some("user:7")).await;
    assert_eq!((error.code(), error.origin()), (Code::PermissionDenied, Some("vault")));
    let event = span.events.iter().find(|event| event.name == "throughline.authorization.denied").unwrap();
    let text = |key: &str| event.attributes.get(key).and_then(|value| value.as_str());
    assert_eq!(text("throughline.authorization.rule"), Some("it::authorize::is_teller"));
    assert_eq!(text("throughline.error.code"), Some("PERMISSION_DENIED"));
    assert_eq!(
        span.attributes.get("throughline.error.code").and_then(|value| value.as_str()),
        Some("PERMISSION_DENIED"),
        "the ContextLayer records the error"
    );
    let shown = format!("{span:?}");
    assert!(!shown.contains("4711") && !shown.contains("user:7"), "{shown}");
}

#[tokio::test]
async fn without_a_principal_the_rule_is_not_called() {
    let rule = Authorize::new(|_, _| -> bool { unreachable!("nobody is authenticated") }).name("nobody");
    let (error, span) = refusal(rule, None).await;
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(format!("{:?}", span.events).contains("nobody"));
}

#[tokio::test]
async fn the_rules_own_error_is_the_callers() {
    let own = || Error::new(Code::NotFound, "no such vault");
    for rule in [Authorize::new(move |_, _| Err(own())), Authorize::new_async(move |_, _, _| async move { Err(own()) })]
    {
        let (error, _) = refusal(rule, Some("user:7")).await;
        assert_eq!((error.code(), error.message()), (Code::NotFound, "no such vault"));
    }
}

#[tokio::test]
async fn a_rule_that_panics_refuses() {
    for rule in [
        Authorize::new(|_, _| -> bool { panic!("a defect") }),
        Authorize::new_async(|_, _, _| -> std::future::Ready<bool> { panic!("a defect") }),
        Authorize::new_async(|_, _, _| async { if true { panic!("a defect") } else { true } }),
    ] {
        let (error, span) = refusal(rule, Some("user:7")).await;
        assert_eq!(error.code(), Code::Internal);
        assert!(matches!(span.status, throughline::trace::Status::Error(_)));
    }
}

#[tokio::test]
async fn the_body_is_not_read_before_the_rule_allows_it() {
    let polls = Arc::new(AtomicUsize::new(0));
    let body = || {
        let polls = Arc::clone(&polls);
        Body::from_stream(futures_util::stream::once(async move {
            polls.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>("gold")
        }))
    };
    // A layer of the router, around a handler with a body.
    let app = Router::new()
        .route("/vault", post(async |body: String| body))
        .layer(Authorize::new(is_teller))
        .layer(ContextLayer::internal());
    for (principal, status, read) in [("user:7", 403, 0), ("teller:7", 200, 1)] {
        let request = Request::post("/vault").header("throughline-principal", principal).body(body()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), status);
        assert_eq!(polls.load(Ordering::Relaxed), read);
    }
}

#[tokio::test]
async fn a_rule_three_hops_away_decides_by_the_principal_of_the_edge() {
    // edge -> middle -> vault, each with the layers of a service of its own.
    let vault = Router::new()
        .route("/vault", get(async |Ctx(ctx): Ctx| ctx.principal().unwrap().subject().to_owned()))
        .layer(Authorize::new(is_teller))
        .layer(ContextLayer::internal());
    async fn forward(Ctx(ctx): Ctx, Extension(next): Extension<Router>) -> Result<String, Error> {
        let mut request = Request::get("http://next/vault").body(Body::empty()).unwrap();
        request.extensions_mut().insert(ctx);
        let response = ClientLayer::internal().layer(next).oneshot(request).await?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.map_err(|e| Error::wrap(Code::Internal, e))?.to_bytes();
        match Error::from_response(status, &headers, &body) {
            Some(error) => Err(error.preserve_code()),
            None => Ok(String::from_utf8_lossy(&body).into_owned()),
        }
    }
    let hop = |next: Router| Router::new().route("/vault", get(forward)).layer(Extension(next));
    let middle = hop(vault).layer(ContextLayer::internal());
    let edge = hop(middle).layer(ContextLayer::edge().authenticator(|head: &Parts| {
        let token = head.headers.get("authorization").and_then(|token| token.to_str().ok());
        Ok(token.and_then(|token| Principal::new(token.strip_prefix("Bearer ")?)))
    }));
    let ask = async |token: &str| {
        // The client claims to be a teller; the edge ignores that.
        let request = Request::get("/vault").header("authorization", token).header("throughline-principal", "teller:1");
        edge.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    let allowed = ask("Bearer teller:7").await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(allowed.into_body().collect().await.unwrap().to_bytes(), "teller:7");
    assert_eq!(ask("Bearer user:7").await.status(), 403);
    assert_eq!(ask("nobody").await.status(), 401);
}

#[tokio::test]
async fn an_async_rule_ends_with_the_request() {
    struct Dropped(Option<oneshot::Sender<()>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    let (began, running) = oneshot::channel();
    let (dropped, end) = oneshot::channel();
    let first = std::sync::Mutex::new(Some((began, Dropped(Some(dropped)))));
    let rule = Authorize::new_async(move |ctx, user, _| {
        let (began, dropped) = first.lock().unwrap().take().unwrap();
        async move {
            let _dropped = dropped;
            assert_eq!((user.subject(), &ctx), ("user:7", &Context::current()));
            began.send(()).unwrap();
            std::future::pending::<bool>().await
        }
    });
    // Around a plain tower service, without axum.
    let service = service_fn(async |_: Request<Body>| -> Result<Response<Body>, Infallible> {
        unreachable!("the rule does not decide")
    });
    let request_ctx = Context::background().with_principal(Principal::new("user:7").unwrap()).with_cancel();
    let mut request = request(None);
    request.extensions_mut().insert(request_ctx.context().clone());
    let call = tokio::spawn(rule.layer(service).oneshot(request));
    running.await.unwrap();
    request_ctx.cancel_with(throughline::Cause::ClientDisconnected);
    end.await.unwrap();
    let error = error_of(call.await.unwrap().unwrap()).await;
    assert_eq!((error.code(), error.message()), (Code::Cancelled, "client disconnected"));
}

#[tokio::test]
async fn a_grpc_request_is_refused_with_the_status_from_which_its_client_derives_the_code() {
    let app = Router::new()
        .route("/bank.Vault/Open", post(async || "gold"))
        .layer(Authorize::new(is_teller))
        .layer(ContextLayer::internal());
    for (principal, status) in [(None, 401), (Some("user:7"), 403)] {
        let call =
            Request::post("/bank.Vault/Open").version(Version::HTTP_2).header("content-type", "application/grpc");
        let call = principal.into_iter().fold(call, |call, name| call.header("throughline-principal", name));
        let response = app.clone().oneshot(call.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert!(!response.headers().contains_key("grpc-status"));
    }
}
