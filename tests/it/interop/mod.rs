//! Interoperability with other implementations, if they are installed.
//!
//! - `.ci/run interop` installs the peers under target/interop. No test needs the network.
//! - A test whose peer is not installed prints the name of the peer and is skipped.
//! - `THROUGHLINE_INTEROP` lists peers (`Python Node Go`) whose absence is a failure.

mod edges;
mod go;
mod grpc;
mod propagators;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use throughline::propagation::Format;

/// A peer process. It reads requests and writes responses, one line of JSON each.
pub struct Peer {
    child: Child,
    requests: Option<ChildStdin>,
    responses: BufReader<ChildStdout>,
}

/// Formats extracted data in the notation that all peers share.
pub fn describe(
    span: Option<(String, String, bool)>,
    state: Vec<(String, String)>,
    baggage: Vec<[String; 3]>,
) -> String {
    let mut parts: Vec<_> = span.map(|(trace, id, sampled)| format!("{trace}/{id}/{sampled}")).into_iter().collect();
    parts.extend(state.into_iter().map(|(key, value)| format!("{key}={value}")));
    parts.extend(baggage.into_iter().map(|[key, value, metadata]| match &metadata[..] {
        "" => format!("{key}={value:?}"),
        metadata => format!("{key}={value:?};{metadata}"),
    }));
    if parts.is_empty() { "nothing".into() } else { parts.join(" ") }
}

impl Peer {
    pub fn python(script: &str) -> Option<Peer> {
        Peer::start("Python", "venv/bin/python", script, Path::new("."))
    }

    pub fn node(script: &str) -> Option<Peer> {
        let folder = installed("node/node_modules").map(|modules| modules.with_file_name(""));
        let Some(folder) = folder else { return skipped("Node") };
        Peer::start("Node", "node", script, &folder)
    }

    fn start(name: &str, program: &str, script: &str, folder: &Path) -> Option<Peer> {
        let program = if program.contains('/') { installed(program) } else { Some(program.into()) };
        let script = root().join("tests/interop").join(script);
        let child = program.and_then(|program| {
            let pipes = |command: &mut Command| command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok();
            pipes(Command::new(program).arg(script).current_dir(folder))
        });
        let Some(mut child) = child else { return skipped(name) };
        let (requests, responses) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut peer = Peer { child, requests, responses };
        eprintln!("{}", peer.response());
        Some(peer)
    }

    /// Sends a request and waits for the response.
    pub fn call(&mut self, request: &Value) -> Value {
        writeln!(self.requests.as_mut().unwrap(), "{request}").unwrap();
        self.response()
    }

    /// Reads the next response.
    pub fn response(&mut self) -> Value {
        let mut line = String::new();
        self.responses.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("the peer wrote {line:?}: {e}"))
    }

    pub fn inject(&mut self, format: Format, what: Value) -> Vec<(String, String)> {
        let mut request = json!({ "do": "inject", "format": format.name(), "state": [], "baggage": [] });
        request.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        serde_json::from_value(self.call(&request)["headers"].take()).unwrap()
    }

    pub fn extract(&mut self, format: Format, headers: &[(String, String)]) -> String {
        let response = self.call(&json!({ "do": "extract", "format": format.name(), "headers": headers }));
        let span = &response["span"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let ids = span.as_object().map(|it| (text(&it["trace"]), text(&it["span"]), it["sampled"] == true));
        let state = serde_json::from_value(span["state"].clone()).unwrap_or_default();
        describe(ids, state, serde_json::from_value(response["baggage"].clone()).unwrap())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Closing its stdin ends the process.
        self.requests.take();
        let _ = self.child.wait();
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn installed(path: &str) -> Option<PathBuf> {
    Some(root().join("target/interop").join(path)).filter(|path| path.exists())
}

fn skipped<T>(name: &str) -> Option<T> {
    let required = std::env::var("THROUGHLINE_INTEROP").unwrap_or_default();
    assert!(!required.split(' ').any(|required| required == name), "the peer {name} is required but not installed");
    eprintln!("skipped: the peer {name} is not installed; run `.ci/run interop` to install it");
    None
}
