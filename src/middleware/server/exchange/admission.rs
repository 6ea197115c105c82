//! Whether a request reaches its handler: the time left, and the authenticator.

use http::Response;
use http::request::Parts;
use throughline_core::Cause;

use super::Exchange;
use crate::middleware::semconv;
use crate::middleware::server::authenticated::{Refused, catch_panic};
use crate::middleware::server::layer::Trust;

impl Exchange {
    /// Whether the handler is not called.
    ///
    /// That is so if no time is left, or too little, or if the base is done.
    pub(in super::super) fn is_shed(&self) -> bool {
        self.refusal.is_some() || self.ctx.is_done()
    }

    /// Determines the principal of an untrusted client. `false`: the request is refused.
    pub(in super::super) fn authenticate(&mut self, head: &Parts) -> bool {
        let authenticator = self.config.authenticator.as_ref().filter(|_| self.trust == Trust::Edge);
        let Some(authenticate) = authenticator else { return true };
        match catch_panic(|| self.ctx.enter(|| authenticate(head))).flatten() {
            Ok(authenticated) => {
                let whole = self.whole.as_ref().unwrap_or(&self.ctx);
                let (whole, handler) = authenticated.contexts(whole, &self.ctx);
                self.whole = self.whole.is_some().then_some(whole);
                self.ctx = handler;
            }
            Err(error) => self.refusal = Some(error),
        }
        self.refusal.is_none()
    }

    /// Refuses the request if an inner authenticator has done so in this response.
    pub(in super::super) fn is_refused_by<B>(&mut self, response: &Response<B>) -> bool {
        if self.config.inner_may_refuse {
            self.refusal = response.extensions().get().map(|Refused(error)| error.clone());
        }
        self.refusal.is_some()
    }

    /// Records that the handler is not called.
    pub(in super::super) fn record_shed(&self) {
        self.report.set(|facts| facts.is_shed = true);
        let Some(live) = &self.live else { return };
        let Some(span) = &live.span else { return };
        let reason = if self.refusal.is_some() { "too little time" } else { "dead on arrival" };
        span.set_attribute(semconv::SHED, reason);
        span.record_shed(&self.ctx.cause().unwrap_or(Cause::DeadlineExceeded));
    }
}
