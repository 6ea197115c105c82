//! Checks instruction counts against ceilings; a busy machine does not change them.
//!
//! Run it with `cargo run --profile bench -p throughline-instructions`. With `--features services`
//! it counts calls of the service library instead: with more code in the program, the compiler
//! inlines other things in the rows of the context.
//!
//! Each operation runs N and 2N times under callgrind; the difference is the cost of N operations
//! without the process around them. The build is optimized with LTO on x86-64, and the counts
//! include glibc's allocator. It fails when an operation is above its ceiling. Without valgrind it
//! prints that it was skipped.
#![allow(clippy::print_stdout)]

#[path = "../../benches/propagation/headers.rs"]
mod headers;
mod operations;
#[cfg(feature = "services")]
mod services;

use std::process::{Command, ExitCode};

#[cfg(not(feature = "services"))]
use operations::OPERATIONS;
use operations::{NOTHING, Operation};
#[cfg(feature = "services")]
use services::OPERATIONS;

/// How often an operation runs; the second measurement runs it twice as often.
///
/// It is large because the start of the timer thread costs a varying number of instructions.
const N: u64 = 10_000;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if let (Some(name), Some(times)) = (args.next(), args.next().and_then(|times| times.parse().ok())) {
        let known = OPERATIONS.iter().chain([&NOTHING]).find(|operation| operation.name == name);
        (known.expect("the parent names an operation of the table").run)(times);
        return ExitCode::SUCCESS;
    }
    if !cfg!(target_arch = "x86_64") || Command::new("valgrind").arg("--version").output().is_err() {
        println!("instruction counts: skipped, they need valgrind on x86-64");
        return ExitCode::SUCCESS;
    }
    let around = cost(&NOTHING);
    println!("| operation | instructions | ceiling | |\n|---|---|---|---|");
    let mut is_over = false;
    for operation in OPERATIONS {
        let cost = cost(operation).saturating_sub(around);
        let verdict = if cost <= operation.ceiling { "" } else { "**over**" };
        is_over |= cost > operation.ceiling;
        println!("| {} | {cost} | {} | {verdict} |", operation.name, operation.ceiling);
    }
    if is_over { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Instructions per operation, rounded to the nearest.
fn cost(operation: &Operation) -> u64 {
    let collected = |times: u64| {
        let this = std::env::current_exe().expect("the running program has a path");
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(this)
            .args([operation.name, &times.to_string()])
            .output()
            .expect("valgrind ran a moment ago");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {log}", operation.name);
        let line = log.lines().find_map(|line| line.split_once("Collected :")).expect("callgrind ends with a sum");
        line.1.trim().parse::<u64>().expect("the sum is a number")
    };
    let more = collected(2 * N).saturating_sub(collected(N));
    (more + N / 2) / N
}
