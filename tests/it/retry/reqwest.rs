//! Retries of reqwest requests.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderMap, Method, StatusCode};

use throughline::{ClientLayer, Code, Context, Error, RetryLayer, RetryPolicy, SendWith};

use super::{millis, seconds};
use crate::support::{Traced, client, number, serve, text};

type Seen = Arc<Mutex<Vec<(Method, HeaderMap, String)>>>;

/// A service that handles its first requests with `script`, and the others with their body.
async fn scripted(script: Vec<fn() -> Response>) -> (String, Seen) {
    let seen = Seen::default();
    let handler = move |State(seen): State<Seen>, method: Method, headers: HeaderMap, body: String| {
        let mut seen = seen.lock().unwrap();
        let response = script.get(seen.len()).map_or_else(|| body.clone().into_response(), |reply| reply());
        seen.push((method, headers, body));
        std::future::ready(response)
    };
    let app = Router::new().fallback(any(handler)).with_state(seen.clone());
    (format!("http://{}/", serve(app).await), seen)
}

fn unavailable() -> Response {
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

fn layer() -> RetryLayer {
    client().follow_redirects(3).retry(policy())
}

fn policy() -> RetryPolicy {
    RetryPolicy::new().backoff(millis(1), millis(1))
}

fn reqwest_client() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

#[tokio::test]
async fn send_with_retries_and_each_attempt_is_a_span() {
    let caller = Traced::new("api");
    let ctx = Context::background().with_tracer(caller.telemetry.tracer()).with_timeout(seconds(10));
    let (url, seen) = scripted(vec![unavailable, unavailable]).await;
    let response = reqwest_client().put(&url).body("7").send_with(&ctx, &layer()).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "7");
    let spans = caller.spans(3).await;
    let counts: Vec<_> = spans.iter().map(|span| number(span, "http.request.resend_count")).collect();
    assert_eq!(counts, [None, Some(1.0), Some(2.0)]);
    let seen = seen.lock().unwrap();
    for ((_, headers, body), span) in seen.iter().zip(&spans) {
        assert!(headers["traceparent"].to_str().unwrap().contains(&span.span_context.span_id().to_string()));
        assert!(headers.contains_key("grpc-timeout"));
        assert_eq!((body.as_str(), text(span, "throughline.cancel.cause")), ("7", None));
    }
}

#[tokio::test]
async fn the_error_in_the_document_of_an_internal_service_decides() {
    let cases: [(fn() -> Response, usize); 3] = [
        (|| Error::new(Code::Unavailable, "migrating").with_retryable(false).into_response(), 1),
        (|| Error::new(Code::Internal, "deadlock").with_retryable(true).into_response(), 2),
        (|| Error::new(Code::Internal, "bug").into_response(), 1),
    ];
    for (reply, sent) in cases {
        let (url, seen) = scripted(vec![reply]).await;
        let result = reqwest_client().get(&url).send_with(&Context::background(), &layer()).await;
        assert_eq!((seen.lock().unwrap().len(), result.is_ok()), (sent, sent == 2));
        // An external host decides by its status only.
        let (url, seen) = scripted(vec![reply]).await;
        let external = ClientLayer::external().retry(policy());
        let _ = reqwest_client().get(&url).send_with(&Context::background(), &external).await;
        let by_status = if reply().status() == 503 { 2 } else { 1 };
        assert_eq!(seen.lock().unwrap().len(), by_status);
    }
}

#[tokio::test]
async fn a_post_needs_a_declaration() {
    let client = reqwest_client();
    let ctx = Context::background();
    for (key, layer, sent) in [(None, layer(), 1), (Some("7"), layer(), 2), (None, client_declaring_posts(), 2)] {
        let (url, seen) = scripted(vec![unavailable]).await;
        let mut request = client.post(&url).body("7");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let result = request.send_with(&ctx, &layer).await;
        assert_eq!((seen.lock().unwrap().len(), result.is_ok()), (sent, sent == 2));
    }
}

fn client_declaring_posts() -> RetryLayer {
    client().retry(policy().idempotent_if(|method, uri| method == Method::POST && uri.path() == "/"))
}

#[tokio::test]
async fn a_stream_is_not_sent_again() {
    let (url, seen) = scripted(vec![unavailable]).await;
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("7")]));
    let error = reqwest_client().put(&url).body(body).send_with(&Context::background(), &layer()).await.unwrap_err();
    assert_eq!((error.code(), seen.lock().unwrap().len()), (Code::Unavailable, 1));
}

#[tokio::test]
async fn response_with_returns_the_last_response_whatever_its_status() {
    let (url, seen) =
        scripted(vec![unavailable, unavailable, || (StatusCode::BAD_GATEWAY, "page").into_response()]).await;
    let response = reqwest_client().get(&url).response_with(&Context::background(), &layer()).await.unwrap();
    assert_eq!((response.status(), seen.lock().unwrap().len()), (StatusCode::BAD_GATEWAY, 3));
    assert_eq!(response.text().await.unwrap(), "page");
}

#[tokio::test]
async fn a_redirect_and_a_retry_are_counted_together() {
    let caller = Traced::new("api");
    let ctx = Context::background().with_tracer(caller.telemetry.tracer());
    let moved = || (StatusCode::TEMPORARY_REDIRECT, [("location", "/there")]).into_response();
    let (url, seen) = scripted(vec![moved, unavailable, moved]).await;
    let response = reqwest_client().put(&url).body("7").send_with(&ctx, &layer()).await.unwrap();
    assert_eq!(response.url().path(), "/there");
    assert_eq!(response.text().await.unwrap(), "7");
    assert_eq!(seen.lock().unwrap().len(), 4);
    let counts: Vec<_> = caller.spans(4).await.iter().map(|span| number(span, "http.request.resend_count")).collect();
    assert_eq!(counts, [None, Some(1.0), Some(2.0), Some(3.0)]);
}

#[tokio::test]
async fn a_timeout_of_the_request_limits_each_attempt() {
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = format!("http://{}/", hanging.local_addr().unwrap());
    let request = reqwest_client().get(nowhere).timeout(millis(20));
    let policy = policy();
    let error = request.send_with(&Context::background(), &client().retry(policy.clone())).await.unwrap_err();
    assert_eq!((error.code(), policy.retry_count()), (Code::DeadlineExceeded, 2));
}

#[tokio::test]
async fn a_reqwest_client_as_a_service_retries_with_the_ambient_context() {
    use tower::{Layer, Service};
    let (url, seen) = scripted(vec![unavailable]).await;
    let mut service = layer().layer(reqwest_client());
    let request = reqwest_client().get(&url).build().unwrap();
    let ctx = Context::background().with_timeout(seconds(10));
    let call = ctx.enter(|| service.call(request));
    assert_eq!(call.await.unwrap().status(), 200);
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 2 && seen.iter().all(|(_, headers, _)| headers.contains_key("grpc-timeout")));
}
