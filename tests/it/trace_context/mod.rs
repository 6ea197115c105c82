//! W3C Trace Context over real HTTP: what comes out of `examples/w3c_service.rs` for what goes in. The situations are those of W3C's
//! own validation suite, 41 of them, and so is the way they are asked: bytes on a socket, a service that makes calls, and a look at
//! what its callee gets.

#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../../examples/w3c_service.rs"]
mod service;
mod situations;

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
use situations::{Request, SPAN, TRACE, Trace, situations};

/// The service, and what its callee gets.
struct Pair {
    service: SocketAddr,
    callee: SocketAddr,
    calls: UnboundedReceiver<(HeaderMap, Bytes)>,
}

impl Pair {
    async fn new() -> Pair {
        let (tell, calls) = unbounded_channel();
        let callee = post(async move |headers: HeaderMap, body: Bytes| tell.send((headers, body)).unwrap());
        let callee = serve(Router::new().fallback(callee)).await;
        Pair { service: serve(service::app()).await, callee, calls }
    }

    /// Asks the service for `count` calls, with header lines as they stand; what it sent with them.
    async fn ask(&mut self, lines: &[(String, String)], count: usize) -> Vec<HeaderMap> {
        let call = serde_json::json!({ "url": format!("http://{}/", self.callee), "arguments": [{ "n": 1 }] });
        let answer = send(self.service, lines, &serde_json::Value::from(vec![call; count]).to_string()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let mut sent = Vec::new();
        while let Ok((headers, body)) = self.calls.try_recv() {
            assert_eq!(body, r#"[{"n":1}]"#);
            sent.push(headers);
        }
        assert_eq!(sent.len(), count, "all calls have been answered before the request is");
        sent
    }
}

/// A request as bytes, since a client's library would tidy up names and blanks; the answer as text.
async fn send(to: SocketAddr, lines: &[(String, String)], body: &str) -> String {
    let mut request = format!("POST /any/path HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in lines {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Why what was sent is wrong.
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
            return wrong("a parent-id that is zero, the caller's, or another call's");
        }
        let state: Vec<_> = headers.get_all("tracestate").iter().map(|line| line.to_str().unwrap()).collect();
        match &request.trace {
            Trace::GoesOn { flags: expected } if (trace, flags) != (TRACE, *expected) => return wrong("a new trace"),
            // No digit of a trace that can't be believed is believed.
            Trace::Begins if trace.contains(&TRACE[1..31]) => return wrong("the same trace"),
            // The suite asks for the random flag of traces that are continued only.
            Trace::Begins if flags != "00" && flags != "01" => return wrong("flags that receivers of Level 1 reject"),
            _ if state.join("|") != request.state => return wrong("another tracestate"),
            _ => {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_service_passes_all_41_cases_of_the_w3c_suite() {
    let mut pair = Pair::new().await;
    let situations = situations();
    let names: HashSet<_> = situations.iter().map(|(name, _)| *name).collect();
    assert_eq!((situations.len(), names.len()), (41, 41));
    let mut wrong = Vec::new();
    for (name, requests) in &situations {
        for request in requests {
            let sent = pair.ask(&request.lines, request.calls).await;
            wrong.extend(check(request, &sent).err().map(|why| format!("{name}: {why}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn an_invalid_request_is_a_400_a_failing_callee_is_a_503_and_the_service_keeps_serving() {
    let mut pair = Pair::new().await;
    for body in ["", "{", "{}", "[1]", r#"[{"url":1,"arguments":[]}]"#, r#"[{"url":"no address","arguments":[]}]"#] {
        let answer = send(pair.service, &[], body).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body}: {answer}");
    }
    let answer = send(pair.service, &[], r#"[{"url":"http://127.0.0.1:1/","arguments":[]}]"#).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    pair.ask(&[], 2).await;
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let mut pair = Pair::new().await;
    let to = format!("http://{}/", pair.callee);
    let moved = serve(Router::new().fallback(post(async move || axum::response::Redirect::temporary(&to)))).await;
    let answer = send(pair.service, &[], &format!(r#"[{{"url":"http://{moved}/","arguments":[]}}]"#)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
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
