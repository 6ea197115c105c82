//! Listeners: how they start and stop.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use throughline::{Cause, Code, Context};
use throughline_transport::NoSuchService;
use tokio::sync::mpsc;

use super::{Harness, call, request, serve};
use crate::start;

pub async fn an_unknown_service_fails_at_once<H: Harness>() {
    let medium = start!(H);
    serve(medium.server(), "balance", async |_, _| Ok(Response::default())).await;
    // There is no deadline: only the medium itself can end this call.
    let sent = medium.client().send(&Context::background(), "nobody", request("/", "")).await;
    let error = sent.expect_err("nobody listens");
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(NoSuchService::find_in(&error).map(NoSuchService::service), Some("nobody"));
    assert_eq!(error.retryable(), Some(false));
}

pub async fn a_name_has_one_listener<H: Harness>() {
    let medium = start!(H);
    let _first = medium.server().listen("balance").await.unwrap();
    let error = medium.server().listen("balance").await.expect_err("there is a listener");
    assert_eq!(error.code(), Code::AlreadyExists);
    let _other = medium.server().listen("cards").await.unwrap();
}

pub async fn names_are_checked<H: Harness>() {
    let medium = start!(H);
    for name in ["", "a.b", "a b", "a/b", "*", ">", "ä", "a\r\nb", &"a".repeat(64)] {
        let error = medium.server().listen(name).await.expect_err("the name is not valid");
        assert_eq!(error.code(), Code::InvalidArgument, "{name:?}");
    }
}

pub async fn nobody_listens_after_stop_listening<H: Harness>() {
    let medium = start!(H);
    assert!(!medium.server().stop_listening("balance").await);
    let serving = serve(medium.server(), "balance", async |_, _| Ok(Response::default())).await;
    medium.client().send(&Context::background(), "balance", request("/", "")).await.unwrap();
    assert!(medium.server().stop_listening("balance").await);
    serving.await.unwrap();
    assert!(!medium.server().stop_listening("balance").await);
    let error = medium.client().send(&Context::background(), "balance", request("/", "")).await.unwrap_err();
    assert_eq!(NoSuchService::find_in(&error).map(NoSuchService::service), Some("balance"), "{error:?}");
}

pub async fn requests_in_flight_finish_before_the_listener_ends<H: Harness>() {
    let medium = start!(H);
    let mut listener = medium.server().listen("balance").await.unwrap();
    let call = call(medium.client());
    let incoming = listener.next().await.unwrap();
    let server = medium.server().clone();
    let stopping = tokio::spawn(async move { server.stop_listening("balance").await });
    let responding = async {
        super::until(|| medium.server().counters("balance").is_none_or(|counters| counters.is_draining)).await;
        incoming.responder.respond(Response::new(Bytes::from("in time")));
    };
    let (end, ()) = tokio::join!(listener.next(), responding);
    assert!(end.is_none());
    assert!(stopping.await.unwrap());
    assert_eq!(call.await.unwrap().unwrap().body(), "in time");
}

pub async fn requests_in_flight_are_cancelled_after_the_drain_time<H: Harness>() {
    let medium = start!(H, |transport| transport.drain_timeout(Duration::from_millis(20)));
    let (sender, mut contexts) = mpsc::unbounded_channel();
    let serving = serve(medium.server(), "balance", move |ctx, _| {
        sender.send(ctx).unwrap();
        std::future::pending()
    })
    .await;
    let call = call(medium.client());
    let ctx = contexts.recv().await.unwrap();
    assert!(medium.server().stop_listening("balance").await);
    serving.await.unwrap();
    assert!(matches!(ctx.cause(), Some(Cause::Shutdown)), "{:?}", ctx.cause());
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Unavailable);
}

pub async fn a_listener_that_is_dropped_refuses_what_it_did_not_take<H: Harness>() {
    let medium = start!(H);
    let listener = medium.server().listen("balance").await.unwrap();
    let call = call(medium.client());
    super::until(|| listener.counters().in_flight == 1).await;
    drop(listener);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)));
}

pub async fn a_name_can_be_listened_to_again<H: Harness>() {
    let medium = start!(H);
    for body in ["first", "second"] {
        serve(medium.server(), "balance", move |_, _| async move { Ok(Response::new(Bytes::from(body))) }).await;
        let response = medium.client().send(&Context::background(), "balance", request("/", "")).await.unwrap();
        assert_eq!(response.body(), body);
        assert!(medium.server().stop_listening("balance").await);
    }
}
