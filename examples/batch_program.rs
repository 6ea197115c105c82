//! A program without a server: many pieces of work, a limit on time, one trace.
//!
//! Run it with `cargo run --example batch_program`. It fetches 20 accounts, four at a time, within
//! ten seconds. Ctrl-C, the deadline or the first error ends all of them. The spans are flushed
//! before it ends.

use std::io::{self, Write as _};
use std::time::Duration;

use throughline::telemetry::{self, MemoryExporter};
use throughline::{Code, Context, Error, Group, Shutdown};

/// Fetches one account, with a span of its own.
async fn fetch(ctx: &Context, account: u32) -> Result<u32, Error> {
    let span = ctx.span("fetch account").attribute("account", account).start();
    // The context of the span is for the calls below it, so that their spans are its children.
    let ctx = span.context();
    ctx.run(tokio::time::sleep(Duration::from_millis(2))).await?; // stands for a query of a database
    if account == 13 {
        return Err(Error::new(Code::DataLoss, "account 13 has no balance"));
    }
    Ok(account * 100)
}

/// Fetches the accounts. The first error cancels the others.
async fn total(ctx: &Context, accounts: impl Iterator<Item = u32>) -> Result<u32, Error> {
    let mut group: Group<Error> = Group::new(ctx).with_limit(4);
    let balances: Vec<_> = accounts.map(|account| group.spawn(async move |ctx| fetch(&ctx, account).await)).collect();
    group.join().await?;
    let mut total = 0;
    for balance in balances {
        total += balance.await?;
    }
    Ok(total)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A real program calls `telemetry::init("nightly-report")`, which exports to a collector.
    let spans = MemoryExporter::default();
    let telemetry = telemetry::builder("nightly-report").exporter(spans.clone()).build()?;

    // Without a grace: the first signal cancels the work, and a second one ends the process.
    let shutdown = Shutdown::on_signal(Duration::ZERO)?;
    let ctx = shutdown.context().with_tracer(telemetry.tracer()).with_timeout(Duration::from_secs(10));

    let mut out = io::stdout();
    let run = ctx.span("report").start();
    let sum = total(run.context(), 1..=12).await?;
    writeln!(out, "12 accounts hold {sum}")?;

    let failed = total(run.context(), 1..=20).await.expect_err("account 13 fails");
    writeln!(out, "20 accounts: {failed}")?;
    run.end();

    let report = shutdown.finish(telemetry).await;
    assert!(report.is_clean(), "{report}");
    let spans = spans.spans();
    let fetched = spans.iter().filter(|span| span.name == "fetch account").count();
    assert!(fetched >= 25, "12 accounts, and those up to the one that fails");
    assert!(
        spans.iter().all(|span| span.span_context.trace_id() == spans[0].span_context.trace_id()),
        "all spans are of one trace"
    );
    writeln!(out, "{} spans were exported", spans.len())?;
    Ok(())
}
