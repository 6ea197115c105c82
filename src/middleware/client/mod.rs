//! The client side: [`ClientLayer`] sends the context with each call.
//!
//! The call ends with its context.
//!
//! Terms:
//! - **Call**: one request to a callee, and its response with the body. A redirect or a retry is a
//!   call of its own.
//! - **Internal service**: a callee that the layer trusts. It gets the whole context.
//! - **External host**: any other callee. It gets `traceparent` only.
//! - **Reply reserve**: the part of the time left that is kept for the response's way back. The
//!   timeout that the callee gets is shorter by it.
//! - **Origin of an error**: the service in which the error began.
//!
//! # When each thing happens
//! - **Before the send.** The layer takes the context from the request's extensions, or else the
//!   ambient one ([`Context::current`]). [`send_with`](SendWith::send_with) has a parameter for it.
//!   If the context is done, or has no time left, the call is not sent.
//!   `tower::buffer::Buffer` calls the layer from its own task, where there is no ambient context.
//!   Below a buffer, put the context into the extensions.
//! - **At the send.** A CLIENT span starts as a child of the context's span. Its name is the
//!   method, with the [template](UrlTemplate) of the path if there is one. The layer writes these
//!   headers, and replaces those that the request already has:
//!   - the span's identity, as `traceparent`;
//!   - the time left less the reply reserve, as `grpc-timeout`, or as `connect-timeout-ms` to a
//!     Connect service. Over plain HTTP, [`timeout_header`](ClientLayer::timeout_header) and
//!     [`timeout_header_ms`](ClientLayer::timeout_header_ms) choose another header. A shorter
//!     timeout of the request stays;
//!   - the context's baggage, the values of keys that are declared for the wire, and the principal.
//!
//!   A context in the request's extensions becomes the one of the call. So layers inside write to
//!   its span, and see its deadline.
//! - **During the call.** When the context is done, the call is dropped. This resets its stream
//!   (HTTP/2) or closes its connection (HTTP/1), and so the callee learns of it. A response that is
//!   ready exactly at the deadline is returned. The request body ends with the call: see
//!   [`RequestBody`].
//! - **At the end.** The span ends with the last frame of the response body, or when the body is
//!   dropped. If the call's future or body is dropped before its end, the span has the cause
//!   `Abandoned`. If the context is done before the last frame, the body ends with an error.
//!
//! When the caller cancels its own call, the span is not an error. It has the cause
//! (`throughline.cancel.cause`).
//!
//! # Errors
//! The failure of a call becomes an [`Error`](crate::Error). The failure is its source, and decides
//! its code:
//!
//! | Failure | Code |
//! |---|---|
//! | The context is done | `DEADLINE_EXCEEDED` or `CANCELLED` |
//! | An [`Error`](crate::Error) of a service inside | that error |
//! | A timeout of the client, of a layer inside, or of connecting | `DEADLINE_EXCEEDED` |
//! | A reset, a close or a cut-off body within the reply reserve | `DEADLINE_EXCEEDED` |
//! | A reset HTTP/2 stream | as gRPC maps the reset's code; `REFUSED_STREAM` is retryable |
//! | A closed HTTP/2 connection | `UNAVAILABLE`; retryable if not processed (GOAWAY) |
//! | A gRPC response that ends without a status | `UNKNOWN` |
//! | Any other | `UNAVAILABLE` |
//!
//! "Within the reply reserve" means: no more than the reserve is left of the time. An
//! [`Error`](crate::Error) of a service inside is such a failure if an HTTP/2 error is its source.
//!
//! The origin of a response's error is the service that the response names, or else the host that
//! was called.
//!
//! # tonic
//! [`middleware::tonic::Channel`](crate::middleware::tonic) is this layer around an HTTP/2 client,
//! for clients of tonic. The layer also fits around a channel of tonic. Both:
//! - **Errors.** A client returns a `tonic::Status` with the code of the layer's error.
//!   [`Error::from_grpc_status`](crate::Error) returns the error itself.
//! - **Responses that are not gRPC**, such as the page of an ingress, do not reach the client. It
//!   gets a status with the code that the HTTP status means.
//! - **Origin.** A status with an error has the metadata `throughline-origin`: the host that was
//!   called.
//!
//! A channel of tonic alone:
//! - **Timer.** It starts its own timer from the `grpc-timeout` in the request. That is the
//!   callee's timeout, so it is shorter than the caller's. The channel gives up when the callee
//!   does, and the callee's response mostly arrives too late. The error is `DEADLINE_EXCEEDED`.
//! - **Host.** It adds the host only below the layer. The span and
//!   [`internal_hosts`](ClientLayer::internal_hosts) need it: make the client `with_origin`.
//!
//! # Redirects and retries
//! Each is a call of its own, with:
//! - its own span and `traceparent`;
//! - the time that is left when it is sent;
//! - the headers that its own host may have. Headers written for one host are not sent to another.
//!
//! A redirect to another origin than the first request's goes to an external host, unless
//! [`internal_hosts`](ClientLayer::internal_hosts) lists the host.
//!
//! A client that follows redirects itself sends the first request's headers again: a stale timeout,
//! and the baggage even to another host. So, with reqwest:
//! - Give the client `redirect::Policy::none()`.
//! - Call [`follow_redirects`](ClientLayer::follow_redirects) on the layer. It follows RFC 9110
//!   §15.4, and removes credentials where the origin changes.
//! - It returns the last response when the limit is reached, or when the body cannot be sent again.
//!
//! For retries, see [`ClientLayer::retry`] and the rules in [`retry`]. A layer of your own that
//! sends a request again goes outside this one.
//!
//! # How it differs
//! - The trace layer of `tower-http` sets no parent and sends no headers. Its span does not have
//!   the deadline.
//! - A client's own timeout drops the call, but the callee works on: it does not know the deadline.
//!
//! [`Context::current`]: crate::Context::current

mod body;
mod call;
#[cfg(feature = "tonic")]
mod grpc;
mod head;
mod hooks;
mod inject;
mod layer;
#[cfg(feature = "reqwest")]
mod redirect;
mod request;
#[cfg(feature = "reqwest")]
mod reqwest;
pub mod retry;
mod service;
mod status;
mod template;
mod timeout;
mod trust;

pub use body::CallBody;
pub use head::CallHead;
pub use layer::ClientLayer;
pub use request::RequestBody;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use reqwest::{SendLayer, SendWith};
pub use service::{CallFuture, ClientService};
pub use status::error_for_status;
pub use template::UrlTemplate;
