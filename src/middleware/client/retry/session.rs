//! The attempts of one call: whether there may be another, and when.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use throughline_core::Context;
use throughline_core::propagation::deadline::ReplyReserve;
use tokio::time::Instant;

use super::policy::Settings;
use crate::error::Error;
use crate::middleware::grpc;

pub(in crate::middleware::client) struct Session {
    settings: Arc<Settings>,
    ctx: Context,
    reserve: ReplyReserve,
    /// The most attempts: 1 if the request is not idempotent.
    max_attempts: u32,
    /// The attempts sent so far.
    attempts: u32,
    /// The waits so far.
    waits: u32,
    /// No attempt before this time: the callee asked for a pause while another attempt ran.
    not_before: Option<Instant>,
    /// The callee asked for no further attempt.
    is_stopped: bool,
}

impl Session {
    pub(in crate::middleware::client) fn new(
        settings: Arc<Settings>,
        ctx: Context,
        reserve: ReplyReserve,
        is_idempotent: bool,
    ) -> Self {
        settings.deposit();
        let max_attempts = if is_idempotent { settings.max_attempts.max(1) } else { 1 };
        Session { settings, ctx, reserve, max_attempts, attempts: 0, waits: 0, not_before: None, is_stopped: false }
    }

    pub(super) fn context(&self) -> &Context {
        &self.ctx
    }

    /// Counts an attempt. Returns how many there were before it.
    pub(super) fn begin_attempt(&mut self) -> u32 {
        self.attempts += 1;
        self.attempts - 1
    }

    /// Whether the number of attempts allows one after the next.
    pub(super) fn is_next_not_last(&self) -> bool {
        self.attempts + 1 < self.max_attempts
    }

    /// Records what a failed attempt asks of the next one.
    pub(super) fn record_failure(&mut self, error: &Error) {
        self.is_stopped |= error.retryable() == Some(false);
        if let Some(after) = error.retry_after() {
            self.is_stopped |= after > self.settings.max_retry_after;
            let pause_ends = Instant::now().checked_add(after);
            self.not_before = self.not_before.max(pause_ends);
        }
    }

    /// The wait before a retry. `None`: there is no retry. Withdraws from the budget.
    pub(super) fn retry_wait(&mut self) -> Option<Duration> {
        // gRFC A6: random(0, min(initial × 2ⁿ, max)).
        let settings = &self.settings;
        let limit = settings.initial_backoff.saturating_mul(2_u32.saturating_pow(self.waits)).min(settings.max_backoff);
        let pause = self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        // The random part comes on top of what the callee asks: it may ask all clients the same.
        let wait = pause.saturating_add(limit.mul_f64(fastrand::f64()));
        self.waits += 1;
        self.may_send_after(wait).then_some(wait)
    }

    /// How long to wait for an attempt before a second one is sent. `None`: no second one.
    pub(super) fn hedge_delay(&self) -> Option<Duration> {
        self.settings.hedge.as_ref()?.delay()
    }

    /// Whether a second attempt may be sent now. Withdraws from the budget.
    pub(super) fn may_hedge(&self) -> bool {
        // There is no pause to wait for: an attempt begins after the pause of the one before.
        self.may_send_after(Duration::ZERO)
    }

    fn may_send_after(&self, wait: Duration) -> bool {
        let is_allowed = !self.is_stopped && self.attempts < self.max_attempts && !self.ctx.is_done();
        // The part of the time that is kept for the response's way back is too short for a call.
        let fits = |left: Duration| wait.saturating_add(self.reserve.of(left)) < left;
        is_allowed && self.ctx.remaining().is_none_or(fits) && self.settings.withdraw()
    }

    pub(super) fn record_time(&self, time: Duration) {
        if let Some(hedge) = &self.settings.hedge {
            hedge.record(time);
        }
    }

    /// The error, if another attempt may succeed.
    pub(in crate::middleware::client) fn transient_error(&self, error: Error, is_grpc: bool) -> Option<Error> {
        Some(error).filter(|error| self.settings.is_transient(error, is_grpc))
    }

    /// The error in the head of a response, if another attempt may succeed.
    pub(in crate::middleware::client) fn transient_error_of_head(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<Error> {
        self.transient_error(Error::from_status(status, headers)?, false)
    }

    /// The same for gRPC, whose head has a status if there are no messages.
    ///
    /// gRPC calls such a response "Trailers-Only".
    /// gRFC A6: a response that begins with messages is final.
    pub(super) fn transient_error_of_grpc_head(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        is_external: bool,
    ) -> Option<Error> {
        let code = grpc::status_of_head(status, headers)??;
        let error = match headers.contains_key(grpc::STATUS) {
            true => grpc::error_of(code, headers, is_external),
            // A proxy sent this response.
            false => Error::from_head(code, headers),
        };
        self.transient_error(error, true)
    }
}
