//! One [`Context`] per request: deadline, cancellation, errors, typed values and spans.
//!
//! The context follows the request through async calls, HTTP, gRPC and messages.
//!
//! | | |
//! |---|---|
//! | [`Context`] | what a request carries; [`Group`] runs work in parallel, [`Key`] names a value |
//! | [`ContextLayer`] | gives each request of a server a context: [`middleware::server`] |
//! | [`ClientLayer`] | sends the context with every call: [`middleware::client`] |
//! | [`RetryPolicy`] | sends failed calls again: [`middleware::client::retry`] |
//! | [`SendWith`] | sends a reqwest request with a context |
//! | [`ReplyReserve`] | the part of a timeout that is kept for the response's way back |
//! | [`TimeoutHeader`] | a header that a caller's timeout is read from |
//! | [`Shutdown`] | ends the process without cutting off requests or losing spans |
//! | [`Error`], [`Code`] | one set of errors, in the process and on the wire |
//! | [`telemetry`] | exports spans: call [`telemetry::init`] in `main` |
//! | [`trace`], [`propagation`] | spans and their parts; headers that carry a context |
//!
//! The samples of the README are compiled and run with the tests.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
pub mod middleware;
mod shutdown;
pub mod telemetry;
mod url;

pub use error::{Code, Error, ParseCodeError};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use middleware::Ctx;
pub use middleware::client::ClientLayer;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use middleware::client::SendWith;
pub use middleware::client::retry::{Idempotent, RetryLayer, RetryPolicy};
pub use middleware::server::{ContextLayer, OnDisconnect, Route, StreamCtx, Trust};
pub use shutdown::{Drained, Shutdown, ShutdownReport};
pub use throughline_core::propagation::deadline::{ReplyReserve, TimeoutHeader};
pub use throughline_core::{
    AfterFunc, Baggage, CancelHandle, Cause, Codec, Context, ContextError, Done, DoneOwned, Extractor, FutureExt,
    Group, GroupError, GroupHandle, Injector, Key, Principal, Propagator, Run, SharedError, Span, SpanContext, SpanId,
    SpanRecord, TraceFlags, TraceId, TraceState, WithContext, error_message, propagation, trace, try_join,
};

/// The log target for errors that end a request.
const ERROR_LOG_TARGET: &str = "throughline::error";

#[cfg(all(doctest, feature = "axum", feature = "fmt", feature = "otlp", feature = "reqwest", feature = "signal"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(doctest, feature = "tonic"))]
#[doc = include_str!("../docs/guide/tonic.md")]
struct GuideTonic;

#[cfg(all(doctest, feature = "axum", feature = "otlp", feature = "signal"))]
#[doc = include_str!("../docs/guide/shutdown.md")]
struct GuideShutdown;

#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../docs/guide/deadlines.md")]
struct GuideDeadlines;

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/errors.md")]
struct GuideErrors;

#[cfg(doctest)]
#[doc = include_str!("../docs/attributes.md")]
struct Attributes;

#[cfg(all(doctest, feature = "axum", feature = "fmt", feature = "otlp"))]
#[doc = include_str!("../docs/guide/from-tracing-opentelemetry.md")]
struct GuideFromTracingOpentelemetry;

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/from-go.md")]
struct GuideFromGo;

#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../docs/guide/middleware.md")]
struct GuideMiddleware;

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/retries.md")]
struct GuideRetries;
