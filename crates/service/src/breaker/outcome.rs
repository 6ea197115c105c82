//! What the end of a call says about the callee.

use std::error::Error as StdError;
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use throughline::{Code, Context, ContextError, Error, ReplyReserve};

use super::machine::Outcome;

/// The times that decide whether a missed deadline was fair.
pub(super) struct Granted<'a> {
    pub(super) ctx: &'a Context,
    /// The time left when the call began. `None`: there was no deadline.
    pub(super) time: Option<Duration>,
    /// The time since then.
    pub(super) elapsed: Duration,
}

impl Granted<'_> {
    /// A call without a response, which was dropped.
    pub(super) fn dropped(&self) -> Outcome {
        match self.ctx.err() {
            Some(ContextError::DeadlineExceeded) => self.timed_out(),
            // The caller gave up.
            _ => Outcome::Neutral,
        }
    }

    pub(super) fn responded<B>(&self, response: &Response<B>) -> Outcome {
        let status = response.status();
        if status == StatusCode::OK {
            return self.of_grpc_status(response.headers());
        }
        match status.as_u16() {
            ..400 => Outcome::Success,
            // The callee gave up, at the deadline that it was given or at one of its own.
            504 => Outcome::DeadlineMissed(self.time),
            // An unknown operation is the caller's mistake.
            400..500 | 501 => Outcome::Neutral,
            500.. => Outcome::Failure,
        }
    }

    /// A gRPC response without messages has its status in the head.
    fn of_grpc_status(&self, headers: &HeaderMap) -> Outcome {
        let Some(status) = headers.get("grpc-status") else { return Outcome::Success };
        match status.to_str().ok().and_then(|number| number.parse().ok()).map(Code::from_grpc_number) {
            Some(None) => Outcome::Success,
            Some(Some(Code::Unavailable)) => Outcome::Failure,
            Some(Some(code)) => self.of_code(code),
            None => Outcome::Failure,
        }
    }

    pub(super) fn failed(&self, failure: &(dyn StdError + 'static)) -> Outcome {
        match self.ctx.err() {
            Some(ContextError::Canceled) => return Outcome::Neutral,
            Some(ContextError::DeadlineExceeded) => return self.timed_out(),
            None => {}
        }
        let code = Error::meaning_of(failure).code();
        match code {
            Code::DeadlineExceeded => self.timed_out(),
            // A callee that has seen its deadline pass resets the stream.
            Code::Cancelled | Code::Internal | Code::Unknown if self.is_late() => self.timed_out(),
            Code::Cancelled => Outcome::Failure,
            code => self.of_code(code),
        }
    }

    fn of_code(&self, code: Code) -> Outcome {
        match code {
            Code::DeadlineExceeded => Outcome::DeadlineMissed(self.time),
            Code::Unavailable => Outcome::Unreachable,
            Code::Internal | Code::Unknown | Code::DataLoss => Outcome::Failure,
            _ => Outcome::Neutral,
        }
    }

    /// A deadline or timeout on this side passed. The callee had the time until now.
    fn timed_out(&self) -> Outcome {
        Outcome::DeadlineMissed(Some(self.time.map_or(self.elapsed, |time| time.min(self.elapsed))))
    }

    /// Whether no more than the reply reserve is left.
    fn is_late(&self) -> bool {
        self.time.is_some_and(|time| self.elapsed.saturating_add(ReplyReserve::DEFAULT.of(time)) >= time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn granted(ctx: &Context) -> Granted<'_> {
        Granted { ctx, time: Some(2 * SECOND), elapsed: SECOND }
    }

    #[test]
    fn the_status_decides_about_a_response() {
        let ctx = Context::background();
        let of_status = |status: u16| {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            granted(&ctx).responded(&response)
        };
        let of_grpc = |status: &'static str| {
            let mut response = Response::new(());
            response.headers_mut().insert("grpc-status", http::HeaderValue::from_static(status));
            granted(&ctx).responded(&response)
        };
        assert_eq!([200, 204, 304].map(of_status), [Outcome::Success; 3]);
        assert_eq!([400, 404, 408, 429, 499, 501].map(of_status), [Outcome::Neutral; 6]);
        assert_eq!([500, 502, 503, 599].map(of_status), [Outcome::Failure; 4]);
        assert_eq!(of_status(504), Outcome::DeadlineMissed(Some(2 * SECOND)));
        assert_eq!(["0", "5", "8", "1"].map(of_grpc)[0], Outcome::Success);
        assert_eq!(["5", "8", "1", "12"].map(of_grpc), [Outcome::Neutral; 4]);
        assert_eq!(["13", "14", "2", "x"].map(of_grpc), [Outcome::Failure; 4]);
        assert_eq!(of_grpc("4"), Outcome::DeadlineMissed(Some(2 * SECOND)));
    }

    #[test]
    fn the_code_decides_about_a_failure_unless_the_context_is_done() {
        let ctx = Context::background();
        let of = |code| granted(&ctx).failed(&Error::new(code, ""));
        assert_eq!(of(Code::Unavailable), Outcome::Unreachable);
        assert_eq!([Code::Internal, Code::Unknown, Code::Cancelled].map(of), [Outcome::Failure; 3]);
        assert_eq!([Code::ResourceExhausted, Code::NotFound, Code::InvalidArgument].map(of), [Outcome::Neutral; 3]);
        assert_eq!(of(Code::DeadlineExceeded), Outcome::DeadlineMissed(Some(SECOND)));
        let late = Granted { elapsed: 2 * SECOND - Duration::from_millis(5), ..granted(&ctx) };
        assert_eq!(late.failed(&Error::new(Code::Internal, "")), late.timed_out());

        let cancelled = Context::background().with_cancel();
        cancelled.cancel();
        assert_eq!(granted(&cancelled).failed(&Error::new(Code::Unavailable, "")), Outcome::Neutral);
        assert_eq!(granted(&cancelled).dropped(), Outcome::Neutral);
        let late = Context::background().with_timeout(Duration::ZERO);
        assert_eq!(granted(&late).dropped(), Outcome::DeadlineMissed(Some(SECOND)));
    }
}
