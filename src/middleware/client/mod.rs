//! The client's side: [`ClientLayer`] sends the context with every call, and ends the call with it.
//!
//! # When each thing happens
//! - **Before the send.** A call under a context that is done, or has no time left, is not sent. The context is the one among the request's
//!   extensions, else the ambient one ([`Context::current`]); [`send_with`](SendWith::send_with) takes it as an argument. Below a
//!   `tower::buffer::Buffer`, which calls from a task of its own, there is no ambient context: put the context into the extensions.
//! - **At the send.** A CLIENT span begins, below the context's span. Its identity goes out as `traceparent`, and the time left, less the
//!   reply reserve, as `grpc-timeout` (to a Connect service as `connect-timeout-ms`); each in place of what the request had. So do the
//!   context's baggage, the values of keys that are declared for the wire, and the principal.
//! - **While it is under way.** When the context is done the call is dropped, which resets its stream (HTTP/2) or closes its connection
//!   (HTTP/1): that is how the other side learns. An answer that is ready at the very deadline wins. The body of the request ends with the
//!   call: see [`RequestBody`].
//! - **The end.** The span ends with the last frame of the answer's body, or when the body is dropped; a call whose future or body is dropped half-way says
//!   `Abandoned` as its cause. The body ends with an error when the
//!   context is done before.
//!
//! A call that its own caller has cancelled is no error on the span; it says why (`throughline.cancel.cause`).
//!
//! # Errors
//! A call that fails keeps what is known of the failure, which is the source of the error:
//!
//! | Failure | Code |
//! |---|---|
//! | The context is done | `DEADLINE_EXCEEDED` or `CANCELLED` |
//! | An [`Error`](crate::Error) of a service inside | that error |
//! | A timeout of the client, of a layer inside, or of the connection attempt | `DEADLINE_EXCEEDED` |
//! | A reset, a close or a cut-off body with no more than the reply reserve left | `DEADLINE_EXCEEDED` |
//! | An HTTP/2 stream that is reset | by its code, as gRPC maps it; `REFUSED_STREAM` is retryable |
//! | An HTTP/2 connection that ends | `UNAVAILABLE`, retryable when the request was not processed (GOAWAY) |
//! | A gRPC response that ends without a status | `UNKNOWN` |
//! | Any other | `UNAVAILABLE` |
//!
//! The error of a response begins in the service that the response names, else at the host that was called.
//!
//! # tonic
//! A tonic channel starts a timer of its own from the `grpc-timeout` that it is given to send, which is the callee's time and so shorter than the
//! caller's: it gives up as the callee does, and the answer that tells why mostly comes too late. The call has then exceeded its deadline. The
//! `tonic::Status` that a client returns for an error of the layer has that error's code; [`Error::from_grpc_status`](crate::Error) gives back
//! the error. A response that is not gRPC, such as the page of an ingress, reaches no client: it becomes a status with the code that
//! its HTTP status means. A status with an error has the metadata `throughline-origin`, the host that was called. Which host is called, for
//! the span and for [`internal_hosts`](ClientLayer::internal_hosts), the layer sees of a client that is made `with_origin`; the channel adds its own below.
//!
//! # Redirects and retries
//! Each is a request of its own: a span, a `traceparent`, the time that is left by then, and what its own host may know. Nothing that was
//! written for one host goes on to another. A redirect to another origin than the first one goes to an external host, unless
//! [`internal_hosts`](ClientLayer::internal_hosts) lists it.
//!
//! A client that follows redirects by itself sends the first request's headers again: a timeout that is stale, and the baggage, also to
//! another host. So give reqwest a `redirect::Policy::none()`, and the layer [`follow_redirects`](ClientLayer::follow_redirects): it
//! goes by RFC 9110 §15.4, leaves credentials behind where the origin changes, and returns the last answer when it has followed as many
//! as it may, or the body cannot be sent again. With hyper, and for retries, put the layer that sends again (`tower::retry`) outside of
//! this one.
//!
//! # How it differs
//! `tower-http`'s trace layer names no parent and sends no headers, and its span does not know of the deadline. A client's own timeout drops the call, and the other side works on: it was not told how long it has.
//!
//! [`Context::current`]: crate::Context::current

mod body;
mod call;
#[cfg(feature = "tonic")]
mod grpc;
mod inject;
mod layer;
#[cfg(feature = "reqwest")]
mod redirect;
mod request;
#[cfg(feature = "reqwest")]
mod reqwest;
mod service;
mod status;
mod trust;

pub use body::CallBody;
pub use layer::ClientLayer;
pub use request::RequestBody;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use reqwest::SendWith;
pub use service::{CallFuture, ClientService};
pub use status::error_for_status;
