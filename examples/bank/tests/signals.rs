//! How `bank serve` ends on a signal.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Sends the head of a request. The handler then waits for the body.
fn begin(address: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = "POST /authorizations HTTP/1.1\r\nhost: bank\r\ncontent-type: application/json\r\nexpect: 100-continue";
    stream.write_all(format!("{head}\r\ncontent-length: {length}\r\n\r\n").as_bytes()).unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(text(&go_on), "HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[test]
fn a_signal_lets_requests_in_flight_end_and_flushes_their_spans() {
    for signal in ["TERM", "INT"] {
        let mut served = Command::new(env!("CARGO_BIN_EXE_bank"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut shown = BufReader::new(served.stdout.take().unwrap()).lines().map(Result::unwrap);
        let curl = shown.find(|line| line.starts_with("curl")).unwrap();
        let address = curl.rsplit_once("http://").unwrap().1.trim_end_matches("/authorizations").to_owned();

        let body = r#"{"card":"card-7","merchant":"SQ *BLUE BOTTLE 0042","amount":1250}"#;
        let mut request = begin(&address, body);
        let kill = format!("kill -{signal} {}", served.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert!(shown.next().unwrap().starts_with("closing"));
        while TcpStream::connect(&address).is_ok() {
            // If the process keeps accepting, it ends after its timeout. Then the response below
            // is missing, and the test fails.
            std::thread::yield_now();
        }
        request.write_all(body.as_bytes()).unwrap();
        let mut response = Vec::new();
        request.read_to_end(&mut response).unwrap();
        let response = text(&response);
        assert!(
            response.starts_with("HTTP/1.1 200") && response.contains(r#""approved":true"#),
            "{signal}: {response}"
        );

        let rest: Vec<_> = shown.collect();
        let rest = rest.join("\n");
        assert!(rest.contains("flushed 23 of 23 spans"), "{signal}: {rest}");
        assert!(rest.contains("apns: 1 of 1 spans exported"), "{signal}: {rest}");
        let ended = served.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), text(&ended.stderr).as_str()), (Some(0), ""), "{signal}");
    }
}
