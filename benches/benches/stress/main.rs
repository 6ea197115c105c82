//! R1–R4 of docs/reliability.md: the cost of many contexts, and what a large cancellation delays.
//!
//! Beside tokio-util's `CancellationToken`, in one process. Figures are reported, not gated: the
//! tests of the same numbers assert counts and outcomes.
#![allow(missing_docs)]

mod probe;
mod size;
mod storm;

use std::time::Duration;

/// A line of the table.
struct Row {
    what: String,
    ours: String,
    theirs: String,
    target: &'static str,
}

fn main() -> std::io::Result<()> {
    if !throughline_benches::is_whole() {
        return Ok(());
    }
    let rows: Vec<Row> = size::rows().into_iter().chain(probe::rows()).chain(storm::rows()).collect();
    let mut text = String::from("| | ours | tokio-util | target |\n|---|---|---|---|\n");
    for Row { what, ours, theirs, target } in rows {
        text.push_str(&format!("| {what} | {ours} | {theirs} | {target} |\n"));
    }
    throughline_benches::report("docs/reliability.md", "stress", &text)
}

/// Prints ms from 1 ms, µs from 1 µs, else ns.
fn show(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    match nanos {
        n if n >= 1e6 => format!("{:.1} ms", n / 1e6),
        n if n >= 1e3 => format!("{:.1} µs", n / 1e3),
        n => format!("{n:.0} ns"),
    }
}

/// The quantile `share` of the sorted times.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}
