//! Each redirect and each retry is a call of its own.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{any, get};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use throughline::propagation::deadline::parse_grpc_timeout;
use throughline::trace::SpanKind;
use throughline::{ClientLayer, Context, Principal, SendWith};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{PATIENCE, Traced, client, number, serve, text};

/// The heads of the requests that arrived.
type Heads = Arc<Mutex<Vec<(Method, HeaderMap)>>>;

async fn keep(State(heads): State<Heads>, method: Method, headers: HeaderMap, body: String) -> String {
    heads.lock().unwrap().push((method, headers));
    body
}

fn redirecting(to: String, status: StatusCode, heads: Heads) -> Router {
    let moved = move |State(heads): State<Heads>, method: Method, headers: HeaderMap| async move {
        heads.lock().unwrap().push((method, headers));
        (status, [("location", to)], "moved")
    };
    Router::new().route("/", any(moved)).with_state(heads)
}

fn no_redirects() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

fn ctx(traced: &Traced) -> Context {
    let ctx = Context::background().with_tracer(traced.telemetry.tracer()).with_timeout(PATIENCE);
    let ctx = ctx.with_baggage(ctx.baggage().insert("tenant", "acme").unwrap());
    ctx.with_principal(Principal::new("user:7").unwrap())
}

#[tokio::test]
async fn a_redirect_is_a_call_of_its_own_with_the_headers_its_host_may_have() {
    let traced = Traced::new("api");
    let heads = Heads::default();
    let there = serve(Router::new().route("/", any(keep)).with_state(heads.clone())).await;
    let to = format!("http://localhost:{}/", there.port());
    let here = serve(redirecting(to, StatusCode::TEMPORARY_REDIRECT, heads.clone())).await;

    let layer = ClientLayer::internal_hosts(["127.0.0.1"]).follow_redirects(3);
    let request = no_redirects().post(format!("http://{here}/")).header("authorization", "secret").body("7");
    let response = request.send_with(&ctx(&traced), &layer).await.unwrap();
    assert_eq!(response.url().host_str(), Some("localhost"));
    assert_eq!(response.text().await.unwrap(), "7");

    let heads = std::mem::take(&mut *heads.lock().unwrap());
    let [(Method::POST, internal), (Method::POST, external)] = &heads[..] else { panic!("{heads:?}") };
    for name in ["baggage", "grpc-timeout", "throughline-principal", "authorization"] {
        assert!(internal.contains_key(name) && !external.contains_key(name), "{name}");
    }
    let spans = traced.spans(2).await;
    for (index, (span, headers)) in spans.iter().zip([internal, external]).enumerate() {
        assert_eq!(span.kind, SpanKind::Client);
        let traceparent = headers["traceparent"].to_str().unwrap();
        assert!(traceparent.contains(&span.span_context.span_id().to_string()));
        assert_eq!(number(span, "http.request.resend_count"), (index > 0).then_some(index as f64));
        assert_eq!(text(span, "throughline.cancel.cause"), None);
    }
    assert_eq!(number(&spans[0], "http.response.status_code"), Some(307.0));
}

#[tokio::test]
async fn a_redirect_to_another_origin_is_external_unless_its_host_is_listed() {
    let traced = Traced::new("api");
    let heads = Heads::default();
    let there = serve(Router::new().route("/", any(keep)).with_state(heads.clone())).await;
    let back = |to: String| redirecting(to, StatusCode::TEMPORARY_REDIRECT, heads.clone());
    let elsewhere = serve(back(format!("http://{there}/"))).await;
    for (layer, then) in [
        (client(), [true, false, false]),
        (ClientLayer::internal_hosts(["127.0.0.1"]), [true, true, true]),
        (ClientLayer::external(), [false, false, false]),
    ] {
        let here = serve(back(format!("http://{elsewhere}/"))).await;
        let request = no_redirects().post(format!("http://{here}/")).body("7");
        request.send_with(&ctx(&traced), &layer.follow_redirects(3)).await.unwrap();
        let heads = std::mem::take(&mut *heads.lock().unwrap());
        for name in ["baggage", "grpc-timeout", "throughline-principal"] {
            let sent: Vec<_> = heads.iter().map(|(_, headers)| headers.contains_key(name)).collect();
            assert_eq!(sent, then, "{name}");
        }
    }
}

#[tokio::test]
async fn a_redirect_back_to_the_first_origin_is_internal_again() {
    let traced = Traced::new("api");
    let heads = Heads::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    let home = redirecting(format!("http://{here}/end"), StatusCode::TEMPORARY_REDIRECT, heads.clone());
    let away = serve(home).await;
    let app = redirecting(format!("http://{away}/"), StatusCode::TEMPORARY_REDIRECT, heads.clone());
    let app = app.merge(Router::new().route("/end", any(keep)).with_state(heads.clone()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let layer = client().follow_redirects(3);
    no_redirects().post(format!("http://{here}/")).body("7").send_with(&ctx(&traced), &layer).await.unwrap();
    let sent: Vec<_> = heads.lock().unwrap().iter().map(|(_, headers)| headers.contains_key("baggage")).collect();
    assert_eq!(sent, [true, false, true]);
}

#[tokio::test]
async fn a_redirect_gets_the_time_that_is_left_when_it_is_sent() {
    let traced = Traced::new("api");
    let heads = Heads::default();
    let there = serve(Router::new().route("/", any(keep)).with_state(heads.clone())).await;
    let here = serve(redirecting(format!("http://{there}/"), StatusCode::SEE_OTHER, heads.clone())).await;
    let layer = ClientLayer::internal_hosts(["127.0.0.1"]).follow_redirects(3);
    no_redirects().post(format!("http://{here}/")).body("7").send_with(&ctx(&traced), &layer).await.unwrap();
    let heads = std::mem::take(&mut *heads.lock().unwrap());
    assert_eq!((&heads[0].0, &heads[1].0), (&Method::POST, &Method::GET));
    assert!(!heads[1].1.contains_key("content-length"));
    let left = |index: usize| parse_grpc_timeout(heads[index].1["grpc-timeout"].as_bytes()).unwrap();
    assert!(left(1) < left(0), "{heads:?}");
}

#[tokio::test]
async fn redirects_are_followed_up_to_the_limit() {
    let app = Router::new().route("/", get(|| async { axum::response::Redirect::to("/") }));
    let address = serve(app).await;
    for most in [0, 3] {
        let traced = Traced::new("api");
        let layer = client().follow_redirects(most);
        let response = no_redirects().get(format!("http://{address}/")).send_with(&ctx(&traced), &layer).await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        drop(response);
        assert_eq!(traced.spans(u64::from(most) + 1).await.len(), most as usize + 1);
    }
}

#[tokio::test]
async fn a_redirect_with_no_time_left_is_not_sent() {
    let traced = Traced::new("api");
    let request = ctx(&traced).with_cancel();
    let stopping = request.context().clone();
    let heads = Heads::default();
    let there = serve(Router::new().route("/", any(keep)).with_state(heads.clone())).await;
    let request = Arc::new(request);
    let moved = service_fn(move |_: reqwest::Request| {
        request.cancel();
        let moved = http::Response::builder().status(307).header("location", format!("http://{there}/"));
        ready(Ok::<_, reqwest::Error>(reqwest::Response::from(moved.body("").unwrap())))
    });
    let sent = reqwest::Client::new().get("http://127.0.0.1:1/").build().unwrap();
    let mut client = client().follow_redirects(1).layer(moved);
    let call = stopping.enter(|| tower::Service::call(&mut client, sent));
    assert_eq!(call.await.unwrap_err().code(), throughline::Code::Cancelled);
    assert!(heads.lock().unwrap().is_empty());
}

/// Retries once after a 503.
#[derive(Clone)]
struct Once(bool);

impl<B: Clone, R> tower::retry::Policy<Request<B>, Response<R>, throughline::Error> for Once {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<B>,
        response: &mut Result<Response<R>, throughline::Error>,
    ) -> Option<Ready<()>> {
        let again = response.as_ref().is_ok_and(|response| response.status() == StatusCode::SERVICE_UNAVAILABLE);
        (again && std::mem::replace(&mut self.0, false)).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_a_call_of_its_own_with_the_time_that_is_left_when_it_is_sent() {
    let traced = Traced::new("api");
    let heads = Heads::default();
    let seen = heads.clone();
    let flaky = service_fn(move |request: Request<()>| {
        let heads = seen.clone();
        async move {
            let is_first = {
                let mut heads = heads.lock().unwrap();
                heads.push((request.method().clone(), request.headers().clone()));
                heads.len() == 1
            };
            tokio::time::advance(Duration::from_secs(5)).await;
            let status = if is_first { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            Ok::<_, Infallible>(Response::builder().status(status).body(Body::empty()).unwrap())
        }
    });
    let mut request = Request::get("http://cards/").body(()).unwrap();
    request.extensions_mut().insert(ctx(&traced));
    let retrying = ServiceBuilder::new().retry(Once(true)).layer(client()).service(flaky);
    assert_eq!(retrying.oneshot(request).await.unwrap().status(), StatusCode::OK);
    tokio::time::resume();

    let heads = std::mem::take(&mut *heads.lock().unwrap());
    let left: Vec<_> = heads.iter().map(|(_, headers)| headers["grpc-timeout"].to_str().unwrap()).collect();
    assert_eq!(left, ["19950000u", "14950000u"]);
    let spans = traced.spans(2).await;
    for (span, (_, headers)) in spans.iter().zip(heads.iter()) {
        assert!(headers["traceparent"].to_str().unwrap().contains(&span.span_context.span_id().to_string()));
    }
    assert_eq!(number(&spans[0], "http.response.status_code"), Some(503.0));
}
