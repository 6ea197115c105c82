//! `cargo run -p bank`: makes a card payment over eleven services, and shows its trace.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bank::app::{Bank, Closed, Config, StartError};
use bank::cli::{Cli, Command};
use bank::domain::Authorization;
use bank::scenario::{Outcome, Scenario};
use clap::Parser;
use throughline::Shutdown;
use throughline::telemetry::Stats;
use throughline_view::{Options, Trace};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) if e.use_stderr() => {
            let text = e.to_string();
            eprintln!("{} (try --help)", text.lines().next().unwrap_or("the command line is not valid"));
            return ExitCode::from(2);
        }
        Err(help) => {
            print(&help.to_string());
            return ExitCode::SUCCESS;
        }
    };
    let done = match cli.command {
        None => play(Scenario::Ok).await,
        Some(Command::Scenario { name }) => play(name).await,
        Some(Command::Serve { listen }) => serve(listen).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            // An address that cannot be used is an error of the command line.
            if matches!(e, StartError::Listen { .. }) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Prints to stdout.
///
/// It is not an error if the reader has gone, as `head` does.
fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
}

async fn play(scenario: Scenario) -> Result<(), StartError> {
    let mut config = Config::default();
    if scenario == Scenario::SlowBalance {
        // The scenario always waits for the timeout, so a short one is enough.
        config.timeout = Duration::from_millis(600);
    }
    let outcome = scenario.play(config).await?;
    let mut text = describe(&outcome);
    for trace in outcome.traces() {
        text.extend(["\n", &trace.waterfall(&Options::stdout()), "\n"]);
        let _ = match write(&trace) {
            Ok(path) => writeln!(text, "wrote {} (for Jaeger's page: Search, JSON File)", path.display()),
            Err(e) => writeln!(text, "nothing was written: {e}"),
        };
    }
    text.extend(export(&outcome.closed));
    print(&text);
    Ok(())
}

fn describe(outcome: &Outcome) -> String {
    let mut text = match &outcome.response {
        Some((status, body)) => format!("POST /authorizations: {status} after {:.1?}\n{body}\n", outcome.took),
        None => format!("POST /authorizations: hung up after {:.1?}\n", outcome.took),
    };
    if matches!(outcome.response, Some((504, _))) {
        let (took, deadline) = (outcome.took.as_secs_f64() * 1e3, outcome.timeout.as_secs_f64() * 1e3);
        let when = if took > deadline { "past" } else { "before" };
        let _ = writeln!(text, "{:.1} ms {when} the deadline of {deadline:.0} ms", (took - deadline).abs());
    }
    for notification in &outcome.notifications {
        let _ = writeln!(text, "on the customer's phone: {notification}");
    }
    text
}

/// Describes how many spans were exported, if a collector is configured.
fn export(closed: &Closed) -> Option<String> {
    let endpoint = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
    let sum = |count: fn(&Stats) -> u64| closed.stats.iter().map(|(_, stats)| count(stats)).sum::<u64>();
    let (emitted, exported) = (sum(|stats| stats.emitted), sum(|stats| stats.exported));
    match (&closed.lost, endpoint) {
        (_, Some(endpoint)) if exported < emitted => {
            Some(format!("{} of {emitted} spans did not reach {endpoint}\n", emitted - exported))
        }
        (_, Some(endpoint)) => Some(format!("exported {exported} spans to {endpoint}\n")),
        (Some(lost), None) => Some(format!("{lost}\n")),
        (None, None) => None,
    }
}

/// Writes the trace as JSON below `target`, or else below the temporary directory.
fn write(trace: &Trace) -> io::Result<PathBuf> {
    let target = PathBuf::from("target");
    let folder = if target.is_dir() { target } else { std::env::temp_dir() }.join("bank");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("trace.json");
    std::fs::write(&path, trace.jaeger_json())?;
    Ok(path)
}

async fn serve(listen: SocketAddr) -> Result<(), StartError> {
    // Before the bank opens: an open bank must close before a signal ends the process. The bank
    // closes its services one after the other, with a limit of its own.
    let shutdown = Shutdown::on_signal(Duration::MAX);
    let bank = Bank::open(Config { listen, ..Config::default() }).await?;
    let example = serde_json::to_string(&Authorization::example()).unwrap_or_default();
    let address = bank.address;
    print(&format!(
        "the bank is open; Ctrl-C closes it\ncurl -H 'content-type: application/json' -d '{example}' http://{address}/authorizations"
    ));
    match shutdown {
        Ok(shutdown) => shutdown.requested().await,
        Err(e) => eprintln!("cannot wait for signals ({e}): closing"),
    }
    print("closing: no new requests; those in flight and their events end first");
    let closed = bank.close().await;
    let mut text = String::new();
    if let Some(last) = Trace::from_batches(&closed.batches).last() {
        let _ = writeln!(text, "\nthe last trace:\n{}", last.waterfall(&Options::stdout()));
    }
    let sum = |count: fn(&Stats) -> u64| closed.stats.iter().map(|(_, stats)| count(stats)).sum::<u64>();
    let _ = writeln!(text, "flushed {} of {} spans", sum(|stats| stats.exported), sum(|stats| stats.emitted));
    for (service, stats) in &closed.stats {
        let _ = writeln!(text, "{service}: {stats}");
    }
    text.extend(export(&closed));
    print(&text);
    Ok(())
}
