//! Against real peers, where they are installed: `.ci/run interop` puts them under target/interop, and no test needs the network.
//! A peer that is not there names itself; with `THROUGHLINE_INTEROP=required` that is a failure.

mod edges;
mod grpc;
mod propagators;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use throughline::propagation::Format;

/// A process that answers questions, one a line, in JSON both ways.
pub struct Peer {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What came out of a carrier, in words that all peers share.
pub fn told(span: Option<(String, String, bool)>, state: Vec<(String, String)>, baggage: Vec<[String; 3]>) -> String {
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
        let place = installed("node/node_modules").map(|modules| modules.with_file_name(""));
        let Some(place) = place else { return skipped("Node's packages") };
        Peer::start("Node", "node", script, &place)
    }

    fn start(name: &str, program: &str, script: &str, place: &Path) -> Option<Peer> {
        let program = if program.contains('/') { installed(program) } else { Some(program.into()) };
        let script = root().join("tests/interop").join(script);
        let child = program.and_then(|program| {
            let pipes = |command: &mut Command| command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok();
            pipes(Command::new(program).arg(script).current_dir(place))
        });
        let Some(mut child) = child else { return skipped(name) };
        let (questions, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut peer = Peer { child, questions, answers };
        eprintln!("{}", peer.answer());
        Some(peer)
    }

    pub fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.questions.as_mut().unwrap(), "{question}").unwrap();
        self.answer()
    }

    pub fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("the peer has said {line:?}: {e}"))
    }

    pub fn inject(&mut self, format: Format, what: Value) -> Vec<(String, String)> {
        let mut question = json!({ "do": "inject", "format": format.name(), "state": [], "baggage": [] });
        question.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        serde_json::from_value(self.ask(&question)["headers"].take()).unwrap()
    }

    pub fn extract(&mut self, format: Format, headers: &[(String, String)]) -> String {
        let answer = self.ask(&json!({ "do": "extract", "format": format.name(), "headers": headers }));
        let span = &answer["span"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let ids = span.as_object().map(|it| (text(&it["trace"]), text(&it["span"]), it["sampled"] == true));
        let state = serde_json::from_value(span["state"].clone()).unwrap_or_default();
        told(ids, state, serde_json::from_value(answer["baggage"].clone()).unwrap())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its questions end, and so does it.
        self.questions.take();
        let _ = self.child.wait();
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn installed(path: &str) -> Option<PathBuf> {
    Some(root().join("target/interop").join(path)).filter(|path| path.exists())
}

fn skipped(name: &str) -> Option<Peer> {
    assert!(std::env::var_os("THROUGHLINE_INTEROP").is_none(), "{name} is required, and not installed");
    eprintln!("skipped: {name} is not installed; `.ci/run interop` does it");
    None
}
