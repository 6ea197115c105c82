//! Responses that handlers change, and documents of callees that an edge passes on.

use axum::extract::Extension;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Router, body::Body};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use throughline::trace::Status;
use throughline::{Code, Context, ContextLayer, Error, SpanRecord};
use tower::{Layer, ServiceExt};

use crate::support::{Traced, client, number, serve, text};

fn incomplete() -> Error {
    Error::new(Code::InvalidArgument, "amount is missing")
}

/// The response of `shape` as the caller gets it, and the span.
async fn through<A: IntoResponse + 'static>(
    layer: impl FnOnce(&Traced) -> ContextLayer,
    shape: fn() -> A,
) -> (StatusCode, HeaderMap, String, SpanRecord) {
    let service = Traced::new("cards");
    let app = Router::new().route("/", get(move || async move { shape() })).layer(layer(&service));
    let response = reqwest::get(format!("http://{}/", serve(app).await)).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.text().await.unwrap();
    (status, headers, body, service.span().await)
}

fn document(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn a_status_that_the_handler_has_chosen_stays_and_the_error_gets_its_path() {
    let shaped = || (StatusCode::UNPROCESSABLE_ENTITY, incomplete());
    let (status, headers, body, span) = through(Traced::internal, shaped).await;
    let body = document(&body);
    assert_eq!((status.as_u16(), &body["status"], &body["code"]), (422, &422.into(), &"INVALID_ARGUMENT".into()));
    assert_eq!((&body["detail"], &body["origin"]), (&"amount is missing".into(), &"cards".into()));
    assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
    assert_eq!((number(&span, "http.response.status_code"), &span.status), (Some(422.0), &Status::Unset));

    let (status, _, body, _) = through(Traced::edge, shaped).await;
    let body = document(&body);
    assert_eq!((status.as_u16(), &body["detail"], &body["origin"]), (422, &"amount is missing".into(), &Value::Null));
}

#[tokio::test]
async fn a_page_instead_of_an_error_document_is_passed_on() {
    let page =
        || (StatusCode::NOT_FOUND, Extension(Error::new(Code::NotFound, "no such card")), Html("<h1>Nothing</h1>"));
    for layer in [Traced::internal, Traced::edge] {
        let (status, headers, body, span) = through(layer, page).await;
        assert_eq!((status.as_u16(), body.as_str()), (404, "<h1>Nothing</h1>"));
        assert!(headers[CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
        assert_eq!(span.events.iter().filter(|event| event.name == "exception").count(), 1, "the span has the error");
    }
}

#[tokio::test]
async fn a_document_that_the_handler_has_rewritten_is_passed_on() {
    let shaped = || {
        let mut response = incomplete().into_response();
        *response.body_mut() = Body::from(json!({"type": "https://x/incomplete", "field": "amount"}).to_string());
        response
    };
    for layer in [Traced::internal, Traced::edge] {
        let (status, headers, body, _) = through(layer, shaped).await;
        assert_eq!(
            (status.as_u16(), document(&body)),
            (400, json!({"type": "https://x/incomplete", "field": "amount"}))
        );
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
    }
    // Of the same length.
    let shaped = || {
        let mut response = incomplete().into_response();
        let length = incomplete().to_response().body().len();
        *response.body_mut() = Body::from("x".repeat(length));
        response
    };
    assert!(through(Traced::internal, shaped).await.2.starts_with("xxx"));
}

#[tokio::test]
async fn headers_and_a_content_type_beside_an_error_are_passed_on() {
    let shaped = || ([("x-request", "7"), ("content-type", "application/json"), ("retry-after", "9")], incomplete());
    let (status, headers, body, _) = through(Traced::internal, shaped).await;
    assert_eq!((status.as_u16(), &document(&body)["origin"]), (400, &"cards".into()));
    let shown = ["x-request", "content-type", "retry-after"].map(|name| headers[name].to_str().unwrap());
    assert_eq!(shown, ["7", "application/json", "9"]);
}

/// A gateway that passes on the responses of `behind`.
async fn gateway(layer: ContextLayer, behind: std::net::SocketAddr) -> std::net::SocketAddr {
    let forward = move |Extension(ctx): Extension<Context>| async move {
        let connections = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::get(format!("http://{behind}/")).body(Body::empty()).unwrap();
        request.extensions_mut().insert(ctx);
        client().layer(connections).oneshot(request).await.unwrap().map(Body::new)
    };
    serve(Router::new().route("/", get(forward)).layer(layer)).await
}

#[tokio::test]
async fn an_edge_redacts_a_document_of_an_internal_service_that_it_passes_on() {
    let orphan = || {
        let detail = [("row".to_owned(), 7.into())].into_iter().collect();
        let public = [("since".to_owned(), 2026.into())].into_iter().collect();
        let error = Error::new(Code::NotFound, "row 7 of users has no owner").with_instance("/rows/7");
        error.with_detail("example.com/Row", detail).with_public_detail("example.com/Gone", public)
    };
    let inner = Traced::new("users");
    let users = serve(Router::new().route("/", get(move || async move { orphan() })).layer(inner.internal())).await;
    let service = Traced::new("api");
    let ask = async |layer| reqwest::get(format!("http://{}/", gateway(layer, users).await)).await.unwrap();
    let passed = ask(service.internal()).await.text().await.unwrap();
    assert!(passed.contains("row 7"), "internal services pass it on unchanged: {passed}");
    let redacted = ask(service.edge()).await;
    assert_eq!(
        (redacted.status().as_u16(), &redacted.headers()[CONTENT_TYPE]),
        (404, &"application/problem+json".parse().unwrap())
    );
    let body = document(&redacted.text().await.unwrap());
    assert_eq!(
        body,
        json!({
            "type": "about:blank", "title": "Not Found", "status": 404, "detail": "not found", "code": "NOT_FOUND",
            "details": [{"@type": "example.com/Gone", "since": 2026}],
        })
    );
    let span = service.spans(4).await.into_iter().rfind(|span| span.name == "GET /").unwrap();
    assert_eq!(
        text(&span, "throughline.error.origin"),
        Some("users"),
        "the span has the origin, the client does not get it"
    );
}

#[tokio::test]
async fn an_edge_passes_on_documents_of_other_libraries_unchanged() {
    const FOREIGN: &str = r#"{"type": "https://x/limit", "detail": "3 of 3 cards", "code": "card_limit"}"#;
    let foreign = || (StatusCode::CONFLICT, [(CONTENT_TYPE, "application/problem+json")], FOREIGN);
    let (status, _, body, _) = through(Traced::edge, foreign).await;
    assert_eq!((status.as_u16(), body.as_str()), (409, FOREIGN));
}

#[tokio::test]
async fn an_edge_replaces_an_unreadable_document_by_the_meaning_of_its_status() {
    fn with(header: &'static str, value: &'static str, body: impl Into<Body>) -> Response {
        let head = [(CONTENT_TYPE.as_str(), "application/problem+json"), (header, value)];
        (StatusCode::CONFLICT, head, body.into()).into_response()
    }
    let failing = || {
        let chunks = [Ok("{\"origin\": \"users\""), Err(std::io::Error::other("gone"))];
        with("x-a", "b", Body::from_stream(futures_util::stream::iter(chunks)))
    };
    let deep =
        || with("x-a", "b", format!("{{\"origin\": \"users\", \"details\": {}{}}}", "[".repeat(200), "]".repeat(200)));
    let shapes: [fn() -> Response; 4] =
        [|| with("content-encoding", "gzip", "users"), || with("x-a", "b", "users".repeat(20_000)), failing, deep];
    for shape in shapes {
        let (status, headers, body, _) = through(Traced::edge, shape).await;
        assert_eq!((status.as_u16(), &document(&body)["code"]), (409, &"ABORTED".into()));
        assert!(!body.contains("users") && !headers.contains_key("content-encoding"));
    }
}

#[tokio::test]
async fn a_deadline_ends_the_reading_of_a_document() {
    let endless = || {
        let chunks = futures_util::stream::pending::<Result<&'static str, std::io::Error>>();
        (StatusCode::CONFLICT, [(CONTENT_TYPE, "application/problem+json")], Body::from_stream(chunks))
    };
    let edge = |service: &Traced| service.edge().max_timeout(std::time::Duration::from_millis(30));
    let (status, _, body, _) = through(edge, endless).await;
    assert_eq!((status.as_u16(), &document(&body)["code"]), (504, &"DEADLINE_EXCEEDED".into()));
}

#[tokio::test]
async fn a_head_request_gets_the_head_of_an_error() {
    let service = Traced::new("cards");
    let app = Router::new().route("/", get(|| async { incomplete() })).layer(service.internal());
    let response = reqwest::Client::new().head(format!("http://{}/", serve(app).await)).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()[CONTENT_TYPE]),
        (400, &"application/problem+json".parse().unwrap())
    );
}
