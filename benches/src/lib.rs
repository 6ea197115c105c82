//! Shared by all benchmarks: the rows of a table, and the summary at the end of a run.
//!
//! A bench file names its rows and criterion measures them. [`summarize`] reads criterion's medians
//! and prints for each row our time, the best peer's, the ratio, the target and whether it was met.
//! It writes the same table into `docs/performance.md`.
#![allow(clippy::print_stdout)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use criterion::Criterion;

/// The target of a row.
#[derive(Clone, Copy)]
pub enum Target {
    /// At most this multiple of the named peer's time.
    Ratio(&'static str, f64),
    /// At most this many nanoseconds above the named measurement.
    Above(&'static str, f64),
    /// No target: a figure for information.
    None,
}

/// One comparison: criterion ids are `group/function`.
#[derive(Clone, Copy)]
pub struct Row {
    /// The row of the table of targets and the case in it: `P4, 10k children`.
    pub name: &'static str,
    /// The criterion id of our measurement.
    pub ours: &'static str,
    /// The peers' measurements: the name to print, then the criterion id.
    pub peers: &'static [(&'static str, &'static str)],
    /// The target for our measurement.
    pub target: Target,
    /// Operations in one measured iteration.
    pub per: f64,
}

/// Configures criterion: short runs, results where [`summarize`] reads them.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .output_directory(&criterion_home())
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args()
}

/// Whether this run measures everything.
///
/// With a filter or another mode on the command line, the table would mix the figures of two runs.
#[must_use]
pub fn is_whole() -> bool {
    env::args().skip(1).all(|argument| argument == "--bench")
}

/// A measurement of Go beside our own.
#[derive(Clone, Copy)]
pub struct GoRow {
    /// See [`Row::name`].
    pub name: &'static str,
    /// The criterion id of our measurement.
    pub ours: &'static str,
    /// Go's name in `go test -bench`, without `Benchmark` and the number of processors.
    pub go: &'static str,
    /// Operations in one iteration: ours, then Go's.
    pub per: (f64, f64),
}

/// Like [`summarize`], for Go's figures: `output` is the output of `go test -bench`.
///
/// # Errors
/// When a row was not measured, and when the document cannot be read or written.
pub fn summarize_go(version: &str, output: &str, rows: &[GoRow]) -> io::Result<()> {
    let theirs = |name: &str| {
        output.lines().find_map(|line| {
            let mut words = line.strip_prefix("Benchmark")?.split_whitespace();
            let (found, _processors) = words.next()?.rsplit_once('-')?;
            let nanos = words.nth(1).filter(|_| found == name)?;
            nanos.parse::<f64>().ok()
        })
    };
    let mut text = format!("| row | ours, ns | {version}, ns | ratio |\n|---|---|---|---|\n");
    for row in rows {
        let (ours, go) = median(row.ours).zip(theirs(row.go)).ok_or_else(|| not_measured(row.name))?;
        let (ours, go) = (ours / row.per.0, go / row.per.1);
        writeln!(text, "| {} | {} | {} | {:.2} |", row.name, nanos(ours), nanos(go), ours / go)
            .map_err(io::Error::other)?;
    }
    report("docs/performance.md", "go", &text)
}

/// The median of one measurement in ns per iteration; `None` if it was not measured.
fn median(id: &str) -> Option<f64> {
    let file = criterion_home().join(id).join("new/estimates.json");
    let estimates: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

fn not_measured(row: &str) -> io::Error {
    io::Error::other(format!("{row}: not measured"))
}

fn criterion_home() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    env::var_os("CRITERION_HOME").map_or_else(|| target.join("criterion"), PathBuf::from)
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn nanos(value: f64) -> String {
    match value {
        v if v < 100.0 => format!("{v:.2}"),
        v if v < 10_000.0 => format!("{v:.0}"),
        v => format!("{:.1} µs", v / 1_000.0),
    }
}

fn times(ratio: f64) -> String {
    if ratio < 0.1 { format!("{ratio:.4}") } else { format!("{ratio:.2}") }
}

fn line(row: &Row) -> Option<String> {
    let ours = median(row.ours)? / row.per;
    let peers: Vec<(&str, f64)> =
        row.peers.iter().map(|(name, id)| Some((*name, median(id)? / row.per))).collect::<Option<_>>()?;
    let best = peers.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
    let (target, met) = match row.target {
        Target::Ratio(peer, most) => {
            let theirs = peers.iter().find(|(name, _)| *name == peer)?.1;
            (format!("≤ {most} × {peer} (is {})", times(ours / theirs)), Some(ours <= most * theirs))
        }
        Target::Above(base, most) => {
            let base = median(base)? / row.per;
            (format!("≤ +{most} ns (is {:+.2})", ours - base), Some(ours <= base + most))
        }
        Target::None => ("–".to_owned(), None),
    };
    let (best, ratio) = best.map_or(("–".to_owned(), "–".to_owned()), |(name, value)| {
        (format!("{name} {}", nanos(value)), times(ours / value))
    });
    Some(format!(
        "| {} | {} | {best} | {ratio} | {target} | {} |",
        row.name,
        nanos(ours),
        met.map_or("", |met| if met { "met" } else { "**not met**" })
    ))
}

/// Prints the table of `rows` and writes it into `docs/performance.md`.
///
/// It replaces the text between the markers `<!-- bench:{table} -->` and `<!-- /bench:{table} -->`,
/// if this run [`is_whole`].
///
/// # Errors
/// When a row was not measured, and when the document cannot be read or written.
pub fn summarize(table: &str, rows: &[Row]) -> io::Result<()> {
    if !is_whole() {
        return Ok(());
    }
    let mut text = String::from("| row | ours, ns | best peer, ns | ratio | target | |\n|---|---|---|---|---|---|\n");
    for row in rows {
        let line = line(row).ok_or_else(|| not_measured(row.name))?;
        writeln!(text, "{line}").map_err(io::Error::other)?;
    }
    report("docs/performance.md", table, &text)
}

/// Prints `text` and writes it into `document`, below the machine and the commit.
///
/// It replaces the text between the markers `<!-- bench:{table} -->` and `<!-- /bench:{table} -->`.
///
/// # Errors
/// When the document cannot be read or written.
pub fn report(document: &str, table: &str, text: &str) -> io::Result<()> {
    println!("\n{text}");
    write_section(document, table, text)
}

fn write_section(document: &str, table: &str, text: &str) -> io::Result<()> {
    let file = workspace().join(document);
    let before = fs::read_to_string(&file)?;
    let (open, close) = (format!("<!-- bench:{table} -->"), format!("<!-- /bench:{table} -->"));
    let (Some(start), Some(end)) = (before.find(&open), before.find(&close)) else {
        return Err(io::Error::other(format!("{document} has no section {open}")));
    };
    let machine = machine();
    let section = format!("{open}\n{machine}\n\n{text}{close}");
    fs::write(file, format!("{}{section}{}", &before[..start], &before[end + close.len()..]))
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|info| {
            info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(": ")).map(|p| p.1.to_owned())
        })
        .unwrap_or_else(|| "unknown processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let run = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).current_dir(workspace()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let rustc = run("rustc", &["--version"]).unwrap_or_default();
    let commit = run("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "no commit".to_owned());
    format!("{cpu}, {cores} cores; {rustc}; commit {commit}; medians.")
}
