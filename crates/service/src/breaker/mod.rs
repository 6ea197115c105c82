//! Circuit breaking with three outcomes: success, failure and neutral.
//!
//! A breaker refuses calls to a callee that fails, so that callers fail at once and the callee can
//! recover. [`BreakerLayer`] puts one around any
//! tower HTTP client, inside the [`ClientLayer`](throughline::ClientLayer).
//!
//! Terms:
//! - **Closed**: calls pass.
//! - **Open**: calls are refused.
//! - **Half-open**: a few calls pass as probes.
//! - **Granted time**: the time that the context of the call had left when the call began.
//! - **Route**: the method with the [`UrlTemplate`] of the request, or else with its path.
//! - **p50**: the recent median of a route's successful calls. It is known after nine of them.
//!
//! # What counts as what
//! | The end of a call | Outcome |
//! |---|---|
//! | a status below 400 | success |
//! | 4xx, 501, or the gRPC status that means the same | neutral |
//! | other 5xx, and `UNKNOWN`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS` over gRPC | failure |
//! | no response: a transport failure, a reset stream | failure |
//! | no response: a limit on this side, such as `RESOURCE_EXHAUSTED` | neutral |
//! | the caller cancels the context, or drops the call | neutral |
//! | the deadline is missed, and the granted time was fair | failure |
//! | the deadline is missed, and the granted time was too short | neutral |
//!
//! - A missed deadline is a deadline of the context that passes, a timeout of an inner layer, or a
//!   504 or `DEADLINE_EXCEEDED` of the callee.
//! - The granted time is fair if it was at least [`fair_share`](BreakerSettings::fair_share) times
//!   the route's p50. While there is no p50, at least [`fair_time`](BreakerSettings::fair_time).
//!   For a timeout of an inner layer, the time until then counts.
//! - A call ends with the head of its response. A gRPC status that comes after messages, and a body
//!   that breaks off, are not seen.
//! - 501 is neutral because one caller of an unknown route would open the breaker for all others.
//! - A neutral call counts neither as a request nor as a success. A neutral probe frees its slot.
//! - A breaker keeps the p50 of up to 64 routes. Further routes share one. So put a template into
//!   the extensions where a path has an id.
//!
//! # When each thing happens
//! - **Closed.** The breaker opens when the window has at least
//!   [`min_requests`](BreakerSettings::min_requests), and
//!   [`failure_ratio`](BreakerSettings::failure_ratio) of them are failures. It also opens after
//!   [`unreachable_limit`](BreakerSettings::unreachable_limit) transport failures in a row.
//! - **Open.** Each call fails at once with `UNAVAILABLE`. It is retryable and has the time until
//!   the next probe as its [`retry_after`](throughline::Error::retry_after).
//! - **Half-open.** The first call after that time is a probe. At most
//!   [`probes`](BreakerSettings::probes) run at the same time, other calls are refused. One success
//!   closes the breaker. One failure opens it again, for a time that grows.
//! - A call that was admitted before a change of the state does not change it any more.
//! - **Each change** is an event `throughline.breaker` on the CLIENT span of the call that caused
//!   it, a line in the log with the target `throughline::breaker`, and is seen by
//!   [`Breaker::state`].
//!
//! # How it differs
//! A generic breaker gets a bool for each call. A caller that gives up, or that comes with one
//! millisecond left, then counts as a failure of the callee, and many of them open the breaker of a
//! callee that works. Here the granted time separates the cases.
//!
//! [`UrlTemplate`]: throughline::middleware::client::UrlTemplate

mod handle;
mod latency;
mod machine;
mod outcome;
mod service;
mod settings;
mod window;

pub use handle::Breaker;
pub use machine::{BreakerCounters, BreakerState};
pub use service::{BreakerFuture, BreakerLayer, BreakerService};
pub use settings::BreakerSettings;
pub(crate) use settings::SharedSettings;
