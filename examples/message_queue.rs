//! A context in the headers of messages, with any queue.
//!
//! Run it with `cargo run --example message_queue`. The queue is a channel of `tokio`. Its messages
//! have headers in a `HashMap<String, String>`, as with the clients of most brokers. The consumer
//! continues the trace, reads the tenant, and skips a message that has expired.
//!
//! It uses the crate `throughline` alone, so it shows each step, and its messages carry a point in
//! time at which they expire. For events that are retried and have dead letters, use `Producer` and
//! `Consumer` of the crate `throughline-transport` instead: one call each does this.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use throughline::propagation::{message, values};
use throughline::telemetry::{self, MemoryExporter};
use throughline::trace::{SpanKind, Tracer};
use throughline::{Code, Context, Error, Key, Propagator};
use tokio::sync::mpsc;

/// A value that travels with messages.
static TENANT: Key<u64> = Key::baggage("tenant");

struct Message {
    headers: HashMap<String, String>,
    payload: String,
}

/// Sends a message, with a PRODUCER span.
async fn publish(queue: &mpsc::Sender<Message>, ctx: &Context, payload: &str) -> Result<(), Error> {
    let span = ctx.span("send orders").kind(SpanKind::Producer).start();
    let mut headers = HashMap::new();
    Propagator::current_default().inject(&span, &mut headers);
    // A message may wait for a long time, so it carries a point in time and not a remaining time.
    message::inject(SystemTime::now(), span.remaining(), &mut headers)
        .map_err(|expired| Error::wrap(Code::DeadlineExceeded, expired))?;
    let send = queue.send(Message { headers, payload: payload.to_owned() });
    span.run(send).await?.map_err(|_| Error::new(Code::Unavailable, "the queue is closed"))
}

/// Handles messages until the queue is closed. Returns those that it has handled.
async fn consume(mut queue: mpsc::Receiver<Message>, tracer: Tracer) -> Vec<String> {
    let mut handled = Vec::new();
    while let Some(Message { headers, payload }) = queue.recv().await {
        let mut ctx = Context::background().with_tracer(&tracer);
        // Malformed headers are ignored, and a message without a trace starts one.
        ctx = Propagator::current_default().extract(&ctx, &headers);
        ctx = values::extract(&ctx, &[&TENANT], &headers);
        if let Some(remaining) = message::extract(&headers).remaining(SystemTime::now()) {
            ctx = ctx.with_timeout(remaining);
        }
        let span = ctx.span("process orders").kind(SpanKind::Consumer).start();
        match span.run(handle(&span, &payload)).await {
            Ok(text) => handled.push(text),
            Err(expired) => span.record_error(&expired),
        }
    }
    handled
}

async fn handle(ctx: &Context, payload: &str) -> String {
    format!("{payload} of tenant {}", ctx.value(&TENANT).copied().unwrap_or_default())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spans = MemoryExporter::default();
    let telemetry = telemetry::builder("orders").exporter(spans.clone()).build()?;
    let (sender, receiver) = mpsc::channel(16);

    let ctx = Context::background().with_tracer(telemetry.tracer()).with_value(&TENANT, 7);
    publish(&sender, &ctx, "bread").await?;
    let expires_soon = ctx.with_timeout(Duration::from_millis(20));
    publish(&sender, &expires_soon, "milk").await?;
    expires_soon.done().await; // the message expires before the consumer takes it
    drop(sender);

    let handled = consume(receiver, telemetry.tracer().clone()).await;
    assert_eq!(handled, ["bread of tenant 7"]);

    telemetry.shutdown(Duration::from_secs(2)).await?;
    let mut out = io::stdout();
    writeln!(out, "handled: {}", handled.join(", "))?;
    for span in spans.spans() {
        writeln!(out, "trace {}: {}, {:?}", span.span_context.trace_id(), span.name, span.status)?;
    }
    Ok(())
}
