//! One [`Context`] for every request (deadline, Done signal, errors, typed values), across async calls, HTTP and messages, and the spans
//! it leaves.
//!
//! | | |
//! |---|---|
//! | [`Context`] | what a request carries; [`Group`] for work in parallel, [`Key`] for values |
//! | [`ContextLayer`] | gives every request of a server its context, and ends it: [`middleware::server`] says when |
//! | [`ClientLayer`] | sends the context with every call: [`middleware::client`] |
//! | [`SendWith`] | sends a reqwest request with a context |
//! | [`ReplyReserve`] | the part of a timeout that is kept for the response's way back |
//! | [`TimeoutHeader`] | a header that a caller's timeout is read from |
//! | [`Error`], [`Code`] | one taxonomy of errors, in the process and on the wire |
//! | [`telemetry`] | where spans go: [`telemetry::init`] is the one line in `main` |
//! | [`trace`], [`propagation`] | what spans are made of, and the bytes of headers |
//!
//! The README's sample is built and run with the tests.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
pub mod middleware;
pub mod telemetry;
mod url;

pub use error::{Code, Error, ParseCodeError};
pub use middleware::client::ClientLayer;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use middleware::client::SendWith;
pub use middleware::server::{ContextLayer, OnDisconnect, Trust};
pub use throughline_core::propagation::deadline::{ReplyReserve, TimeoutHeader};
pub use throughline_core::{
    Baggage, CancelHandle, Cause, Codec, Context, ContextError, Extractor, FutureExt, Group, Injector, Key, Principal,
    Propagator, Span, SpanContext, SpanId, SpanRecord, TraceFlags, TraceId, TraceState, propagation, trace, try_join,
};

/// The target of the log lines about errors that end requests.
const ERROR_LOG_TARGET: &str = "throughline::error";

#[cfg(all(doctest, feature = "axum", feature = "reqwest", feature = "otlp"))]
#[doc = include_str!("../README.md")]
struct Readme;
