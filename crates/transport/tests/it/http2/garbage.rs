//! Peers that do not speak HTTP/2, or stop to.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use throughline::{Code, Context, Error};
use throughline_transport::Transport;
use tokio::net::TcpListener;

use super::peers::{SETTINGS, scripted};
use super::{addresses, bound, client_of};
use crate::conformance::{request, serve};

async fn sent_to(address: std::net::SocketAddr) -> Error {
    let client = client_of(address.to_string());
    let sent = client.send(&Context::background(), "balance", request("/", "a body")).await;
    let error = sent.expect_err("the peer sends garbage");
    assert_eq!(client.sending(), 0);
    error
}

#[tokio::test]
async fn a_peer_that_does_not_speak_http2_is_named() {
    let error = sent_to(scripted(&[b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"]).await).await;
    assert_eq!(error.code(), Code::Internal, "{error:?}");
    assert!(error.message().starts_with("balance at 127.0.0.1:"), "{error:?}");
}

#[tokio::test]
async fn garbage_after_a_valid_start_is_internal() {
    let error = sent_to(scripted(&[SETTINGS, &[0xff; 64]]).await).await;
    assert_eq!(error.code(), Code::Internal, "{error:?}");
    assert!(error.message().starts_with("balance at 127.0.0.1:"), "{error:?}");
}

#[tokio::test]
async fn headers_that_cannot_be_decoded_are_internal() {
    // HEADERS on stream 1, complete, with an index that is not in the table.
    const HEADERS: &[u8] = &[0, 0, 2, 1, 5, 0, 0, 0, 1, 0xff, 0xff];
    let error = sent_to(scripted(&[SETTINGS, HEADERS]).await).await;
    assert_eq!(error.code(), Code::Internal, "{error:?}");
}

#[tokio::test]
async fn a_stream_that_the_peer_refuses_may_be_sent_again() {
    // RST_STREAM on stream 1 with REFUSED_STREAM.
    let error = sent_to(scripted(&[SETTINGS, &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7]]).await).await;
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)), "{error:?}");
}

#[tokio::test]
async fn a_request_above_the_last_stream_of_a_goaway_may_be_sent_again() {
    // GOAWAY with the last stream 0 and NO_ERROR.
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let error = sent_to(scripted(&[SETTINGS, GOAWAY]).await).await;
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)), "{error:?}");
}

#[tokio::test]
async fn a_peer_that_is_silent_is_found_by_pings() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let silent = tokio::spawn(async move { socket.accept().await.unwrap() });
    let resolver = throughline_transport::StaticResolver::new().with("balance", [address]);
    let pings = Duration::from_millis(10);
    let client = Transport::http2().keep_alive(pings, pings).resolver(resolver).client();
    // There is no deadline: only the pings can end this call.
    let error = client.send(&Context::background(), "balance", request("/", "")).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, None), "{error:?}");
    drop(silent.await.unwrap());
}

#[tokio::test]
async fn headers_of_a_response_have_a_limit() {
    let server = bound().await;
    serve(&server, "balance", async |_, request: Request<Bytes>| {
        let response = Response::builder();
        let response = match request.uri().path() {
            "/large" => (0..20).fold(response, |r, i| r.header(format!("x-{i}"), "a".repeat(8000))),
            _ => response,
        };
        Ok(response.body(Bytes::new()).unwrap())
    })
    .await;
    let client = Transport::http2().resolver(addresses([&server])).client();
    let error = client.send(&Context::background(), "balance", request("/large", "")).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error:?}");
    // Only that request has failed.
    client.send(&Context::background(), "balance", request("/", "")).await.unwrap();
}

#[tokio::test]
async fn a_reset_within_the_reply_reserve_is_a_missed_deadline() {
    // RST_STREAM on stream 1 with CANCEL.
    const RESET: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
    let ctx = Context::background().with_timeout(Duration::from_secs(3600));
    for (timeout, code) in [("10M", Code::Cancelled), ("1n", Code::DeadlineExceeded)] {
        let client = client_of(scripted(&[SETTINGS, RESET]).await.to_string());
        // The callee's timeout. Only the reply reserve is left after it.
        let request = Request::post("/").header("grpc-timeout", timeout).body(Bytes::new()).unwrap();
        let error = client.send(&ctx, "balance", request).await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
    }
    assert!(!ctx.is_done());
}
