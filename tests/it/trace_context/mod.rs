//! W3C Trace Context over real HTTP, with `examples/w3c_service.rs` as the service under test.
//!
//! The 41 cases are those of the W3C validation suite. They run as in the suite:
//! 1. The test writes the bytes of a request to a socket.
//! 2. The service makes calls.
//! 3. The test checks the headers that the callee receives.

mod cases;
#[allow(dead_code, reason = "the `main` of the example is not used here")]
#[path = "../../../examples/w3c_service.rs"]
mod service;

use std::collections::HashSet;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::serve;
use cases::{Request, SPAN, TRACE, Trace, cases};

/// The service, and the requests that its callee received.
struct Pair {
    service: SocketAddr,
    callee: SocketAddr,
    calls: UnboundedReceiver<(HeaderMap, Bytes)>,
}

impl Pair {
    async fn new() -> Pair {
        let (sender, calls) = unbounded_channel();
        let callee = post(async move |headers: HeaderMap, body: Bytes| sender.send((headers, body)).unwrap());
        let callee = serve(Router::new().fallback(callee)).await;
        Pair { service: serve(service::app()).await, callee, calls }
    }

    /// Requests `count` calls with these header lines, and returns the headers of each call.
    async fn request(&mut self, lines: &[(String, String)], count: usize) -> Vec<HeaderMap> {
        let call = serde_json::json!({ "url": format!("http://{}/", self.callee), "arguments": [{ "n": 1 }] });
        let response = send(self.service, lines, &serde_json::Value::from(vec![call; count]).to_string()).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        let mut sent = Vec::new();
        while let Ok((headers, body)) = self.calls.try_recv() {
            assert_eq!(body, r#"[{"n":1}]"#);
            sent.push(headers);
        }
        assert_eq!(sent.len(), count, "all calls complete before the response");
        sent
    }
}

/// Sends a request as bytes and returns the response as text.
///
/// An HTTP client library would normalize names and blanks.
async fn send(to: SocketAddr, lines: &[(String, String)], body: &str) -> String {
    let mut request = format!("POST /any/path HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in lines {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

/// Checks the headers of the calls. The error says what is wrong.
fn check(request: &Request, sent: &[HeaderMap]) -> Result<(), String> {
    let mut spans = HashSet::from([SPAN.to_owned()]);
    for headers in sent {
        let wrong = |what: &str| Err(format!("{what}: {:?} made {headers:?}", request.lines));
        let lines: Vec<_> = headers.get_all("traceparent").iter().map(|line| line.to_str().unwrap()).collect();
        let [line] = lines[..] else { return wrong("not one traceparent") };
        let fields: Vec<_> = line.split('-').collect();
        let [version, trace, span, flags] = fields[..] else { return wrong("not four fields") };
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let lengths = [version, trace, span, flags].map(str::len);
        if version != "00" || lengths != [2, 32, 16, 2] || !is_hex(&fields.concat()) {
            return wrong("not the format of version 00");
        }
        if trace == "0".repeat(32) || span == "0".repeat(16) || !spans.insert(span.to_owned()) {
            return wrong("a parent-id that is zero, or the caller's or another call's");
        }
        let state: Vec<_> = headers.get_all("tracestate").iter().map(|line| line.to_str().unwrap()).collect();
        match &request.trace {
            Trace::Continued { flags: expected } if (trace, flags) != (TRACE, *expected) => {
                return wrong("a new trace");
            }
            // No digits of an invalid trace id are kept.
            Trace::Started if trace.contains(&TRACE[1..31]) => return wrong("the same trace"),
            // The suite requires the random flag only for traces that are continued.
            Trace::Started if flags != "00" && flags != "01" => return wrong("flags that receivers of Level 1 reject"),
            _ if state.join("|") != request.state => return wrong("another tracestate"),
            _ => {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_service_passes_all_41_cases_of_the_w3c_suite() {
    let mut pair = Pair::new().await;
    let cases = cases();
    let names: HashSet<_> = cases.iter().map(|(name, _)| *name).collect();
    assert_eq!((cases.len(), names.len()), (41, 41));
    let mut wrong = Vec::new();
    for (name, requests) in &cases {
        for request in requests {
            let sent = pair.request(&request.lines, request.calls).await;
            wrong.extend(check(request, &sent).err().map(|why| format!("{name}: {why}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn an_invalid_request_is_a_400_a_failing_callee_is_a_503_and_the_service_keeps_serving() {
    let mut pair = Pair::new().await;
    for body in ["", "{", "{}", "[1]", r#"[{"url":1,"arguments":[]}]"#, r#"[{"url":"not a url","arguments":[]}]"#] {
        let response = send(pair.service, &[], body).await;
        assert!(response.starts_with("HTTP/1.1 400 "), "{body}: {response}");
    }
    let response = send(pair.service, &[], r#"[{"url":"http://127.0.0.1:1/","arguments":[]}]"#).await;
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    pair.request(&[], 2).await;
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let mut pair = Pair::new().await;
    let to = format!("http://{}/", pair.callee);
    let moved = serve(Router::new().fallback(post(async move || axum::response::Redirect::temporary(&to)))).await;
    let response = send(pair.service, &[], &format!(r#"[{{"url":"http://{moved}/","arguments":[]}}]"#)).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(pair.calls.try_recv().is_err());
}

#[tokio::test]
async fn an_invalid_command_line_exits_with_2_and_a_port_in_use_is_named() {
    for arguments in [&[][..], &["port"], &["70000"], &["-1"], &["1", "2"]] {
        let (code, error) = service::serve(arguments.iter().map(|it| it.to_string()).collect()).await.unwrap_err();
        assert_eq!((code, error.lines().count()), (2, 1), "{arguments:?}: {error}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, error) = service::serve(vec![port.clone()]).await.unwrap_err();
    assert_eq!((code, error.lines().count()), (1, 1));
    assert!(error.contains(&port), "{error}");
}
