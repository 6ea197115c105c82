//! Peers that do not keep to the protocol.

use async_nats::{Client, HeaderMap, HeaderValue, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use throughline::{Code, Context};

use super::Nats;
use crate::conformance::{Harness, request, serve};
use crate::{in_time, start};

async fn raw(medium: &Nats) -> Client {
    async_nats::connect(medium.broker.url()).await.unwrap()
}

/// Waits until the broker has handled what was sent.
async fn settle(raw: &Client) {
    let inbox = raw.new_inbox();
    let mut echo = raw.subscribe(inbox.clone()).await.unwrap();
    raw.publish(inbox, "".into()).await.unwrap();
    echo.next().await.unwrap();
}

/// Listens to the requests to the service `cards`, with `async-nats` alone.
async fn as_cards(medium: &Nats) -> (Client, Subscriber) {
    let raw = raw(medium).await;
    let requests = raw.subscribe("svc.cards").await.unwrap();
    settle(&raw).await;
    (raw, requests)
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse::<HeaderValue>().unwrap());
    }
    headers
}

async fn serve_echo(medium: &Nats) {
    serve(medium.server(), "balance", async |_, request: Request<Bytes>| Ok(Response::new(request.into_body()))).await;
}

async fn assert_it_serves(medium: &Nats) {
    let sent = medium.client().send(&Context::background(), "balance", request("/", "still here")).await;
    assert_eq!(sent.unwrap().body(), "still here");
}

fn status(message: &Message) -> &str {
    message.headers.as_ref().unwrap().get("Http-Status").unwrap().as_str()
}

#[tokio::test]
async fn requests_that_are_not_valid_are_refused_and_harm_nothing() {
    in_time!(async {
        let medium = start!(Nats);
        serve_echo(&medium).await;
        let raw = raw(&medium).await;
        for pairs in [
            &[][..],
            &[("Http-Request", "")],
            &[("Http-Request", "GET")],
            &[("Http-Request", "G(T /")],
            &[("Http-Request", "GET nowhere")],
            &[("Http-Request", "GET /\u{1}")],
            &[("http-request", "GET /")],
            &[("Http-Request", "GET /"), ("Http-Body-Length", "-1")],
            &[("Http-Request", "GET /"), ("Http-Body-Length", "99999999999999999999999999")],
        ] {
            let response = raw.request_with_headers("svc.balance", headers(pairs), "".into()).await.unwrap();
            assert_eq!(status(&response), "400", "{pairs:?}");
            let problem = String::from_utf8_lossy(&response.payload);
            assert!(problem.contains("the request to balance is not valid: "), "{problem}");
            // Without a reply subject nobody gets a response.
            raw.publish_with_headers("svc.balance", headers(pairs), "".into()).await.unwrap();
        }
        // Headers that are not valid in HTTP are left out.
        let odd =
            headers(&[("Http-Request", "GET /"), ("a(b)", "1"), ("Http-Encoded", "x"), ("Http-Encoded", "x=%0A%00")]);
        let response = raw.request_with_headers("svc.balance", odd, "body".into()).await.unwrap();
        assert_eq!((status(&response), &response.payload[..]), ("200", &b"body"[..]));
        let length = headers(&[("Http-Request", "GET /"), ("Http-Body-Length", "1000000000000")]);
        let response = raw.request_with_headers("svc.balance", length, "".into()).await.unwrap();
        let problem = String::from_utf8_lossy(&response.payload).into_owned();
        assert!(problem.contains("the request body of balance is larger than 4194304 bytes"), "{problem}");
        for subject in ["svc.balance.cancel"] {
            raw.publish(subject, "".into()).await.unwrap();
            raw.publish_with_reply(subject, "nobody", "".into()).await.unwrap();
        }
        assert_it_serves(&medium).await;
        let counters = medium.server().counters("balance").unwrap();
        assert_eq!((counters.in_flight, counters.refused), (0, 1));
    });
}

#[tokio::test]
async fn a_body_with_a_missing_chunk_is_refused() {
    in_time!(async {
        let medium = start!(Nats);
        serve_echo(&medium).await;
        let raw = raw(&medium).await;
        for offsets in [&[("0", "abc"), ("4", "ef")][..], &[("1", "abc")], &[("x", "abc")], &[("0", "abcdefg")]] {
            let inbox = raw.new_inbox();
            let mut replies = raw.subscribe(inbox.clone()).await.unwrap();
            let head = headers(&[("Http-Request", "POST /"), ("Http-Body-Length", "6")]);
            raw.publish_with_reply_and_headers("svc.balance", inbox.clone(), head, "".into()).await.unwrap();
            let proceed = replies.next().await.unwrap();
            assert_eq!(status(&proceed), "100");
            let subject = proceed.reply.unwrap();
            for (offset, chunk) in offsets {
                let offset = headers(&[("Http-Body-Offset", offset)]);
                let chunk = Bytes::copy_from_slice(chunk.as_bytes());
                raw.publish_with_reply_and_headers(subject.clone(), inbox.clone(), offset, chunk).await.unwrap();
            }
            assert_eq!(status(&replies.next().await.unwrap()), "400", "{offsets:?}");
        }
        assert_it_serves(&medium).await;
    });
}

#[tokio::test]
async fn responses_that_are_not_valid_are_internal_errors_that_name_the_service() {
    in_time!(async {
        let medium = start!(Nats);
        let (raw, mut requests) = as_cards(&medium).await;
        let responses: [(HeaderMap, &str, &str); 8] = [
            (headers(&[]), "", "no Http-Status header with a status"),
            (headers(&[("Http-Status", "abc")]), "", "no Http-Status header with a status"),
            (headers(&[("Http-Status", "99")]), "", "no Http-Status header with a status"),
            (headers(&[("http-status", "200")]), "", "no Http-Status header with a status"),
            (
                headers(&[("Http-Status", "200"), ("Http-Body-Length", "x")]),
                "",
                "a Http-Body-Length header that is not a number",
            ),
            (
                headers(&[("Http-Status", "200"), ("Http-Body-Length", "9")]),
                "b",
                "a body and a Http-Body-Length header",
            ),
            (headers(&[("Http-Body-Length", "0")]), "", "no Http-Status header with a status"),
            // Two messages: the second is no chunk.
            (headers(&[("Http-Status", "200"), ("Http-Body-Length", "9")]), "", "a chunk of the body is missing"),
        ];
        let client = medium.client().clone();
        let responding = async {
            for (headers, body, _) in &responses {
                let reply = requests.next().await.unwrap().reply.unwrap();
                let body = Bytes::from_static(body.as_bytes());
                raw.publish_with_headers(reply.clone(), headers.clone(), body).await.unwrap();
                raw.publish(reply, "garbage".into()).await.unwrap();
            }
        };
        let calling = async {
            for (_, _, why) in &responses {
                let error = client.send(&Context::background(), "cards", request("/", "")).await.unwrap_err();
                let expected = format!("the response of cards is not valid: {why}");
                assert_eq!((error.code(), error.message()), (Code::Internal, &*expected));
            }
        };
        tokio::join!(responding, calling);
        assert_eq!(medium.client().sending(), 0);
    });
}

#[tokio::test]
async fn a_response_may_not_ask_for_the_body_elsewhere() {
    in_time!(async {
        let medium = start!(Nats);
        let (raw, mut requests) = as_cards(&medium).await;
        let client = medium.client().clone();
        let call =
            tokio::spawn(
                async move { client.send(&Context::background(), "cards", request("/", vec![0; 2 << 20])).await },
            );
        let reply = requests.next().await.unwrap().reply.unwrap();
        let proceed = headers(&[("Http-Status", "100")]);
        raw.publish_with_reply_and_headers(reply, "svc.cardsharp.body", proceed, "".into()).await.unwrap();
        assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Internal);
    });
}

/// A lone CR in a header ends the task of `async-nats` 0.51, and bytes that are not UTF-8 end its
/// connection. Any user who may publish to a subject of the service can send both.
#[tokio::test]
async fn a_message_that_breaks_the_client_does_not_end_the_service() {
    use std::io::{Read as _, Write as _};
    in_time!(async {
        let medium = start!(Nats);
        serve_echo(&medium).await;
        assert_it_serves(&medium).await;
        for header in [&b"NATS/1.0\r\na: b\rc\r\n\r\n"[..], b"NATS/1.0\r\na: \xff\r\n\r\n"] {
            let mut socket = std::net::TcpStream::connect(medium.broker.url().trim_start_matches("nats://")).unwrap();
            socket.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n").unwrap();
            write!(socket, "HPUB svc.balance {} {}\r\n", header.len(), header.len()).unwrap();
            socket.write_all(header).unwrap();
            socket.write_all(b"\r\nPING\r\n").unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"PONG\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                read.push(byte[0]);
            }
            // It comes back. Until then the name may be unknown.
            loop {
                let ctx = Context::background().with_timeout(std::time::Duration::from_millis(500));
                let sent = medium.client().send(&ctx, "balance", request("/", "still here")).await;
                if sent.is_ok_and(|response| response.body() == "still here") {
                    break;
                }
            }
        }
        assert!(medium.server().stop_listening("balance").await);
    });
}
