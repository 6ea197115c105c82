//! Ways in which a request ends early, and whether the other side sees it.
//!
//! Each way, over HTTP/1, HTTP/2 and the four kinds of gRPC methods, from Rust to Go and back. The
//! tests assert what the other side sees. How soon it does is printed.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use throughline::{CancelHandle, Context};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Pair, now};

const KINDS: [&str; 6] = ["http1", "http2", "unary", "client", "server", "bidi"];
const TIMES: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Caller {
    Rust,
    Go,
}

/// A call that the other service holds until it is cancelled or aborted.
struct Call {
    id: String,
    caller: Caller,
    /// The caller's context, if Rust calls.
    ctx: CancelHandle,
}

impl Call {
    /// Starts a call over `line`, or else directly.
    fn start(
        pair: &mut Pair,
        id: String,
        (caller, kind): (Caller, &'static str),
        line: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Call {
        let to = line.unwrap_or_else(|| direct(pair, caller, kind));
        let ctx = Context::background().with_tracer(pair.rust.traced.telemetry.tracer()).with_cancel();
        match caller {
            Caller::Rust => {
                let limited = timeout.map_or_else(|| ctx.context().clone(), |timeout| ctx.with_timeout(timeout));
                pair.rust.shared.call(&limited, &id, kind, to);
            }
            Caller::Go => {
                let to = if kind.starts_with("http") { format!("http://{to}/hold/{id}") } else { to.to_string() };
                let timeout = timeout.map_or(0, |timeout| timeout.as_millis() as u64);
                let call =
                    json!({ "do": "call", "id": id, "kind": kind, "to": to, "message": id, "timeoutMS": timeout });
                pair.send(&call);
            }
        }
        Call { id, caller, ctx }
    }

    /// Cancels the call by its caller's context. Returns when.
    async fn cancel(&self, pair: &mut Pair) -> i64 {
        match self.caller {
            Caller::Rust => {
                let at = now();
                self.ctx.cancel();
                at
            }
            Caller::Go => {
                pair.send(&json!({ "do": "cancel", "id": self.id }));
                at(&pair.event(&self.id, "cancelled").await)
            }
        }
    }

    /// Lets the handler fail, and returns when.
    ///
    /// An HTTP handler panics, a gRPC method returns `ABORTED`.
    async fn abort(&self, pair: &mut Pair) -> i64 {
        match self.caller {
            Caller::Rust => pair.send(&json!({ "do": "abort", "id": self.id })),
            Caller::Go => pair.rust.shared.abort(&self.id),
        }
        at(&pair.event(&self.id, "aborted").await)
    }
}

fn direct(pair: &Pair, caller: Caller, kind: &str) -> SocketAddr {
    match (caller, kind.starts_with("http")) {
        (Caller::Rust, true) => pair.go_http,
        (Caller::Rust, false) => pair.go_grpc,
        (Caller::Go, true) => pair.rust.http,
        (Caller::Go, false) => pair.rust.grpc,
    }
}

/// A TCP proxy for one connection, which closes when its task is aborted.
async fn line(to: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut one, _) = listener.accept().await.unwrap();
        let mut other = TcpStream::connect(to).await.unwrap();
        one.set_nodelay(true).unwrap();
        other.set_nodelay(true).unwrap();
        let _ = copy_bidirectional(&mut one, &mut other).await;
    });
    (address, task)
}

fn at(event: &Value) -> i64 {
    event["at"].as_i64().unwrap()
}

/// What the server sees of a request whose caller has gone.
fn gone(caller: Caller) -> &'static str {
    match caller {
        Caller::Rust => "context canceled",
        Caller::Go => "client_disconnected",
    }
}

fn code(result: &Value) -> &str {
    result["what"].as_str().or(result["what"]["code"].as_str()).unwrap_or_default()
}

/// Prints the median and the longest of the times from the end of one side to that of the other.
fn print(way: &str, (caller, kind): (Caller, &str), mut nanos: Vec<i64>) {
    nanos.sort_unstable();
    let ms = |nanos: i64| nanos as f64 / 1e6;
    let (median, longest) = (nanos[nanos.len() / 2], nanos[nanos.len() - 1]);
    eprintln!("{way}, {caller:?} calls, {kind}: median {:.2} ms, longest {:.2} ms", ms(median), ms(longest));
}

fn all() -> impl Iterator<Item = (Caller, &'static str)> {
    [Caller::Rust, Caller::Go].into_iter().flat_map(|caller| KINDS.map(|kind| (caller, kind)))
}

#[tokio::test]
async fn a_call_that_its_caller_cancels_ends_the_work_on_the_other_side() {
    let Some(mut pair) = Pair::start().await else { return };
    for how in all() {
        let mut nanos = Vec::new();
        for time in 0..TIMES {
            let call = Call::start(&mut pair, format!("cancel-{how:?}-{time}"), how, None, None);
            pair.event(&call.id, "called").await;
            let begin = call.cancel(&mut pair).await;
            let done = pair.event(&call.id, "done").await;
            assert_eq!(done["what"], gone(how.0), "{how:?}");
            assert_eq!(code(&pair.event(&call.id, "result").await), "CANCELLED", "{how:?}");
            nanos.push(at(&done) - begin);
        }
        print("cancelled by the client", how, nanos);
    }
}

#[tokio::test]
async fn a_connection_that_closes_ends_the_work_and_the_call() {
    let Some(mut pair) = Pair::start().await else { return };
    for how in all() {
        let mut nanos = Vec::new();
        for time in 0..TIMES {
            let (address, connection) = line(direct(&pair, how.0, how.1)).await;
            let call = Call::start(&mut pair, format!("disconnect-{how:?}-{time}"), how, Some(address), None);
            pair.event(&call.id, "called").await;
            let begin = now();
            connection.abort();
            let done = pair.event(&call.id, "done").await;
            assert_eq!(done["what"], gone(how.0), "{how:?}");
            assert_eq!(code(&pair.event(&call.id, "result").await), "UNAVAILABLE", "{how:?}");
            nanos.push(at(&done) - begin);
        }
        print("disconnected", how, nanos);
    }
}

#[tokio::test]
async fn a_deadline_is_a_deadline_on_both_sides() {
    let Some(mut pair) = Pair::start().await else { return };
    let timeout = Duration::from_secs(1);
    for caller in [Caller::Rust, Caller::Go] {
        let calls: Vec<_> = KINDS.iter().flat_map(|kind| (0..TIMES / 2).map(move |time| (*kind, time))).collect();
        let mut started = Vec::new();
        for (kind, time) in calls {
            let id = format!("deadline-{caller:?}-{kind}-{time}");
            let call = Call::start(&mut pair, id, (caller, kind), None, Some(timeout));
            // One after the other, so that they do not all end at one time.
            pair.event(&call.id, "called").await;
            started.push((kind, call));
        }
        let mut nanos = [const { Vec::new() }; KINDS.len()];
        for (kind, call) in started {
            let done = pair.event(&call.id, "done").await;
            let seen = done["what"].as_str().unwrap();
            let is_expected = match (caller, kind) {
                (Caller::Go, _) => seen == "deadline_exceeded",
                (Caller::Rust, "http1" | "http2") => seen == "context deadline exceeded",
                // The timer of tonic's channel resets the stream at the deadline of the callee.
                (Caller::Rust, _) => seen == "context deadline exceeded" || seen == gone(caller),
            };
            assert!(is_expected, "{}: {seen}", call.id);
            let result = pair.event(&call.id, "result").await;
            assert_eq!(code(&result), "DEADLINE_EXCEEDED", "{}", call.id);
            let index = KINDS.iter().position(|it| *it == kind).unwrap();
            nanos[index].push((at(&done) - at(&result)).abs());
        }
        for (kind, nanos) in KINDS.into_iter().zip(nanos) {
            print("deadline, between the two ends", (caller, kind), nanos);
        }
    }
}

#[tokio::test]
async fn a_handler_that_fails_ends_the_call() {
    let Some(mut pair) = Pair::start().await else { return };
    for how in all() {
        let mut nanos = Vec::new();
        for time in 0..TIMES {
            let call = Call::start(&mut pair, format!("abort-{how:?}-{time}"), how, None, None);
            pair.event(&call.id, "called").await;
            let begin = call.abort(&mut pair).await;
            let result = pair.event(&call.id, "result").await;
            let expected = match how {
                (_, "http1") => "UNAVAILABLE",
                // net/http resets the stream with INTERNAL_ERROR.
                (Caller::Rust, "http2") => "INTERNAL",
                (Caller::Go, "http2") => "UNAVAILABLE",
                _ => "ABORTED",
            };
            assert_eq!(code(&result), expected, "{how:?}");
            nanos.push(at(&result) - begin);
        }
        print("failed by the handler", how, nanos);
    }
}
