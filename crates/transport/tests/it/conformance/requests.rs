//! Requests and their responses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode};
use throughline::{Code, Context, Error};

use super::{Harness, request, serve};
use crate::start;

pub async fn a_request_and_its_response_arrive_unchanged<H: Harness>() {
    let medium = start!(H);
    serve(medium.server(), "balance", async |_, request: Request<Bytes>| {
        assert_eq!(request.method(), Method::PUT);
        assert_eq!(request.uri().path_and_query().unwrap().as_str(), "/accounts/7%20a?from=1&to=%C3%A9");
        assert_eq!(request.headers()["x-first"], "1");
        let all: Vec<_> = request.headers().get_all("x-many").iter().collect();
        assert_eq!(all, ["a", "b; c=\"d\""]);
        assert_eq!(request.headers()["x-bytes"].as_bytes(), b"caf\xc3\xa9");
        assert_eq!(request.body(), "\0binary\r\n\r\n");
        let response = Response::builder().status(StatusCode::ACCEPTED).header("x-back", "2");
        Ok(response.header("set-cookie", "a=1").header("set-cookie", "b=2").body(Bytes::from("done\0")).unwrap())
    })
    .await;
    let request = Request::builder()
        .method(Method::PUT)
        .uri("/accounts/7%20a?from=1&to=%C3%A9")
        .header("x-first", "1")
        .header("x-many", "a")
        .header("x-many", "b; c=\"d\"")
        .header("x-bytes", &b"caf\xc3\xa9"[..])
        .body(Bytes::from("\0binary\r\n\r\n"))
        .unwrap();
    let response = medium.client().send(&Context::background(), "balance", request).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.headers()["x-back"], "2");
    let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(response.body(), "done\0");
}

pub async fn a_request_without_a_path_gets_one<H: Harness>() {
    let medium = start!(H);
    let echo = async |_, request: Request<Bytes>| Ok(Response::new(Bytes::from(request.uri().path().to_owned())));
    serve(medium.server(), "balance", echo).await;
    let response = medium.client().send(&Context::background(), "balance", Request::new(Bytes::new())).await.unwrap();
    assert_eq!(response.body(), "/");
}

pub async fn errors_of_a_service_arrive_with_their_origin<H: Harness>() {
    let medium = start!(H);
    let fail = async |_, _| Err(Error::new(Code::FailedPrecondition, "the account is closed"));
    serve(medium.server(), "balance", fail).await;
    let sent = medium.client().send(&Context::background(), "balance", request("/reserve", "")).await;
    let error = sent.expect_err("the handler fails");
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "the account is closed"));
    assert_eq!(error.origin(), Some("balance"));
}

pub async fn a_thousand_requests_at_once_get_their_own_responses<H: Harness>() {
    let medium = start!(H);
    let echo = async |_, request: Request<Bytes>| Ok(Response::new(request.into_body()));
    serve(medium.server(), "balance", echo).await;
    let calls = (0..1000).map(|number| {
        let client = medium.client().clone();
        async move {
            let body = number.to_string();
            let sent = client.send(&Context::background(), "balance", request("/", body.clone())).await;
            assert_eq!(sent.unwrap().body(), body.as_bytes());
        }
    });
    join_all(calls).await;
    assert_eq!(medium.client().sending(), 0);
}

pub async fn bodies_of_4_mib_arrive_in_both_directions<H: Harness>() {
    let medium = start!(H);
    let echo = async |_, request: Request<Bytes>| Ok(Response::new(request.into_body()));
    serve(medium.server(), "balance", echo).await;
    let body: Bytes = (0..4 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().into();
    let sent = medium.client().send(&Context::background(), "balance", request("/", body.clone())).await;
    assert!(sent.unwrap().body() == &body);
}

pub async fn a_panicking_handler_fails_only_its_own_call<H: Harness>() {
    let medium = start!(H);
    serve(medium.server(), "balance", async |_, request: Request<Bytes>| {
        assert!(request.body() != "panic", "as asked");
        Ok(Response::new(Bytes::from("done")))
    })
    .await;
    let (client, ctx) = (medium.client(), Context::background());
    let error = client.send(&ctx, "balance", request("/", "panic")).await.expect_err("the handler panics");
    assert_eq!((error.code(), error.origin()), (Code::Internal, Some("balance")));
    assert_eq!(client.send(&ctx, "balance", request("/", "")).await.unwrap().body(), "done");
}

pub async fn a_dropped_responder_responds_with_internal<H: Harness>() {
    let medium = start!(H);
    let mut listener = medium.server().listen("balance").await.unwrap();
    let was_dropped = Arc::new(AtomicBool::new(false));
    let dropped = Arc::clone(&was_dropped);
    tokio::spawn(async move {
        while let Some(incoming) = listener.next().await {
            dropped.store(true, Ordering::SeqCst);
            drop(incoming.responder);
        }
    });
    let error = medium.client().send(&Context::background(), "balance", request("/", "")).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Internal, "balance did not respond"));
    assert!(was_dropped.load(Ordering::SeqCst));
}
