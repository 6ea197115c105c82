//! A service that loses nothing when it is asked to end.
//!
//! Run it with `cargo run --example graceful_shutdown`, then:
//!
//! 1. `curl http://127.0.0.1:8080/orders` takes two seconds.
//! 2. Press Ctrl-C while it runs: the response still arrives, and the receipt is still written.
//! 3. Press Ctrl-C twice: the process ends at once.
//!
//! Spans go to a collector at `OTEL_EXPORTER_OTLP_ENDPOINT`. Without one, the last line says so.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use throughline::{Context, ContextLayer, Ctx, Shutdown, ShutdownReport, telemetry};
use tokio::net::TcpListener;

/// The time that requests in flight get to end. Kubernetes kills a process after 30 s.
const GRACE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(report) => {
            print(&report.to_string());
            // Lost spans are in the report. They are no reason to fail here.
            if report.work.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            print(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<ShutdownReport, Box<dyn Error>> {
    let telemetry = telemetry::init("orders")?;
    // First, so that a signal during the start is not lost.
    let shutdown = Shutdown::on_signal(GRACE)?.background_limit(Duration::from_secs(5));

    let app = Router::new().route("/orders", get(order));
    let app = app.layer(ContextLayer::edge().base(shutdown.context()));
    let port = std::env::args().nth(1).unwrap_or_else(|| "8080".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    print(&format!("listening on {}", listener.local_addr()?));

    // A loop in the background ends when the shutdown starts.
    let requested = shutdown.requested();
    shutdown.spawn(async {
        tokio::select! {
            () = refresh_prices() => {}
            () = requested => print("no more refreshes"),
        }
    });

    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.requested());
    shutdown.serve(server).await?;
    // The requests have ended. This waits for the receipts, then exports the spans.
    Ok(shutdown.finish(telemetry).await)
}

/// Places an order. The receipt does not delay the response, and must not be lost.
async fn order(Ctx(ctx): Ctx) -> &'static str {
    print("an order arrives");
    tokio::time::sleep(Duration::from_secs(2)).await;
    ctx.detach().spawn(write_receipt());
    "ordered\n"
}

async fn write_receipt() {
    let span = Context::current().span("write receipt").start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    print("the receipt is written");
    span.end();
}

async fn refresh_prices() {
    let mut tick = tokio::time::interval(Duration::from_secs(60));
    loop {
        tick.tick().await;
        Context::current().span("refresh prices").start().end();
    }
}

/// Prints a line. A reader that has gone is no error.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
