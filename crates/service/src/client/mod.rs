//! Clients of named services: retries, balancing and circuit breaking on the context.
//!
//! # When each thing happens
//! From the outside to the inside:
//!
//! | Layer | What it does | How often |
//! |---|---|---|
//! | [`Client`] | sets the timeout of the client or of the route | once per call |
//! | [retries](throughline::middleware::client::retry) | sends a call again, if its route is declared idempotent | once per call |
//! | [`ClientLayer`](throughline::ClientLayer) | a CLIENT span with the route as its template; the headers | each attempt |
//! | balancing | chooses an instance | each attempt |
//! | [breaker](crate::breaker) of the instance | refuses calls to an instance that fails | each attempt |
//! | [`Endpoint`](throughline_transport::Endpoint) | sends the request over the transport | each attempt |
//!
//! - **Discovery.** The first call looks up the instances. A task follows the changes. Calls that
//!   begin during the look-up wait for it. If it fails, they fail, and the next call looks again.
//! - **Balancing.** Of two random instances that are ready, the call goes to the one with the lower
//!   cost: its recent response time times its calls in flight. A slow response raises the cost at
//!   once, and it decays over about 10 s. A failed call counts as at least one second.
//! - **Not ready.** An instance whose breaker is open gets no calls, and neither does one that
//!   discovery has removed. Its calls in flight go on. If no instance is ready, a call fails at
//!   once with `UNAVAILABLE`; it does not wait.
//! - **Suspect.** For one second after a transport failure, an instance is used only if no other
//!   instance is ready.
//! - **Retries** go to another instance, if there is one.
//! - A transport without discovery has one instance: the transport itself.
//!
//! # How it differs
//! `tower::balance` polls a service that is not ready only after a wake-up, and waits for one
//! that is. `tower::load::PeakEwma` counts a call that is dropped as a response, so a slow instance
//! whose callers give up looks fast. Here it keeps its cost.

mod all;
mod balance;
mod handle;
mod instances;
mod load;

pub use all::{CallFailures, call_all, try_call_all};
pub use handle::Client;
