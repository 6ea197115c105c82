//! Sends a request until an attempt succeeds or there may be no further one.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use throughline_core::ContextError;
use tokio::time::Instant;

use super::session::Session;
use crate::error::Error;

/// How a client sends one attempt, and what its outcome means.
pub(in crate::middleware::client) trait Exchange<Q>: Send {
    /// A response or an error.
    type Outcome: Send;

    /// A second request like `request`. `None`: its body can be sent only once.
    fn copy(&self, request: &mut Q) -> Option<Q>;

    /// Sends an attempt. `resend`: how many attempts there were before.
    fn send(&mut self, request: Q, resend: u32) -> impl Future<Output = Self::Outcome> + Send + use<Self, Q>;

    /// The error of an attempt, if another one may succeed. `None`: this outcome is final.
    fn transient_error(&self, session: &Session, outcome: &Self::Outcome) -> Option<Error>;

    /// Ends an attempt whose outcome is not returned.
    fn discard(&self, outcome: Self::Outcome);

    /// Called before the wait for a retry.
    fn record_retry(&self, error: &Error, wait: Duration) {
        let _ = (error, wait);
    }
}

/// Returns the first final outcome, or else the last one.
///
/// # Errors
/// The context ended in the wait between two attempts. If it ends during an attempt, that
/// attempt's outcome says so.
pub(in crate::middleware::client) async fn run<E: Exchange<Q>, Q>(
    mut exchange: E,
    mut session: Session,
    mut request: Q,
) -> Result<E::Outcome, ContextError> {
    loop {
        let mut copy = if session.is_next_not_last() { exchange.copy(&mut request) } else { None };
        let (outcome, started) = send(&mut exchange, &mut session, request, &mut copy).await;
        let Some(error) = exchange.transient_error(&session, &outcome) else {
            session.record_time(started.elapsed());
            return Ok(outcome);
        };
        session.record_failure(&error);
        let Some(next) = copy else { return Ok(outcome) };
        let Some(wait) = session.retry_wait() else { return Ok(outcome) };
        exchange.record_retry(&error, wait);
        exchange.discard(outcome);
        session.context().run(tokio::time::sleep(wait)).await?;
        request = next;
    }
}

/// Sends an attempt, and a second one if the first is slow. Takes `copy` for it.
///
/// Returns an outcome, and when its attempt was sent.
async fn send<E: Exchange<Q>, Q>(
    exchange: &mut E,
    session: &mut Session,
    request: Q,
    copy: &mut Option<Q>,
) -> (E::Outcome, Instant) {
    let first_started = Instant::now();
    let mut first = pin!(exchange.send(request, session.begin_attempt()));
    let Some(delay) = session.hedge_delay().filter(|_| copy.is_some()) else { return (first.await, first_started) };
    tokio::select! {
        biased;
        outcome = &mut first => return (outcome, first_started),
        () = tokio::time::sleep(delay) => {}
    }
    if !session.may_hedge() {
        return (first.await, first_started);
    }
    let Some(mut request) = copy.take() else { return (first.await, first_started) };
    if session.is_next_not_last() {
        *copy = exchange.copy(&mut request);
    }
    let second_started = Instant::now();
    let mut second = pin!(exchange.send(request, session.begin_attempt()));
    // The attempt that is not returned is dropped, which cancels it.
    let (outcome, is_first) = tokio::select! {
        biased;
        outcome = &mut first => (outcome, true),
        outcome = &mut second => (outcome, false),
    };
    match exchange.transient_error(session, &outcome) {
        None => return (outcome, if is_first { first_started } else { second_started }),
        Some(error) => session.record_failure(&error),
    }
    exchange.discard(outcome);
    if is_first { (second.await, second_started) } else { (first.await, first_started) }
}
