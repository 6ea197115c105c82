//! Retries: a failed call is sent again, within a budget and within the context's time.
//!
//! [`ClientLayer::retry`](crate::ClientLayer::retry) takes a [`RetryPolicy`], and returns a
//! [`RetryLayer`]. It goes where the client layer goes: around a tower service (hyper, tonic,
//! reqwest), or to [`send_with`](crate::SendWith::send_with).
//!
//! Terms:
//! - **Attempt**: one send of a request. The first one is an attempt, too.
//! - **Idempotent**: sent twice, the request has the same effect as sent once (RFC 9110 §9.2.2).
//! - **Back-off**: the wait before a retry. It grows from retry to retry.
//! - **Pushback**: the wait that a callee asks for. `Retry-After`, or for gRPC `RetryInfo` and
//!   `grpc-retry-pushback-ms`.
//! - **Budget**: a limit of the retries of all calls together.
//! - **Hedge**: an attempt that is sent while an earlier one still runs.
//!
//! # When each thing happens
//! From the outside to the inside:
//!
//! | Position | What is there | How often |
//! |---|---|---|
//! | outside | your layers: a limit for the whole call, such as a context with a timeout | once per call |
//! | [`RetryLayer`] | takes the context, decides about retries, waits | once per call |
//! | over gRPC: the span | a CLIENT span with an event `throughline.retry` for each retry | once per call |
//! | over HTTP: the span | a CLIENT span with `http.request.resend_count` | each attempt |
//! | headers | `traceparent`, the time left at this moment, baggage, keys | each attempt |
//! | inside | your layers: a timeout per attempt, a concurrency limit, `tower::buffer` | each attempt |
//! | the client | hyper, tonic or reqwest | each attempt |
//!
//! The span follows OpenTelemetry's semantic conventions 1.45. A span of an HTTP client is one
//! request on the wire. A span of an RPC client covers all its retries.
//!
//! After an attempt, the layer checks these conditions in this order. If one does not hold, the
//! call ends with the result of this attempt:
//! 1. [Another attempt may succeed](#what-is-retried).
//! 2. The request is [idempotent](#idempotence), and its [body](Replay) can be sent again.
//! 3. There are attempts left ([`max_attempts`](RetryPolicy::max_attempts)).
//! 4. The callee allows it: there is no negative pushback, and none longer than
//!    [`max_retry_after`](RetryPolicy::max_retry_after).
//! 5. The context is live, and the wait fits into its time left. After the wait, more time must be
//!    left than the [reply reserve](crate::ReplyReserve).
//! 6. The [budget](RetryPolicy::budget) allows it.
//!
//! Then the response of the failed attempt is dropped, and the wait begins. Its length is the
//! pushback plus the [back-off](RetryPolicy::backoff). If the context ends in the wait, the call
//! ends at once with the error of the context, which has its cause.
//!
//! # What is retried
//! The first row that applies counts:
//!
//! | Result of an attempt | Retried |
//! |---|---|
//! | The error says whether it is [`retryable`](crate::Error::retryable) | as it says |
//! | [`retry_if`](RetryPolicy::retry_if) is set | as the rule says |
//! | `UNAVAILABLE`: no connection, a closed one, `REFUSED_STREAM`, 502, 503 | yes |
//! | `DEADLINE_EXCEEDED`: a timeout of one attempt, 408, 504 | yes |
//! | `RESOURCE_EXHAUSTED` over HTTP: 429, `ENHANCE_YOUR_CALM` | yes |
//! | `RESOURCE_EXHAUSTED` over gRPC | only with a pushback: the code also means "too large" |
//! | Any other | no |
//!
//! - A callee that says `retryable: false`, or a negative pushback, is not overruled by a rule.
//! - The result of an attempt is known with the head of its response. A body that breaks off
//!   later is not retried: its reader has seen a part of it. Over gRPC, a status counts if it
//!   comes without messages (gRFC A6, "Trailers-Only").
//! - `send_with` also reads the problem document of an internal service, and so its `retryable`.
//!   `response_with` and the tower service decide by the head.
//!
//! # Idempotence
//! Without a declaration, only methods that are idempotent by RFC 9110 §9.2.2 are retried: GET,
//! HEAD, OPTIONS, TRACE, PUT and DELETE. A POST, and so every gRPC call, needs a declaration:
//! - [`RetryPolicy::idempotent_if`], by method and path;
//! - [`Idempotent`] in the request's extensions, also of a `tonic::Request`;
//! - the header `Idempotency-Key`.
//!
//! A request that is not declared is not retried, even if the callee says that it has not begun to
//! process it. Hyper and reqwest do that themselves: see [below](#how-it-differs).
//!
//! # Hedging
//! [`hedge_after`](RetryPolicy::hedge_after) or
//! [`hedge_after_percentile`](RetryPolicy::hedge_after_percentile) sends a second attempt if the
//! first is slow.
//! - The first result that is not to be retried wins. The other attempt is dropped, which resets
//!   its stream (HTTP/2) or closes its connection (HTTP/1). Over HTTP, its span has the cause
//!   `abandoned`, and is no error.
//! - If one of the two fails, the call waits for the other. If both fail, the rules for retries
//!   decide.
//! - A hedge is sent only where a retry is allowed. It counts as an attempt, and withdraws from the
//!   same budget. After a negative or too long pushback there is neither a hedge nor a retry.
//!
//! # Defaults
//! | Setting | Value | Why |
//! |---|---|---|
//! | attempts | 3 | as in gRPC's examples; a callee that fails three times needs time, not requests |
//! | back-off | random, below 50 ms, 100 ms, … 1 s | gRFC A6; full jitter spreads clients best |
//! | longest pushback | 10 s | a caller that waits longer has most often gone |
//! | budget | 10 per second, and a fifth of the calls | tower's default, and that of Finagle and Linkerd |
//! | hedging | off | it adds load |
//! | kept bytes of a boxed body | 256 KiB | as in grpc-go |
//!
//! # How it differs
//! - `tower::retry` sends a clone of the request around any service. It cannot put one span around
//!   the attempts of a gRPC call, read an error's document, send tonic's bodies again, or return
//!   the error of a context that ends in the wait. Its [`Budget`](tower::retry::budget::Budget) is
//!   the one that a policy here takes. Its back-off has the same jitter for all calls of a client,
//!   and none at the maximum, so it is not used.
//! - `tower::hedge` returns the first result, also an error, and has no fixed delay.
//! - Hyper sends a request again if its pooled connection turns out to be closed before the
//!   request was written. Reqwest also retries `REFUSED_STREAM` and a GOAWAY without an error, at
//!   most twice. Both happen below this layer, within one attempt. The callee has not processed
//!   such a request, so that is safe for a POST, too.
//! - gRPC's service config counts failures of a channel, and stops retries when half of its tokens
//!   are gone. The budget here counts calls: a fifth of them may be retried even in an outage.
//! - `reqwest-middleware` has a client and a request builder of its own. There is no adapter for
//!   it: `send_with` takes reqwest's request builder.

mod hedge;
mod policy;
mod replay;
pub(super) mod run;
pub(super) mod service;
pub(super) mod session;

pub use policy::{Idempotent, RetryPolicy};
pub use replay::Replay;
pub use service::{RetryLayer, RetryService};
