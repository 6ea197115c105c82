//! The server's side: [`ContextLayer`] gives every request a context, and ends it.
//!
//! # When each thing happens
//! - **Birth.** When the request's headers have been read. The context stands below [`base`](ContextLayer::base), has the caller's
//!   deadline (the time left that it sent, at most [`max_timeout`](ContextLayer::max_timeout)), and is in a SERVER span that goes on with the
//!   caller's trace. The handler finds it as `Extension<Context>`, and everything polled for the request as [`Context::current`].
//! - **Dead on arrival.** When no time is left, or the base is done, the handler is not called: the answer is a 504 (or 503), and it is
//!   [counted](ContextLayer::shed_count).
//! - **Deadline.** When it passes before the handler has responded, the handler is dropped and the response is a 504. When it passes
//!   while the body is sent, a gRPC stream ends with the status in trailers, and any other body ends with an error, which ends the stream
//!   or the connection. A response that is ready at the very deadline wins.
//! - **Shutdown.** When the base is done, whatever its cause, the response is a retryable 503, or `UNAVAILABLE` by gRPC.
//!   That is so, too, where the handler responds with an [`Error`](crate::Error) that is `CANCELLED` or `DEADLINE_EXCEEDED` then.
//! - **Errors.** A body that [`Error::to_response`](crate::Error::to_response) has made, byte for byte, is written anew: the service is
//!   added to the error's path, a code of another service becomes `INTERNAL`, and an edge redacts it. What the handler has added stays:
//!   headers, and a status that is not the code's. Any other body is the handler's own and passes unchanged. One exception: an edge
//!   redacts problem documents of inner services that the handler passes on. It reads 64 KiB of them at most, and replaces those that it
//!   cannot read by what the status means. Layers between this one and the handler see the response before all this, and so may see
//!   another status than the client.
//! - **Sources of errors** never leave the process. The span has an `exception` event with the error and its sources, and there is one log
//!   line by `tracing` with the target `throughline::error`: at the level ERROR for a response of 5xx, else DEBUG. Errors without a source
//!   that only say that the context is done have neither.
//! - **End.** When the last frame of the body has been taken, first the span ends, then the context is cancelled with
//!   [`Cause::RequestFinished`]: nothing that was started with [`Context::spawn`] outlives its request; what should is spawned on
//!   [`Context::detach`]. A body that nobody sends (the answer to HEAD, 1xx, 204, 304) has ended when it is dropped, and so has one of a
//!   known length (its `Content-Length`, or what it says of itself) of which the last byte has been taken. After a 101, or a 2xx to
//!   CONNECT, the span ends, and the context goes on until its deadline, without `RequestFinished`.
//! - **A body that fails** half-way has ended, too: its span has the error, and an `error.type`, which is the code if it is an
//!   [`Error`](crate::Error), else `_OTHER`.
//! - **gRPC.** A request is gRPC if it is a POST over HTTP/2 with gRPC's `Content-Type` and its response has that content type, too. A
//!   response that the layer makes itself to a request in this form is a status in the headers. The span has the status of headers or
//!   trailers, and the method's name. That name is `grpc`, and `rpc.method` is `_OTHER`, if the handler responds with `UNIMPLEMENTED`, or
//!   if the layer responds itself and no handler has responded to the method before. A request to such a method that is dropped before
//!   its response is shown as one by HTTP.
//! - **Errors of gRPC.** A status of a tonic method that was made from an [`Error`](crate::Error), also by a service below, leaves as that
//!   error does. Other statuses, and those in trailers after a stream, pass unchanged. An edge removes the details from these, too. It
//!   replaces the message by the meaning of the code if the error comes from another service, or is `INTERNAL`, `UNKNOWN` or `DATA_LOSS`.
//! - **A panic** of a handler, or of its body, ends a gRPC response with the status `INTERNAL`. Below other requests it passes, to the
//!   layers outside and the server.
//! - **Dropped before the end**, future or body: the context is cancelled with [`Cause::Panicked`] when a panic passes; with
//!   [`Cause::DeadlineExceeded`] when the deadline has passed, or of the time that the caller sent no more than its reply reserve is
//!   left; else with
//!   [`Cause::ClientDisconnected`], or [`Cause::Abandoned`] under [`outer_layers_may_drop`](ContextLayer::outer_layers_may_drop). With
//!   [`OnDisconnect::Detach`] the handler goes on instead, and only its deadline ends it.
//!
//! # Where to put it
//! Outside of everything that may drop a request (timeouts, load shedding), directly on the connection. If there is such a layer outside,
//! say [`outer_layers_may_drop`](ContextLayer::outer_layers_may_drop), because a drop is then no proof that the client has gone. [`ResponseBody`] has a default, so that
//! layers outside can respond by themselves.
//!
//! With axum, `Router::layer` shows the matched route to the layer. Around the whole router, as the fallback of another one, it sees
//! requests without a route, too, and spans are named by the method alone:
//! ```
//! use axum::{Router, routing::get};
//! use throughline::ContextLayer;
//! use tower::Layer;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let app = Router::new().route("/", get(|| async { "seven" }));
//! let app = Router::new().fallback_service(ContextLayer::internal().layer(app));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let server = axum::serve(listener, app);
//! # drop(server);
//! # Ok::<(), std::io::Error>(()) })?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A layer inside another one, as on a nested router, continues the request of the outer one: its span, its trace and its principal. The
//! smaller deadline holds, and a base that is done ends the request. The inner layer adds the matched route to the span, and the
//! [`keys`](ContextLayer::keys) that it reads, unless one of the two is an edge. The outer layer reports errors to the caller, and its
//! [`on_disconnect`](ContextLayer::on_disconnect) holds.
//!
//! # What a server can't see
//! Over HTTP/1 a client that closes its half of the connection looks like one that has hung up. A request body that is not read to its end,
//! and pipelined requests, hide a client that hangs up until the answer is written.
//!
//! Over HTTP/2 a client that does not read stops the body of its response by flow control. The context is done at the deadline all the
//! same. The stream and the span end when the client reads again or goes.
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
mod detached;
mod document;
mod exchange;
mod future;
mod inbound;
mod layer;
mod methods;
mod service;
mod span;
mod unwind;

pub use body::ResponseBody;
pub use future::ResponseFuture;
pub(super) use inbound::Served;
pub use layer::{ContextLayer, OnDisconnect, Trust};
pub use service::ContextService;
