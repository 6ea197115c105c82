//! One port for all services: who gets a request, and how connections end.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use throughline::{Code, Context};
use throughline_transport::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::peers::{Proxy, http1, read_until};
use super::{address_of, bound, client_of};
use crate::conformance::{call, request, serve, until};

async fn serve_name(server: &Transport, name: &'static str) {
    serve(server, name, move |_, request: Request<Bytes>| async move {
        Ok(Response::new(Bytes::from(format!("{name} {}", request.uri()))))
    })
    .await;
}

#[tokio::test]
async fn the_host_of_a_request_of_http1_names_the_service() {
    let server = bound().await;
    serve_name(&server, "balance").await;
    serve_name(&server, "cards").await;
    let address = server.local_addr().unwrap();
    for host in ["cards", "CARDS:80", "cards.default.svc.cluster.local:8080"] {
        let response = http1(address, &format!("GET /a?b=c HTTP/1.1\r\nHost: {host}"), "").await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\ncards http://cards/a?b=c"), "{response}");
    }
}

#[tokio::test]
async fn an_address_as_the_host_means_the_only_service() {
    let server = bound().await;
    serve_name(&server, "balance").await;
    let address = server.local_addr().unwrap();
    for host in ["127.0.0.1:80", "[::1]:80", "localhost"] {
        let response = http1(address, &format!("POST / HTTP/1.1\r\nHost: {host}"), "a body").await;
        assert!(response.ends_with("\r\n\r\nbalance http://balance/"), "{host}: {response}");
    }
    serve_name(&server, "cards").await;
    let response = http1(address, "GET / HTTP/1.1\r\nHost: localhost", "").await;
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    assert!(response.contains("no service is called localhost"), "{response}");
}

#[tokio::test]
async fn a_request_without_a_valid_host_is_refused() {
    let server = bound().await;
    serve_name(&server, "balance").await;
    let address = server.local_addr().unwrap();
    for head in ["GET / HTTP/1.1", "GET / HTTP/1.1\r\nHost: a b", "CONNECT balance:80 HTTP/1.1\r\nHost: balance"] {
        let response = http1(address, head, "").await;
        assert!(response.starts_with("HTTP/1.1 400 ") || response.starts_with("HTTP/1.1 501 "), "{head}: {response}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let server = bound().await;
    let address = address_of(&server);
    let error = Transport::http2().bind(address.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().starts_with(&format!("{address} cannot be bound: ")), "{error:?}");
    assert!(error.message().ends_with("another process has the port"), "{error:?}");
}

#[tokio::test]
async fn a_transport_that_only_sends_does_not_listen() {
    let client = Transport::http2().client();
    assert_eq!(client.local_addr(), None);
    assert_eq!(client.listen("balance").await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_body_that_stalls_ends_its_request() {
    let options = Transport::http2().read_timeout(Duration::from_millis(20));
    let server = options.bind("127.0.0.1:0").await.unwrap();
    let listener = server.listen("balance").await.unwrap();
    let mut stream = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: balance\r\nContent-Length: 10\r\n\r\nabc").await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with("HTTP/1.1 504 "), "{response}");
    assert_eq!(listener.counters().in_flight, 0);
}

#[tokio::test]
async fn connections_without_a_request_are_closed() {
    let options = Transport::http2().read_timeout(Duration::from_millis(20)).idle_timeout(Duration::from_millis(20));
    let server = options.bind("127.0.0.1:0").await.unwrap();
    serve_name(&server, "balance").await;
    let address = server.local_addr().unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);

    // It had a request: the limit is that of idle connections.
    let mut proxy = Proxy::to(address).await;
    let client = client_of(proxy.address.to_string());
    client.send(&Context::background(), "balance", request("/", "")).await.unwrap();
    proxy.closed().await;
    client.send(&Context::background(), "balance", request("/", "")).await.unwrap();
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn connections_close_when_the_last_service_stops() {
    let server = bound().await;
    serve_name(&server, "balance").await;
    serve_name(&server, "cards").await;
    let address = server.local_addr().unwrap();
    let mut proxy = Proxy::to(address).await;
    let client = client_of(proxy.address.to_string());
    client.send(&Context::background(), "balance", request("/", "")).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: cards\r\n\r\n").await.unwrap();
    read_until(&mut stream, "cards http://cards/").await;

    assert!(server.stop_listening("balance").await);
    // The connection is still of use.
    stream.write_all(b"GET / HTTP/1.1\r\nHost: cards\r\n\r\n").await.unwrap();
    read_until(&mut stream, "cards http://cards/").await;
    assert!(server.stop_listening("cards").await);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    proxy.closed().await;
}

#[tokio::test]
async fn the_port_closes_when_the_transport_and_its_listeners_are_dropped() {
    let server = bound().await;
    let address = server.local_addr().unwrap();
    let mut listener = server.listen("balance").await.unwrap();
    drop(server);
    let client = client_of(address.to_string());
    let call = call(&client);
    listener.next().await.unwrap().responder.respond(Response::default());
    call.await.unwrap().unwrap();
    drop(listener);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_connection_more_than_allowed_waits_for_another_to_close() {
    let options = Transport::http2().max_connections(NonZeroUsize::MIN);
    let server = options.bind("127.0.0.1:0").await.unwrap();
    serve_name(&server, "balance").await;
    let address = server.local_addr().unwrap();
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: balance\r\n\r\n").await.unwrap();
        read_until(stream, "balance http://balance/").await;
    };
    let (mut first, mut second) =
        (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
    ask(&mut first).await;
    second.write_all(b"GET / HTTP/1.1\r\nHost: balance\r\n\r\n").await.unwrap();
    ask(&mut first).await;
    assert_eq!(server.counters("balance").unwrap().requests, 2);
    drop(first);
    read_until(&mut second, "balance http://balance/").await;
    assert_eq!(server.counters("balance").unwrap().requests, 3);
}

#[tokio::test]
async fn a_caller_of_http1_that_disconnects_cancels_its_handler() {
    let server = bound().await;
    let mut listener = server.listen("balance").await.unwrap();
    let mut stream = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: balance\r\n\r\n").await.unwrap();
    let mut incoming = listener.next().await.unwrap();
    drop(stream);
    assert!(matches!(incoming.responder.closed().await, throughline::Cause::ClientDisconnected));
    drop(incoming);
    until(|| listener.counters().in_flight == 0).await;
}

#[tokio::test]
async fn a_slow_reader_does_not_hold_up_other_requests() {
    let server = bound().await;
    serve(&server, "balance", async |_, request: Request<Bytes>| {
        let length = if request.uri().path() == "/large" { 4 << 20 } else { 1 };
        Ok(Response::new(Bytes::from(vec![b'a'; length])))
    })
    .await;
    let address = server.local_addr().unwrap();
    // It reads nothing of a response that no buffer of the system holds.
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /large HTTP/1.1\r\nHost: balance\r\nConnection: close\r\n\r\n").await.unwrap();
    until(|| server.counters("balance").unwrap().requests == 1).await;
    let client = client_of(address.to_string());
    for _ in 0..100 {
        client.send(&Context::background(), "balance", request("/", "")).await.unwrap();
    }
    let mut response = Vec::new();
    slow.read_to_end(&mut response).await.unwrap();
    assert!(response.len() > 4 << 20);
}
