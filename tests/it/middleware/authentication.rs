//! Who an untrusted client is: authenticators that wait and that do not, and the ways they fail.

use std::convert::Infallible;
use std::future::{Ready, pending, ready};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use axum::body::Body;
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use throughline::middleware::server::{Authenticated, AuthenticatingLayer, OnDisconnect};
use throughline::trace::Status;
use throughline::{Cause, Code, Context, ContextLayer, Error, Key, Principal, SendWith};
use tokio::sync::oneshot;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::grpc::call_grpc;
use crate::support::{Traced, client, serve, text};

static TENANT: Key<u64> = Key::baggage("tenant");
static PLAN: Key<&'static str> = Key::new("plan");

fn alice() -> Authenticated {
    Authenticated::new(Principal::new("alice").unwrap()).with(&TENANT, 7).with(&PLAN, "gold")
}

fn who(ctx: &Context) -> String {
    let principal = ctx.principal().map_or("nobody", Principal::subject);
    format!("{principal} {:?} {:?}", ctx.value(&TENANT), ctx.value(&PLAN))
}

/// A handler that responds with who its client is.
fn show() -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = Ready<Result<Response<Body>, Infallible>>,
> + Clone {
    service_fn(|request: Request<Body>| {
        let ctx = request.extensions().get::<Context>().unwrap();
        assert_eq!(who(ctx), who(&Context::current()), "the ambient context is the same");
        ready(Ok(Response::new(Body::from(who(ctx)))))
    })
}

/// An authenticator that waits for `gate`, once.
fn gated(layer: ContextLayer, gate: oneshot::Receiver<Result<Authenticated, Error>>) -> AuthenticatingLayer {
    let gate = Mutex::new(Some(gate));
    layer.async_authenticator(move |_, _| {
        let gate = gate.lock().unwrap().take().expect("there is one request");
        async move { gate.await.unwrap() }
    })
}

async fn body(response: Response<impl http_body::Body<Data = bytes::Bytes, Error: std::fmt::Debug>>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn the_handler_gets_the_principal_and_the_values_of_an_authenticator() {
    let sync = ContextLayer::edge().authenticator(|_| Ok(alice()));
    let response = sync.layer(show()).oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(body(response).await, "alice Some(7) Some(\"gold\")");

    let (open, gate) = oneshot::channel();
    let service = Traced::new("api");
    let mut waiting = Box::pin(gated(service.edge(), gate).layer(show()).oneshot(Request::new(Body::empty())));
    assert!(waiting.as_mut().now_or_never().is_none(), "the request waits for the authenticator");
    open.send(Ok(alice())).unwrap();
    assert_eq!(body(waiting.await.unwrap()).await, "alice Some(7) Some(\"gold\")");

    let nobody = ContextLayer::edge().authenticator(|_| Ok(None));
    let response = nobody.layer(show()).oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(body(response).await, "nobody None None");
}

#[tokio::test]
async fn the_principal_is_ambient_while_the_body_is_polled() {
    let streaming = service_fn(|_: Request<Body>| {
        let frames = futures_util::stream::once(async { Ok::<_, Infallible>(who(&Context::current())) });
        ready(Ok::<_, Infallible>(Response::new(Body::from_stream(frames))))
    });
    let layer = ContextLayer::edge().async_authenticator(|_, _| ready(Ok(alice())));
    let response = layer.layer(streaming).oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(body(response).await, "alice Some(7) Some(\"gold\")");
}

#[tokio::test]
async fn streams_have_the_principal_and_no_limit_and_handlers_have_both() {
    use throughline::StreamCtx;

    let handler = service_fn(|request: Request<Body>| {
        let ctx = request.extensions().get::<Context>().unwrap();
        let StreamCtx(stream) = StreamCtx::of(request.extensions()).unwrap();
        assert_eq!((who(ctx), who(&stream)), (who(&Context::current()), who(ctx)));
        let limits = [ctx.deadline(), stream.deadline()].map(|deadline| deadline.is_some());
        ready(Ok::<_, Infallible>(Response::new(Body::from(format!("{} {limits:?}", who(ctx))))))
    });
    let sync = ContextLayer::edge().authenticator(|_| Ok(alice()));
    let response = sync.layer(handler).oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(body(response).await, "alice Some(7) Some(\"gold\") [true, false]");
    let waiting = ContextLayer::edge().async_authenticator(|_, _| ready(Ok(alice())));
    let response = waiting.layer(handler).oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(body(response).await, "alice Some(7) Some(\"gold\") [true, false]");
}

#[tokio::test]
async fn a_service_behind_the_edge_gets_the_principal_and_the_values_that_are_declared_for_the_wire() {
    let behind = |Extension(ctx): Extension<Context>| async move { who(&ctx) };
    let behind = Router::new().route("/", get(behind)).layer(ContextLayer::internal().keys(&[&TENANT]));
    let behind = serve(behind).await;
    let ask = move |Extension(ctx): Extension<Context>| async move {
        let request = reqwest::Client::new().get(format!("http://{behind}/"));
        Ok::<_, Error>(request.send_with(&ctx, &client()).await?.text().await?)
    };
    let layer = ContextLayer::edge().async_authenticator(|_, _| async {
        tokio::task::yield_now().await;
        Ok(alice())
    });
    let edge = serve(Router::new().route("/", get(ask)).layer(layer)).await;
    let seen = reqwest::get(format!("http://{edge}/")).await.unwrap().text().await.unwrap();
    assert_eq!(seen, "alice Some(7) None");
}

#[tokio::test]
async fn the_authenticator_runs_inside_the_span_of_the_request() {
    let service = Traced::new("api");
    let look_up = |ctx: &Context| {
        assert_eq!(ctx.span_context(), Context::current().span_context());
        drop(ctx.span("look up").start());
    };
    let sync = service.edge().authenticator(move |_: &Parts| {
        look_up(&Context::current());
        Ok(None)
    });
    let waiting = service.edge().async_authenticator(move |ctx, _| async move {
        look_up(&ctx);
        Ok(None)
    });
    drop(sync.layer(show()).oneshot(Request::new(Body::empty())).await);
    drop(waiting.layer(show()).oneshot(Request::new(Body::empty())).await);
    let spans = service.spans(4).await;
    for (child, parent) in [(&spans[0], &spans[1]), (&spans[2], &spans[3])] {
        assert_eq!((&*child.name, &*parent.name), ("look up", "GET"));
        assert_eq!(child.parent_span_id, Some(parent.span_context.span_id()));
    }
}

/// A handler that must not be called.
async fn unreachable_handler() {
    unreachable!("the request is refused");
}

/// The response of `app` over HTTP: status, challenge and document; and the only span.
async fn refusal(
    service: &Traced,
    app: Router,
) -> (u16, Option<HeaderValue>, serde_json::Value, throughline::SpanRecord) {
    let response = reqwest::get(format!("http://{}/", serve(app).await)).await.unwrap();
    let (status, challenge) = (response.status().as_u16(), response.headers().get("www-authenticate").cloned());
    (status, challenge, response.json().await.unwrap(), service.span().await)
}

#[tokio::test]
async fn a_refusal_is_the_response_with_its_challenge_and_is_on_the_span() {
    let invalid = || {
        Error::new(Code::Unauthenticated, "the token has expired")
            .with_www_authenticate(HeaderValue::from_static("Bearer error=\"invalid_token\""))
    };
    let app = || Router::new().route("/", get(unreachable_handler));
    for is_async in [false, true] {
        let service = Traced::new("api");
        let app = match is_async {
            false => app().layer(service.edge().authenticator(move |_| Err::<Principal, _>(invalid()))),
            true => app()
                .layer(service.edge().async_authenticator(move |_, _| async move { Err::<Principal, _>(invalid()) })),
        };
        let (status, challenge, document, span) = refusal(&service, app).await;
        assert_eq!((status, challenge), (401, Some(HeaderValue::from_static("Bearer error=\"invalid_token\""))));
        assert_eq!(
            (&document["code"], &document["detail"]),
            (&"UNAUTHENTICATED".into(), &"the token has expired".into())
        );
        assert_eq!(text(&span, "throughline.error.code"), Some("UNAUTHENTICATED"));
        assert_eq!((&*span.name, &span.status), ("GET /", &Status::Unset));
    }
}

#[tokio::test]
async fn an_error_of_a_session_store_does_not_become_the_clients_error() {
    let service = Traced::new("api");
    let not_found = Error::new(Code::NotFound, "row 7").through_service(Some("sessions")).to_response();
    let remote = Error::from_response(not_found.status(), not_found.headers(), not_found.body()).unwrap();
    let layer = service.edge().async_authenticator(move |_, _| ready(Err::<Principal, _>(remote.clone())));
    let app = Router::new().route("/", get(unreachable_handler)).layer(layer);
    let (status, _, document, _) = refusal(&service, app).await;
    assert_eq!((status, &document["code"], &document["detail"]), (500, &"INTERNAL".into(), &"internal error".into()));
}

#[tokio::test]
async fn an_authenticator_that_panics_refuses_with_internal() {
    let app = || Router::new().route("/", get(unreachable_handler));
    let panic = || -> Result<Principal, Error> { panic!("no session store") };
    type Build<'a> = &'a dyn Fn(ContextLayer) -> Router;
    let sync: Build<'_> = &|layer| app().layer(layer.authenticator(move |_| panic()));
    let when_called: Build<'_> = &|layer| app().layer(layer.async_authenticator(move |_, _| ready(panic())));
    let while_polled: Build<'_> = &|layer| app().layer(layer.async_authenticator(move |_, _| async move { panic() }));
    for build in [sync, when_called, while_polled] {
        let service = Traced::new("api");
        let (status, _, document, span) = refusal(&service, build(service.edge())).await;
        assert_eq!((status, &document["detail"]), (500, &"internal error".into()));
        assert_eq!(span.status, Status::Error("the authenticator panicked".into()));
        assert_eq!(text(&span, "error.type"), Some("INTERNAL"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_authenticator_that_hangs_is_ended_by_the_deadline() {
    let service = Traced::new("api");
    let hanging = service.edge().async_authenticator(|_, _| pending::<Result<Principal, Error>>());
    let unreachable = service_fn(|_: Request<Body>| -> Ready<Result<Response<Body>, Infallible>> { unreachable!() });
    let request = Request::get("/").header("grpc-timeout", "1S").body(Body::empty()).unwrap();
    let response = hanging.layer(unreachable).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 504);
    drop(response);
    let span = service.span().await;
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("deadline_exceeded"));
    assert_eq!(text(&span, "error.type"), Some("DEADLINE_EXCEEDED"));
}

/// Reports the cause of a context when it is dropped.
struct OnDrop(Context, Option<oneshot::Sender<Option<&'static str>>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let cause = self.0.cause().map(|cause| cause.name());
        let _ = self.1.take().map(|dropped| dropped.send(cause));
    }
}

#[tokio::test]
async fn a_client_that_disconnects_while_it_is_authenticated_cancels_the_authenticator() {
    let service = Traced::new("api");
    let (dropped, cause) = oneshot::channel();
    let dropped = Mutex::new(Some(dropped));
    let waiting = service.edge().async_authenticator(move |ctx, _| {
        let guard = OnDrop(ctx, dropped.lock().unwrap().take());
        async move {
            let _guard = guard;
            pending::<Result<Principal, Error>>().await
        }
    });
    let mut request = Box::pin(waiting.layer(show()).oneshot(Request::new(Body::empty())));
    assert!(request.as_mut().now_or_never().is_none());
    drop(request);
    assert_eq!(cause.await.unwrap(), Some(Cause::ClientDisconnected.name()), "the context is done before the drop");
    assert_eq!(text(&service.span().await, "throughline.cancel.cause"), Some("client_disconnected"));
}

#[tokio::test]
async fn a_detached_request_is_authenticated_after_its_client_has_disconnected() {
    let service = Traced::new("api");
    let (open, gate) = oneshot::channel();
    let layer = gated(service.edge().on_disconnect(OnDisconnect::Detach), gate);
    let (handled, who_was_it) = oneshot::channel();
    let handled = Arc::new(Mutex::new(Some(handled)));
    let handler = service_fn(move |_: Request<Body>| {
        handled.lock().unwrap().take().unwrap().send(who(&Context::current())).unwrap();
        ready(Ok::<_, Infallible>(Response::new(Body::empty())))
    });
    let mut request = Box::pin(layer.layer(handler).oneshot(Request::new(Body::empty())));
    assert!(request.as_mut().now_or_never().is_none());
    drop(request);
    open.send(Ok(alice())).unwrap();
    assert_eq!(who_was_it.await.unwrap(), "alice Some(7) Some(\"gold\")");
}

#[tokio::test]
async fn internal_services_are_not_authenticated() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let layer = ContextLayer::internal().async_authenticator(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        ready(Err::<Principal, _>(Error::new(Code::Unauthenticated, "none")))
    });
    let request = Request::get("/").header("throughline-principal", "bob").body(Body::empty()).unwrap();
    let response = layer.layer(show()).oneshot(request).await.unwrap();
    assert_eq!((body(response).await.as_str(), calls.load(Ordering::Relaxed)), ("bob None None", 0));
}

#[tokio::test]
async fn a_refused_grpc_client_gets_a_status_and_cannot_name_spans() {
    let service = Traced::new("api");
    let layer = service.edge();
    let layer =
        layer.async_authenticator(|_, _| ready(Err::<Principal, _>(Error::new(Code::Unauthenticated, "no token"))));
    let address = serve(Router::new().fallback(unreachable_handler).layer(layer)).await;
    for _ in 0..2 {
        let status = call_grpc(&client(), &Context::background(), address, "/made.Up/Name", "").await.unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::Unauthenticated, "no token"));
    }
    for span in service.spans(2).await {
        assert_eq!((&*span.name, text(&span, "rpc.method")), ("grpc", Some("_OTHER")));
        assert_eq!(text(&span, "rpc.status_code"), Some("UNAUTHENTICATED"));
    }
}

/// A service that can be called only after its own `poll_ready`.
#[derive(Default)]
struct NeedsReady {
    is_ready: bool,
}

impl Clone for NeedsReady {
    fn clone(&self) -> Self {
        NeedsReady { is_ready: false }
    }
}

impl Service<Request<Body>> for NeedsReady {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "a service is called that was not ready");
        ready(Ok(Response::new(Body::empty())))
    }
}

#[tokio::test]
async fn the_service_that_was_ready_is_the_one_that_is_called() {
    let layer = ContextLayer::edge().async_authenticator(|_, _| ready(Ok(None)));
    let mut service = layer.layer(NeedsReady::default());
    for _ in 0..2 {
        let response = service.ready().await.unwrap().call(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}

#[test]
fn debug_of_an_authenticated_client_shows_no_values() {
    assert_eq!(format!("{:?}", alice()), "Authenticated { principal: Some(Principal), values: 2 }");
}
