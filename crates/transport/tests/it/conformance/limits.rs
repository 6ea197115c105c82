//! Limits: requests in flight, and the size of bodies.

use std::num::NonZeroUsize;

use bytes::Bytes;
use http::{Request, Response};
use throughline::{Code, Context};

use super::{Harness, call, request, serve, until};
use crate::start;

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

pub async fn one_request_more_than_allowed_is_refused_at_once<H: Harness>() {
    let medium = start!(H, |transport| transport.max_in_flight(TWO));
    let mut listener = medium.server().listen("balance").await.unwrap();
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls.push(call(medium.client()));
    }
    let (first, second) = (listener.next().await.unwrap(), listener.next().await.unwrap());
    let error = medium.client().send(&Context::background(), "balance", request("/", "")).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::ResourceExhausted, "balance has 2 requests in flight"));
    assert_eq!((listener.counters().in_flight, listener.counters().refused), (2, 1));

    // A response makes room for one more.
    first.responder.respond(Response::default());
    calls.push(call(medium.client()));
    let third = listener.next().await.unwrap();
    second.responder.respond(Response::default());
    third.responder.respond(Response::default());
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

pub async fn a_listener_that_takes_nothing_fills_only_its_own_limit<H: Harness>() {
    let medium = start!(H, |transport| transport.max_in_flight(TWO));
    let slow = medium.server().listen("balance").await.unwrap();
    serve(medium.server(), "cards", async |_, _| Ok(Response::new(Bytes::from("active")))).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let client = medium.client().clone();
        waiting
            .push(tokio::spawn(async move { client.send(&Context::background(), "balance", request("/", "")).await }));
    }
    until(|| slow.counters().in_flight == 2).await;
    for _ in 0..100 {
        let error = medium.client().send(&Context::background(), "balance", request("/", "")).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
    }
    let response = medium.client().send(&Context::background(), "cards", request("/", "")).await.unwrap();
    assert_eq!(response.body(), "active");
    assert_eq!((slow.counters().in_flight, slow.counters().refused), (2, 100));
    waiting.iter().for_each(|call| call.abort());
}

pub async fn a_request_body_over_the_limit_is_refused<H: Harness>() {
    let medium = start!(H, |transport| transport.max_body(1000));
    let echo = async |_, request: Request<Bytes>| Ok(Response::new(request.into_body()));
    serve(medium.server(), "balance", echo).await;
    let ctx = Context::background();
    let error = medium.client().send(&ctx, "balance", request("/", vec![b'a'; 1001])).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(error.message(), "the request body of balance is larger than 1000 bytes");
    // A client with a larger limit gets the refusal of the server.
    let generous = medium.client().clone().max_body(1 << 20);
    let error = generous.send(&ctx, "balance", request("/", vec![b'a'; 1 << 20])).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(error.message(), "the request body of balance is larger than 1000 bytes");
    let response = medium.client().send(&ctx, "balance", request("/", vec![b'a'; 1000])).await.unwrap();
    assert_eq!(response.body().len(), 1000);
}

pub async fn a_response_body_over_the_limit_is_refused<H: Harness>() {
    let medium = start!(H, |transport| transport.max_body(1000));
    serve(medium.server(), "balance", async |_, request: Request<Bytes>| {
        let length: usize = request.uri().path()[1..].parse().unwrap();
        Ok(Response::new(Bytes::from(vec![b'a'; length])))
    })
    .await;
    let ctx = Context::background();
    let error = medium.client().send(&ctx, "balance", request("/1001", "")).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(error.message(), "the response body of balance is larger than 1000 bytes");
    // A client with a smaller limit than the server.
    let small = medium.client().clone().max_body(10);
    let error = small.send(&ctx, "balance", request("/500", "")).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(error.message(), "the response body of balance is larger than 10 bytes");
    assert_eq!(medium.client().send(&ctx, "balance", request("/1000", "")).await.unwrap().body().len(), 1000);
}
