//! The command line of the program.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

fn bank(arguments: &[&str]) -> Output {
    // Each run writes to its own folder.
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let run = format!("run-{}", RUNS.fetch_add(1, Ordering::Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(run);
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
    command
        .current_dir(&folder)
        .env("TMPDIR", &folder)
        .args(arguments)
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
        .env("COLUMNS", "120")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn without_arguments_it_shows_the_trace_and_names_the_file() {
    let output = bank(&[]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("11 services · 23 spans"), "{shown}");
    let path = shown.lines().find_map(|line| line.strip_prefix("wrote ")).unwrap().split(' ').next().unwrap();
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(written["data"][0]["spans"].as_array().unwrap().len(), 23);
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_bad_command_line_gets_one_line_and_exit_code_2() {
    let serve = [&["serve", "--listen", "127.0.0.1:99999"][..], &["serve", "--listen", "7000"]];
    for arguments in [&["scenario", "nope"][..], &["nope"], &["scenario"]].into_iter().chain(serve) {
        let output = bank(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn an_address_that_is_taken_or_foreign_gets_one_line_and_exit_code_2() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // 192.0.2.1 is for documentation: no machine has it.
    for address in [&*taken.local_addr().unwrap().to_string(), "192.0.2.1:0"] {
        let output = bank(&["serve", "--listen", address]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(address) && error.lines().count() == 1, "{error}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn the_slow_scenario_prints_the_504() {
    let shown = text(&bank(&["scenario", "slow-balance"]).stdout);
    assert!(shown.contains("504") && shown.contains("\"code\":\"DEADLINE_EXCEEDED\""), "{shown}");
    // Mostly "← balance". On a machine under load, a caller above may give up first: the deadlines
    // of two hops are only 5 ms apart.
    assert!(shown.contains("DEADLINE_EXCEEDED ← ") && shown.contains('│'), "{shown}");
}

#[test]
fn the_hang_up_scenario_names_the_cause() {
    let shown = text(&bank(&["scenario", "hang-up"]).stdout);
    assert!(shown.contains("cancelled: client_disconnected"), "{shown}");
}
