//! Go's `context` on the same machine: runs `benches/go` where a Go toolchain is, says so where it is not.
#![allow(clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::process::Command;

fn main() {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
    let run = Command::new("go").args(["test", "-run", "^$", "-bench", "."]).current_dir(module).status();
    match run {
        Ok(status) if status.success() => {}
        Ok(status) => println!("Go's context: the run failed, {status}"),
        Err(_) => println!("Go's context: skipped, no Go toolchain"),
    }
}
