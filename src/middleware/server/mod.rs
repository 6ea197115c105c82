//! The server side: [`ContextLayer`] gives every request a context, and ends it.
//!
//! # Terms
//! - **Caller:** the client that sent the request. [`Trust`] says whether it is an internal service
//!   or an untrusted client.
//! - **Edge:** a layer for requests of untrusted clients.
//! - **Base:** the parent context of all requests of a layer: [`base`](ContextLayer::base).
//! - **Handler:** the service inside the layer.
//! - **Outer layer:** a layer around this one. **Inner layer:** a layer between this one and the
//!   handler.
//! - **Reply reserve:** the part of its timeout that a caller keeps for the transfer of the
//!   response: [`reserve`](ContextLayer::reserve).
//!
//! # When each thing happens
//!
//! ## A request starts
//! It starts when its headers have been read.
//! - The context is a child of the [`base`](ContextLayer::base).
//! - Its deadline comes from the timeout that the caller sent, and from the limit of the layer:
//!   see [Limits](#limits).
//! - Its SERVER span continues the caller's trace. At an edge it starts a new one.
//! - The handler finds the context as an extension of the request. With axum, the extractor
//!   [`Ctx`](crate::Ctx) returns it. All code that is polled for the request finds it as
//!   [`Context::current`].
//!
//! The layer *sheds* a request, that is, it does not call the handler, in three cases: no time is
//! left, less than the [route needs](Route::min_remaining), or the base is done. The response is a
//! 504 or a 503, and the layer [counts](ContextLayer::shed_count) the request.
//!
//! ## A client is authenticated
//! An edge calls its [`authenticator`](ContextLayer::authenticator), or its
//! [`async_authenticator`](ContextLayer::async_authenticator), after the check of the deadline and
//! before the handler. Requests of internal services are not authenticated: they have a principal.
//!
//! | The authenticator | Then |
//! |---|---|
//! | returns a principal and values | the handler has them in its context |
//! | returns an error | the layer responds with it |
//! | panics | the layer responds with a 500 |
//! | waits until the deadline | it is dropped, and the response is a 504 |
//! | waits while the client disconnects | it is dropped, after the context is done |
//!
//! ## The deadline passes
//!
//! | When | Then |
//! |---|---|
//! | before the handler has responded | the handler is dropped, and the response is a 504 |
//! | while a gRPC stream is sent | the stream ends with the status in trailers |
//! | while any other body is sent | an error ends the body, and so the stream or connection |
//! | at the moment when the response is ready | the response is sent |
//!
//! It is the same when a body has no frame for as long as the limit of the layer.
//!
//! ## The base is done (shutdown)
//! Whatever the cause, the response is a retryable 503, or `UNAVAILABLE` for gRPC. It is the same
//! if the handler then responds with an [`Error`](crate::Error) that is `CANCELLED` or
//! `DEADLINE_EXCEEDED`.
//!
//! ## The handler responds with an error
//!
//! | Response body | What the layer does |
//! |---|---|
//! | of [`Error::to_response`](crate::Error::to_response), byte for byte | rewrites it |
//! | a problem document of an internal service, at an edge | redacts it |
//! | any other | passes it on unchanged |
//!
//! - *Rewrite:* the layer adds the service to the error's path. A code of another service becomes
//!   `INTERNAL`: see [`Error::through_service`](crate::Error::through_service). An edge redacts the
//!   error. Headers that the handler added stay, and so does a status that differs from the code's.
//! - *Redact:* the layer reads at most 64 KiB of the document. It replaces a document that it
//!   cannot read by the meaning of the status.
//! - Inner layers see the response before these changes. They may see another status than the
//!   client.
//!
//! ## Sources of errors
//! They never leave the process.
//! - The span has an `exception` event with the error and its sources.
//! - `tracing` has one log line with the target `throughline::error`. Its level is ERROR for a 5xx
//!   response, else DEBUG.
//! - An error without a source that only says that the context is done has neither.
//!
//! ## Hooks are called
//! - [`on_start`](ContextLayer::on_start): when the span has started.
//! - [`on_response`](ContextLayer::on_response): before the head of a response is passed on.
//! - [`on_end`](ContextLayer::on_end): before the span ends, once for each request.
//!
//! ## A request ends
//! It ends when the last frame of its body has been taken.
//! 1. The span ends.
//! 2. The context is cancelled with [`Cause::RequestFinished`]. Tasks of [`Context::spawn`] do not
//!    outlive their request. Spawn work that must outlive it on [`Context::detach`].
//!
//! Some responses end in another way:
//!
//! | Response | The request ends |
//! |---|---|
//! | without a body on the wire: to HEAD, 1xx, 204, 304 | when its body is dropped |
//! | of known length (`Content-Length` or size hint) | when dropped after the last byte was taken |
//! | whose body fails half-way | with the failure |
//! | 101, or 2xx to CONNECT | for its span: at the head of the response |
//!
//! - After a failure of the body the span has the error, and an `error.type`: the code if the error
//!   is an [`Error`](crate::Error), else `_OTHER`.
//! - After a 101, or a 2xx to CONNECT, the context lives until its deadline, without
//!   `RequestFinished`. [`StreamCtx::session`] gives the connection's task a context and a span.
//!
//! ## The handler panics
//! A panic of the handler or its body ends a gRPC response with the status `INTERNAL`. For other
//! requests the panic passes through to the outer layers and the server.
//!
//! ## A request is dropped before its end
//! This holds for the response future and for the body. A context that is already done keeps its
//! cause. Otherwise it is cancelled with the first cause that applies:
//!
//! | Cause | When |
//! |---|---|
//! | [`Cause::Panicked`] | a panic unwinds the thread |
//! | [`Cause::DeadlineExceeded`] | the deadline has passed, or nearly: see below |
//! | [`Cause::Abandoned`] | an outer layer may have dropped it: see below |
//! | [`Cause::ClientDisconnected`] | in all other cases |
//!
//! - *Nearly:* no more than the reply reserve is left of the timeout that the caller sent.
//! - *An outer layer:* [`outer_layers_may_drop`](ContextLayer::outer_layers_may_drop) is set, or
//!   this layer is inside another `ContextLayer`.
//!
//! With [`OnDisconnect::Detach`] the handler continues instead, and only its deadline ends it.
//!
//! # Limits
//! Whose limit it is decides what it covers:
//!
//! | Limit | Covers |
//! |---|---|
//! | the timeout that the caller sent | the whole exchange, with the response's body |
//! | [`max_timeout`](ContextLayer::max_timeout), 60 s at an edge | the head; then each frame |
//! | [`default_timeout`](ContextLayer::default_timeout), if the caller sent none | the same |
//!
//! So server-sent events, downloads and gRPC streams live as long as they make progress.
//! - *The head* of a unary gRPC method comes with its response. It is the same for a method that
//!   takes a stream and responds once.
//! - *Each frame:* the time in which the body waits for the handler's next frame. Time in which the
//!   client takes no frame does not count.
//!
//! The handler's context has the earliest of these deadlines, and so do calls made with it. Code
//! that outlives the head uses [`StreamCtx`], which has only the caller's deadline. While the body
//! is polled, [`Context::current`] is that context, too.
//!
//! # Options for a route
//! [`ContextLayer::route`] sets them by the name of the route or by the path:
//!
//! | [`Route`] option | For | Default |
//! |---|---|---|
//! | [`timeout`](Route::timeout) | a route that is slower or faster than others | `max_timeout` |
//! | [`no_timeout`](Route::no_timeout) | long work until the head, streams of requests | `max_timeout` |
//! | [`stall_timeout`](Route::stall_timeout) | streams with a heartbeat | the limit for the head |
//! | [`min_remaining`](Route::min_remaining) | work that is useless if it cannot end | none |
//! | [`on_disconnect`](Route::on_disconnect) | work that must not stop half-way | as the layer |
//! | [`unrecorded`](Route::unrecorded) | health checks | recorded |
//!
//! None of them lengthens the timeout that a caller has sent. A layer without routes pays nothing
//! for them.
//!
//! | Options of the layer for all routes | Default |
//! |---|---|
//! | [`max_shed_percent`](ContextLayer::max_shed_percent): a bound for what is shed in 10 s | none |
//! | [`shed_dry_run`](ContextLayer::shed_dry_run): only count what would be shed | off |
//! | [`route_fn`](ContextLayer::route_fn): the name of the route, without axum | axum's route |
//!
//! # gRPC
//! A request *has gRPC's form* if it is a POST over HTTP/2 with gRPC's `Content-Type`. It *is* gRPC
//! if its response has that content type, too. The layer's own response to a request of this form
//! is a status in the headers.
//!
//! The span has the status from headers or trailers, and the method's name. The name is `grpc`, and
//! `rpc.method` is `_OTHER`, in two cases:
//! - The handler responds with `UNIMPLEMENTED`.
//! - The layer itself responds, and no handler has responded to this method before.
//!
//! If a request to such a method is dropped before its response, its span is one of plain HTTP.
//!
//! Errors:
//!
//! | Status | What the layer does |
//! |---|---|
//! | of a tonic method, made from an `Error`, also by a callee | what it does with that error |
//! | in trailers after a stream | passes it on unchanged |
//! | any other | passes it on unchanged |
//!
//! An edge removes the details of all of these, except
//! [public ones](crate::Error::with_public_detail). It replaces the message by the meaning of the
//! code if the error comes from another service, or is `INTERNAL`, `UNKNOWN` or `DATA_LOSS`.
//!
//! # Where to put the layer
//! Put it directly on the connection, outside of all layers that may drop a request, such as
//! timeouts and load shedding. If such a layer is outside, set
//! [`outer_layers_may_drop`](ContextLayer::outer_layers_may_drop): a drop then does not prove that
//! the client has gone. [`ResponseBody`] implements `Default`, so that outer layers can make
//! responses of their own.
//!
//! With axum, `Router::layer` lets the layer see the matched route. If the layer is around the
//! whole router, as the fallback of another router, it also sees requests without a route. Spans
//! are then named by the method alone:
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
//! ## One layer inside another
//! A layer on a nested router continues the request of the outer `ContextLayer`: its span, its
//! trace and its principal.
//! - The smaller deadline holds, and the smaller limit for the head. A base that is done, of either
//!   layer, ends the request.
//! - The inner layer adds the matched route to the span. It adds the values of the
//!   [`keys`](ContextLayer::keys) that it reads, unless one of the two layers is an edge.
//! - The outer layer reports errors to the caller, and its
//!   [`on_disconnect`](ContextLayer::on_disconnect) holds.
//!
//! # What a server cannot see
//! A client that disconnects cancels its request as soon as the server sees it. Over HTTP/2 the
//! server sees it always. Over HTTP/1 some requests hide it, and the work then ends at its
//! deadline:
//!
//! | Request, over HTTP/1 | A disconnect is |
//! |---|---|
//! | without a body, or with one that was read to its end | seen |
//! | whose short body arrived at once, read or not | seen |
//! | whose response is a stream | seen |
//! | with a body that is not read to its end | hidden |
//! | whose body is cut off while the handler reads it | an error of the body only |
//! | followed by a pipelined request | hidden |
//!
//! So read the body, stop when it fails, and give requests a deadline
//! ([`max_timeout`](ContextLayer::max_timeout), where callers send none).
//!
//! - A client that closes its half of an HTTP/1 connection (`shutdown` of its writing side) looks
//!   like one that has disconnected: it gets no response. hyper's option `half_close` of an HTTP/1
//!   server keeps the response. It then hides every disconnect, so that only the deadline ends the
//!   work. The two cannot be had together.
//! - A timer outside of this layer drops a request like a disconnect does. Such a timer is
//!   `tower-http`'s `TimeoutLayer`, or the `timeout` of a tonic server. Set
//!   [`outer_layers_may_drop`](ContextLayer::outer_layers_may_drop), or use
//!   [`max_timeout`](ContextLayer::max_timeout) in its place.
//! - A client that stays connected and does not read stops the response body: over HTTP/2 by flow
//!   control, over HTTP/1 by TCP. The body is not polled then, so the layer's limit for a frame
//!   does not run. The context is done at the deadline that the caller sent, if any. The stream and
//!   the span end when the client reads again or disconnects. Limit such clients in the server: by
//!   HTTP/2 keep-alive, and by a timeout for writes to the connection.
//!
//! # Differences from tower-http
//!
//! | | `tower-http` | `ContextLayer` |
//! |---|---|---|
//! | Timeout | a fixed time | the time that the caller has left |
//! | | drops the handler; calls below do not know of it | the handler's calls have the deadline |
//! | | ends at the response's head: bodies take any time | limits each frame of the body, too |
//! | Trace | reports head and end of body to callbacks | the span has both |
//! | | reads no `traceparent`, cancels nothing | continues the trace, cancels the context |
//! | | a disconnect looks like a complete response | the span has the cause |
//!
//! [`Cause::RequestFinished`]: crate::Cause::RequestFinished
//! [`Cause::Panicked`]: crate::Cause::Panicked
//! [`Cause::DeadlineExceeded`]: crate::Cause::DeadlineExceeded
//! [`Cause::ClientDisconnected`]: crate::Cause::ClientDisconnected
//! [`Cause::Abandoned`]: crate::Cause::Abandoned
//! [`Context::current`]: crate::Context::current
//! [`Context::spawn`]: crate::Context::spawn
//! [`Context::detach`]: crate::Context::detach

// The files in the order of a request:
// 1. `layer`: the configuration, with `route`, `shed`, `counts` and `methods`. `authenticated` is
//    what an authenticator returns, and `authenticating` the layer for one that waits.
// 2. `service`: a request arrives.
// 3. `exchange`: its life. It begins with `extract` (the context) and `span`. Its parts are
//    `exchange/admission` (whether the handler is called), `exchange/error` (the error for the
//    caller) and `exchange/record` (what the span gets).
// 4. `future`: the response's head, with `unwind` (panics), `detached` (a handler that continues
//    after a disconnect) and `document` (a body that reports an error).
// 5. `body`: the response's body, with `stall` (a limit for each frame).
// 6. `stream`: the context of the whole exchange.
mod authenticated;
mod authenticating;
mod body;
mod counts;
mod detached;
mod document;
mod exchange;
mod extract;
mod future;
mod layer;
mod methods;
mod observed;
mod peer;
mod route;
mod service;
mod shed;
mod span;
mod stall;
mod stream;
mod unwind;

pub use authenticated::Authenticated;
pub use authenticating::{AuthenticatedBody, AuthenticatingFuture, AuthenticatingLayer, AuthenticatingService};
pub use body::ResponseBody;
pub(super) use extract::Served;
pub use future::ResponseFuture;
pub use layer::{ContextLayer, Trust};
pub use peer::ProxyHeader;
pub use route::{OnDisconnect, Route};
pub use service::ContextService;
pub use stream::StreamCtx;
