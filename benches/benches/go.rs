//! Go's `context` on the same machine: runs `benches/go`, or prints that Go is not installed.
//!
//! Our figures are those of the last `cargo bench --bench context`, which `cargo bench` runs first.
#![allow(clippy::print_stdout, missing_docs)]

use std::io;
use std::path::Path;
use std::process::Command;

use throughline_benches::{GoRow, is_whole, summarize_go};

const ROWS: &[GoRow] = &[
    row("P1 child create + drop (Go: cancel)", "P1/with_cancel", "P1Child"),
    row("P2 is it done? depth 2", "P2/depth 2", "P2IsDone"),
    GoRow {
        per: (1.0, 1.0),
        ..row("P4 cancel 1 child waited for (Go: Done was called)", "P4/waited for, 1", "P4Cancel/1")
    },
    GoRow { per: (100.0, 100.0), ..row("P4 cancel 100, per child", "P4/waited for, 100", "P4Cancel/100") },
    GoRow { per: (10e3, 10e3), ..row("P4 cancel 10k, per child", "P4/waited for, 10000", "P4Cancel/10000") },
    GoRow { per: (100e3, 100e3), ..row("P4 cancel 100k, per child", "P4/waited for, 100000", "P4Cancel/100000") },
    row("P5 two threads, one root (ours: the sum of both threads' time; Go: wall time)", "P5/context", "P5TwoThreads"),
    GoRow {
        per: (10e3, 10e3),
        ..row("P7 wake 10k tasks on one context, per task (ours: one thread; Go: two)", "P7/one context", "P7Wake10k")
    },
    GoRow { per: (1e3, 1.0), ..row("P8 with_timeout + run (Go: + cancel)", "P8/with_timeout + run", "P8Timeout") },
    row("P11 with_value onto 1", "P11/context, 1", "P11WithValue/1"),
    row("P11 with_value onto 4", "P11/context, 4", "P11WithValue/4"),
    row("P11 with_value onto 16", "P11/context, 16", "P11WithValue/16"),
    row("P12 lookup at 1", "P12/context, 1", "P12Value/1"),
    row("P12 lookup at 4", "P12/context, 4", "P12Value/4"),
    row("P12 lookup at 16", "P12/context, 16", "P12Value/16"),
    row("P12 lookup at 50", "P12/context, 50", "P12Value/50"),
];

const fn row(name: &'static str, ours: &'static str, go: &'static str) -> GoRow {
    GoRow { name, ours, go, per: (1.0, 1.0) }
}

fn main() -> io::Result<()> {
    if !is_whole() {
        return Ok(());
    }
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
    let go = |args: &[&str]| Command::new("go").args(args).current_dir(&module).output();
    let Ok(version) = go(&["env", "GOVERSION"]) else {
        println!("Go's context: skipped, no Go toolchain");
        return Ok(());
    };
    let run = go(&["test", "-run", "^$", "-bench", ".", "-benchtime", "100ms", "-cpu", "2"])?;
    let output = String::from_utf8_lossy(&run.stdout);
    println!("{output}{}", String::from_utf8_lossy(&run.stderr));
    if !run.status.success() {
        return Err(io::Error::other("Go's benchmark failed"));
    }
    summarize_go(String::from_utf8_lossy(&version.stdout).trim(), &output, ROWS)
}
