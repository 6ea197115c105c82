//! Calls that are sent again, and calls that are not.
//!
//! Run it with `cargo run --example retry`. A service `balance` restarts: it refuses every first
//! request with 503. The calls differ in what the client knows about them.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Path;
use axum::routing::any;
use throughline::{ClientLayer, Code, Context, ContextLayer, Error, RetryPolicy, SendWith};
use tokio::net::TcpListener;

/// The requests that `balance` got since the last [`attempts`].
static REQUESTS: AtomicU32 = AtomicU32::new(0);

/// The handler of `balance`: the first request fails, and asks for a pause.
async fn account(Path(pause): Path<u64>) -> Result<&'static str, Error> {
    if REQUESTS.fetch_add(1, Ordering::Relaxed) == 0 {
        return Err(Error::new(Code::Unavailable, "restarting").with_retry_after(Duration::from_secs(pause)));
    }
    Ok("EUR 7.00")
}

fn attempts() -> u32 {
    REQUESTS.swap(0, Ordering::Relaxed)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let balance = Router::new().route("/pause/{seconds}", any(account)).layer(ContextLayer::internal());
    tokio::spawn(async move { axum::serve(listener, balance).await });

    // One policy per callee. Its clones share the budget.
    let policy = RetryPolicy::new()
        .max_attempts(3)
        .backoff(Duration::from_millis(10), Duration::from_millis(200))
        .idempotent_if(|_, uri| uri.query() == Some("declared"));
    let layer = ClientLayer::internal().retry(policy.clone());
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let ctx = Context::background().with_timeout(Duration::from_secs(5));
    let mut out = io::stdout();

    // GET is idempotent (RFC 9110). The second attempt sends the time that is left then.
    let response = client.get(format!("{url}/pause/0")).send_with(&ctx, &layer).await?;
    assert_eq!((response.text().await?.as_str(), attempts()), ("EUR 7.00", 2));
    writeln!(out, "GET: 2 attempts, 200")?;

    // A POST may have an effect. Nobody has declared that a second one does no harm.
    let error = client.post(format!("{url}/pause/0")).send_with(&ctx, &layer).await.expect_err("it is not retried");
    assert_eq!((error.code(), attempts()), (Code::Unavailable, 1));
    writeln!(out, "POST: 1 attempt, {error}")?;

    // The key lets the service recognize a repetition. The policy declares by method and path.
    client.post(format!("{url}/pause/0")).header("idempotency-key", "7").send_with(&ctx, &layer).await?;
    assert_eq!(attempts(), 2);
    client.post(format!("{url}/pause/0?declared")).send_with(&ctx, &layer).await?;
    assert_eq!(attempts(), 2);
    writeln!(out, "POST, declared idempotent: 2 attempts, 200")?;

    // The service asks for a longer pause than the context has time. The error returns at once.
    let started = Instant::now();
    let error = client.get(format!("{url}/pause/6")).send_with(&ctx, &layer).await.expect_err("it does not fit");
    assert_eq!((error.retry_after(), attempts()), (Some(Duration::from_secs(6)), 1));
    assert!(started.elapsed() < Duration::from_secs(5));
    writeln!(out, "GET, retry after 6 s with less than 5 s left: 1 attempt, {error}")?;

    assert_eq!((policy.retry_count(), policy.over_budget_count()), (3, 0));
    writeln!(out, "3 retries, all within the budget")?;
    Ok(())
}
