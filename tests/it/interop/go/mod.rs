//! Go beside this library: net/http with otelhttp, and grpc-go with otelgrpc.
//!
//! The Go service is tests/interop/go. Its middleware, its transport and its problem document are
//! those of docs/go.md.

mod cancellation;
mod chains;
mod deadlines;
mod errors;
mod page;
mod service;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use self::service::Service;
use super::{installed, skipped};
use crate::support::PATIENCE;

/// A Go service and a Rust service. Both report events.
struct Pair {
    go: Child,
    commands: Option<ChildStdin>,
    go_http: SocketAddr,
    go_grpc: SocketAddr,
    rust: Service,
    events: UnboundedReceiver<Value>,
    /// Events that arrived while another one was waited for.
    earlier: Vec<Value>,
}

impl Pair {
    /// Starts both. Returns `None` if the Go service is not installed.
    async fn start() -> Option<Pair> {
        let Some(program) = installed("go/peer") else { return skipped("Go") };
        let mut go = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(go.stdout.take().unwrap()).lines();
        let version = lines.next().unwrap().unwrap();
        eprintln!("{version}");
        let ports: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let address = |name: &str| ([127, 0, 0, 1], u16::try_from(ports[name].as_u64().unwrap()).unwrap()).into();
        let (reporter, events) = unbounded_channel();
        let from_go = reporter.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|e| panic!("Go wrote {line:?}: {e}"));
                let _ = from_go.send(event);
            }
        });
        Some(Pair {
            commands: go.stdin.take(),
            go,
            go_http: address("http"),
            go_grpc: address("grpc"),
            rust: Service::start(reporter).await,
            events,
            earlier: Vec::new(),
        })
    }

    /// Sends a command to the Go service.
    fn send(&mut self, command: &Value) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
    }

    /// Waits for an event of the request `id`.
    async fn event(&mut self, id: &str, name: &str) -> Value {
        let is_wanted = |event: &Value| event["id"] == id && event["event"] == name;
        if let Some(at) = self.earlier.iter().position(is_wanted) {
            return self.earlier.swap_remove(at);
        }
        let arrives = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if is_wanted(&event) {
                    return event;
                }
                self.earlier.push(event);
            }
        };
        timeout(PATIENCE, arrives).await.unwrap_or_else(|_| panic!("no event {name} of {id}"))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Closing its stdin ends the process.
        self.commands.take();
        let _ = self.go.wait();
    }
}

/// Reports an event of the Rust service, in the form of the Go service's.
fn report(reporter: &UnboundedSender<Value>, id: &str, name: &str, what: &str) {
    let _ = reporter.send(json!({ "id": id, "event": name, "at": now(), "what": what }));
}

/// The time of the clock that both processes share, in ns.
fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}
