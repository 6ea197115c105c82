//! Errors with all of their details, both ways.

use std::time::Duration;

use serde_json::{Value, json};
use throughline::{Code, Context, Error, SendWith};

use super::Pair;
use crate::support::client;
use crate::support::grpc::call_grpc;

#[tokio::test]
async fn go_reads_the_problem_documents_and_statuses_of_this_library() {
    let Some(mut pair) = Pair::start().await else { return };
    let details = json!([{ "@type": "example.com/Missing", "field": "amount" }]);

    let to = format!("http://{}/fail", pair.rust.http);
    pair.send(&json!({ "do": "call", "id": "http", "kind": "http1", "to": to }));
    let expected = json!({
        "type": "about:blank", "title": "Too Many Requests", "status": 429, "code": "RESOURCE_EXHAUSTED",
        "detail": "zu viel: 100 % für heute", "retryable": true, "origin": "rust", "path": ["rust"], "details": &details,
    });
    // A code of the service's own keeps its meaning.
    assert_eq!(pair.event("http", "result").await["what"], expected);

    let call = json!({ "do": "call", "id": "grpc", "kind": "/interop.Peer/Fail", "to": pair.rust.grpc.to_string() });
    pair.send(&call);
    let status = pair.event("grpc", "result").await["what"].take();
    let metadata = json!({
        "origin": "rust", "path": r#"["rust"]"#, "retryable": "true", "details": details.to_string(),
    });
    let info = json!({ "reason": "RESOURCE_EXHAUSTED", "domain": "throughline", "metadata": metadata });
    let expected = json!({
        "code": "RESOURCE_EXHAUSTED", "detail": "zu viel: 100 % für heute", "retry_ms": 1500, "info": info,
    });
    assert_eq!(status, expected);
}

fn check(error: &Error) {
    assert_eq!((error.code(), error.message()), (Code::NotFound, "keine Karte: 100 % weg, ü"));
    assert_eq!((error.origin(), error.retryable()), (Some("cards"), Some(false)));
    assert_eq!(error.path().collect::<Vec<_>>(), ["cards", "api"]);
    let detail = &error.details()[0];
    assert_eq!((&detail["@type"], &detail["card"]), (&json!("example.com/Missing"), &json!("7")));
}

#[tokio::test]
async fn this_library_reads_the_problem_documents_and_statuses_of_go() {
    let Some(pair) = Pair::start().await else { return };
    let ctx = Context::background();
    let details = json!([{ "@type": "example.com/Missing", "card": "7" }]);
    let problem = json!({
        "status": 404, "code": "NOT_FOUND", "detail": "keine Karte: 100 % weg, ü", "retryable": false,
        "origin": "cards", "path": ["cards", "api"], "details": details,
    });
    let http = reqwest::Client::new();
    let post = |body: &Value| http.post(format!("http://{}/fail", pair.go_http)).json(body);
    check(&post(&problem).send_with(&ctx, &client()).await.unwrap_err());

    // A problem without a member of this library's means its status, and leaves all else open.
    let error = post(&json!({ "status": 503, "title": "busy" })).send_with(&ctx, &client()).await.unwrap_err();
    assert_eq!((error.code(), error.retryable(), error.origin()), (Code::Unavailable, None, Some("127.0.0.1")));

    let metadata = json!({
        "origin": "cards", "path": r#"["cards","api"]"#, "retryable": "false", "details": details.to_string(),
    });
    let failure = json!({
        "code": 5, "message": "keine Karte: 100 % weg, ü", "reason": "NOT_FOUND", "domain": "throughline",
        "metadata": metadata, "retryMS": 250,
    });
    let fail = async |failure: Value| {
        let failed = call_grpc(&client(), &ctx, pair.go_grpc, "/interop.Peer/Fail", failure.to_string()).await;
        Error::from_grpc_status(failed.unwrap_err())
    };
    let error = fail(failure).await;
    check(&error);
    assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));

    // The details of another domain are kept, and claim nothing.
    let foreign = json!({
        "code": 14, "message": "later", "reason": "QUOTA", "domain": "example.com", "metadata": { "origin": "x" },
    });
    let error = fail(foreign).await;
    assert_eq!((error.code(), error.message(), error.origin()), (Code::Unavailable, "later", Some("127.0.0.1")));
    assert_eq!(error.details()[0]["reason"], "QUOTA");
}
