//! The server's side: [`ContextLayer`] gives every request a context, and ends it.
//!
//! # When each thing happens
//! - **Birth.** When the request's headers have been read. The context stands below [`base`](ContextLayer::base), has the caller's
//!   deadline (the time left that it sent, at most [`max_timeout`](ContextLayer::max_timeout)), and is in a SERVER span that goes on with the
//!   caller's trace. The handler finds it as `Extension<Context>`, and everything polled for the request as [`Context::current`].
//! - **Dead on arrival.** When no time is left, or the base is done, the handler is not called: the answer is a 504 (or 503), and it is
//!   [counted](ContextLayer::shed).
//! - **Deadline.** When it passes before the handler has answered, the handler is dropped and the answer is a 504. When it passes while
//!   the body is sent, the body ends with an error, and so the stream or the connection. An answer that is ready at the very deadline wins.
//! - **End.** When the last frame of the body has been taken, first the span ends, then the context is cancelled with
//!   [`Cause::RequestFinished`]: nothing that was started with [`Context::spawn`] outlives its request; what should is spawned on
//!   [`Context::detach`]. A body that nobody sends (the answer to HEAD, 1xx, 204, 304) has ended when it is dropped, and so has one of a
//!   known length (its `Content-Length`, or what it says of itself) of which the last byte has been taken. After a 101, or a 2xx to
//!   CONNECT, the span ends, and the context goes on until its deadline, without `RequestFinished`.
//! - **A body that fails** half-way has ended, too: its span has the error, and an `error.type`, which is the code if it is an
//!   [`Error`](crate::Error), else `_OTHER`.
//! - **gRPC.** To a request whose `Content-Type` is gRPC's, every answer of the layer's own is a status among the headers instead. A status
//!   of a tonic method that was made from an [`Error`](crate::Error), also by a service below, leaves as that error does; other statuses, and
//!   those that come in trailers after a stream, pass as they are. An edge takes the details out of these, too, and puts what the code means
//!   in place of a message that comes from another service, as the details tell, or with `INTERNAL`, `UNKNOWN` or `DATA_LOSS`. The span has
//!   the status of headers or trailers, and the method's name; that is `grpc` and `_OTHER` if the method is answered with `UNIMPLEMENTED`,
//!   by one that does not speak gRPC, or by the layer without a handler. An answer that is no success and has no status of gRPC is noted as what it means to gRPC's clients.
//! - **Dropped before the end**, future or body: the context is cancelled with [`Cause::Panicked`] when a panic passes; with
//!   [`Cause::DeadlineExceeded`] when the deadline has passed, or of the time that the caller sent no more than its reply reserve is
//!   left; else with
//!   [`Cause::ClientDisconnected`], or [`Cause::Abandoned`] under [`inner`](ContextLayer::inner). With
//!   [`OnDisconnect::Detach`] the handler goes on instead, and only its deadline ends it.
//!
//! # Where to put it
//! Outside of everything that may drop a request (timeouts, load shedding), directly on the connection; if there is such a layer outside, say
//! [`inner`](ContextLayer::inner), since a drop is then no proof that the client has gone. With axum, `Router::layer` lets it see the
//! matched route; around the whole router, or in front of a service without routes, spans are named by the method alone.
//!
//! # What a server can't see
//! Over HTTP/1 a client that closes its half of the connection looks like one that has hung up. A request body that is not read to its end,
//! and pipelined requests, hide a client that hangs up until the answer is written.
//!
//! # How it differs
//! - `tower-http`'s timeout layer drops the handler after a fixed time, whatever the caller has left, tells nobody below it, and stops at the
//!   answer's head: a body may take for ever. Here the caller's time counts, it goes on to the calls below, and it ends the body too.
//! - Its trace layer reports the head and the end of the body to callbacks. It reads no `traceparent`, cancels nothing, and does not tell a
//!   client that hung up from an answer that was complete. Here both are on the span, with the cause.
//!
//! [`Cause::RequestFinished`]: crate::Cause::RequestFinished
//! [`Cause::Panicked`]: crate::Cause::Panicked
//! [`Cause::DeadlineExceeded`]: crate::Cause::DeadlineExceeded
//! [`Cause::ClientDisconnected`]: crate::Cause::ClientDisconnected
//! [`Cause::Abandoned`]: crate::Cause::Abandoned
//! [`Context::current`]: crate::Context::current
//! [`Context::spawn`]: crate::Context::spawn
//! [`Context::detach`]: crate::Context::detach

mod body;
mod counts;
mod exchange;
mod future;
mod layer;
mod service;

pub use body::ResponseBody;
pub use future::ResponseFuture;
pub use layer::{ContextLayer, OnDisconnect, Trust};
pub use service::ContextService;
