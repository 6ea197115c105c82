//! Callers that give up.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use throughline::{Cause, Code, Context, ContextError};
use throughline_transport::Transport;
use tokio::sync::mpsc;

use super::{Harness, call, request, serve, until};
use crate::start;

/// Serves `balance` with a handler that never ends. Returns the handlers' contexts.
async fn serve_stalling(server: &Transport) -> mpsc::UnboundedReceiver<Context> {
    let (sender, contexts) = mpsc::unbounded_channel();
    let stall = move |ctx, _| {
        sender.send(ctx).unwrap();
        std::future::pending()
    };
    serve(server, "balance", stall).await;
    contexts
}

pub async fn a_cancelled_call_cancels_its_handler<H: Harness>() {
    let medium = start!(H);
    let mut contexts = serve_stalling(medium.server()).await;
    let ctx = Context::background().with_cancel();
    let (client, call_ctx) = (medium.client().clone(), ctx.context().clone());
    let call = tokio::spawn(async move { client.send(&call_ctx, "balance", request("/", "")).await });
    let handler_ctx = contexts.recv().await.unwrap();
    ctx.cancel();
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Cancelled);
    handler_ctx.done().await;
    assert!(matches!(handler_ctx.cause(), Some(Cause::ClientDisconnected)), "{:?}", handler_ctx.cause());
    until(|| medium.server().counters("balance").unwrap().in_flight == 0).await;
    assert_eq!(medium.client().sending(), 0);
}

pub async fn a_dropped_call_cancels_its_handler<H: Harness>() {
    let medium = start!(H);
    let mut contexts = serve_stalling(medium.server()).await;
    let call = call(medium.client());
    let handler_ctx = contexts.recv().await.unwrap();
    call.abort();
    handler_ctx.done().await;
    assert!(matches!(handler_ctx.cause(), Some(Cause::ClientDisconnected)), "{:?}", handler_ctx.cause());
    until(|| medium.server().counters("balance").unwrap().in_flight == 0).await;
    until(|| medium.client().sending() == 0).await;
}

pub async fn each_of_200_dropped_calls_cancels_its_handler<H: Harness>() {
    let medium = start!(H);
    let mut contexts = serve_stalling(medium.server()).await;
    let mut calls = Vec::new();
    for _ in 0..200 {
        calls.push(call(medium.client()));
    }
    let mut handlers = Vec::new();
    while handlers.len() < calls.len() {
        handlers.push(contexts.recv().await.unwrap());
    }
    calls.iter().for_each(|call| call.abort());
    for ctx in handlers {
        ctx.done().await;
        assert!(matches!(ctx.cause(), Some(Cause::ClientDisconnected)), "{:?}", ctx.cause());
    }
    until(|| medium.server().counters("balance").unwrap().in_flight == 0).await;
    until(|| medium.client().sending() == 0).await;
}

pub async fn a_deadline_ends_the_call_and_its_handler<H: Harness>() {
    let medium = start!(H);
    let mut contexts = serve_stalling(medium.server()).await;
    // A first call, so that the time of the second one is not spent to connect.
    let first = call(medium.client());
    let _ = contexts.recv().await.unwrap();
    first.abort();
    let ctx = Context::background().with_timeout(Duration::from_millis(200));
    let error = medium.client().send(&ctx, "balance", request("/", "")).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let handler_ctx = contexts.recv().await.unwrap();
    handler_ctx.done().await;
    assert_eq!(handler_ctx.err(), Some(ContextError::DeadlineExceeded));
    until(|| medium.server().counters("balance").unwrap().in_flight == 0).await;
}

pub async fn a_response_that_comes_too_late_is_counted<H: Harness>() {
    let medium = start!(H);
    let mut listener = medium.server().listen("balance").await.unwrap();
    let call = call(medium.client());
    let mut incoming = listener.next().await.unwrap();
    call.abort();
    assert!(matches!(incoming.responder.closed().await, Cause::ClientDisconnected));
    incoming.responder.respond(Response::new(Bytes::from("too late")));
    let counters = listener.counters();
    assert_eq!((counters.late_responses, counters.requests, counters.in_flight), (1, 1, 0));
}
