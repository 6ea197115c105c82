//! When to try again (OTLP specification, "Failures", "OTLP/gRPC Throttling", "OTLP/HTTP Throttling").

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::telemetry::ExportError;

/// How an attempt went wrong.
pub(super) enum Failure {
    /// Trying again may help, after this time if the receiver gave one.
    Transient { message: String, after: Option<Duration> },
    /// It won't.
    Permanent(ExportError),
}

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Makes attempts, with growing pauses of random length between them, until one succeeds or can't, or `limit` has passed.
pub(super) async fn retry<F>(limit: Duration, endpoint: &str, mut attempt: impl FnMut() -> F) -> Result<(), ExportError>
where
    F: Future<Output = Result<(), Failure>>,
{
    let start = Instant::now();
    let until = start.checked_add(limit).unwrap_or(start + Duration::from_secs(3600));
    let mut pause = FIRST_PAUSE;
    let mut last = Cow::Borrowed("no answer");
    loop {
        let after = match timeout_at(until, attempt()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Failure::Permanent(error))) => return Err(error),
            Ok(Err(Failure::Transient { message, after })) => {
                last = message.into();
                after
            }
            Err(_) => break,
        };
        // A part is random, so that a thousand processes do not come back together, at the time they were all given either; and a
        // receiver that says "at once" for ever is not asked in a tight loop.
        let random = pause.mul_f64(fastrand::f64() / 2.0);
        let wait = after.unwrap_or(pause / 2).saturating_add(random);
        let next = Instant::now().checked_add(wait).filter(|next| *next < until);
        let Some(next) = next else { break };
        sleep_until(next).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Err(ExportError::failed(format!("{endpoint} has taken nothing for {:.1?}: {last}", start.elapsed())))
}
