//! Hooks: code of the user at the start of a request or call, at the response, and at the end.
//!
//! - A hook runs on the task of its request. It must not block.
//! - A hook that panics does not fail the request. What it has done to the span stays.
//! - A layer without a hook pays nothing for it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{StatusCode, response};
use throughline_core::trace::{SpanKind, SpanRef};
use throughline_core::{Cause, Span};
use tokio::time::Instant;

use super::semconv;
use crate::error::Code;

pub(super) type OnResponse = Arc<dyn Fn(&HookSpan<'_>, &response::Parts) + Send + Sync>;
pub(super) type OnEnd = Arc<dyn Fn(&HookSpan<'_>, &Finished<'_>) + Send + Sync>;

/// The span of a request or of a call, for a hook.
///
/// It is a [`SpanRef`]: a hook sets and removes attributes, adds events, and renames the span. If
/// the span is not recorded, this has no effect.
pub struct HookSpan<'a> {
    span: SpanRef<'a>,
    method: &'static str,
    route_key: &'static str,
    report: &'a Report,
}

impl HookSpan<'_> {
    /// Returns the HTTP method: `_OTHER` for an unknown one.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// Returns the route of the request, or the template of the call, as [`Finished::route`] does.
    pub fn route(&self) -> Option<Arc<str>> {
        let mut route = None;
        self.report.set(|facts| route = facts.route.clone());
        route
    }

    /// Names the span after a route: `GET /cards/{id}`.
    ///
    /// For servers without axum whose handler finds the route. If it is known before,
    /// [`route_fn`](crate::ContextLayer::route_fn) names it.
    ///
    /// The span of a request gets it as `http.route`, that of a call as `url.template`, and
    /// [`Finished::route`] returns it. It must be a template: a path with ids makes a new name for
    /// each request.
    pub fn set_route(&self, route: &str) {
        self.span.set_name(semconv::span_name(self.method, Some(route)));
        self.span.set_attribute(self.route_key, route.to_owned());
        self.report.set(|facts| facts.route = Some(route.into()));
    }
}

impl<'a> Deref for HookSpan<'a> {
    type Target = SpanRef<'a>;

    fn deref(&self) -> &SpanRef<'a> {
        &self.span
    }
}

impl fmt::Debug for HookSpan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookSpan").field("span", &self.span).finish_non_exhaustive()
    }
}

/// A request or call that has ended.
///
/// Both layers report each one once, also if its span is not recorded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finished<'a> {
    /// `Server` for a request, `Client` for a call.
    pub kind: SpanKind,
    /// The HTTP method: `_OTHER` for an unknown one.
    pub method: &'static str,
    /// The route of a request, or the template of a call. Its values are few.
    pub route: Option<&'a str>,
    /// The same after the hooks for the start, before a later hook has set another one.
    ///
    /// For a gauge that a hook for the start raises, and one for the end lowers.
    pub started_route: Option<&'a str>,
    /// The full name of the gRPC method: `_OTHER` if the server does not know it.
    ///
    /// `None`: not gRPC.
    pub rpc_method: Option<&'a str>,
    /// The service that is called: [`ClientLayer::peer`](crate::ClientLayer::peer).
    pub peer: Option<&'a str>,
    /// The HTTP status. `None`: there was no response.
    pub status: Option<StatusCode>,
    /// The name of the gRPC status: `OK`, `UNAVAILABLE`. `None`: not gRPC, or there was none.
    pub rpc_status: Option<&'static str>,
    /// The `error.type` of the span. `None`: the request has not failed.
    pub error_type: Option<&'a str>,
    /// The code of the [`Error`](crate::Error) that a request ended with.
    ///
    /// Errors of the caller, with a status below 500, have one, too.
    /// A deadline that ends it is `DEADLINE_EXCEEDED`, a panic `INTERNAL`. `None`: there was no
    /// error, or it was not an `Error`. It is always `None` for a call.
    pub code: Option<Code>,
    /// Whether the handler of a request was not called: no time was left, or the base was done.
    pub is_shed: bool,
    /// Why the request was cancelled before its end. `None`: it was not.
    pub cause: Option<&'a Cause>,
    /// The time until the end of the response's body.
    ///
    /// It begins with the arrival of a request, or with the send of a call.
    pub duration: Duration,
}

/// What is known about a request or call before its end.
///
/// `None` if no hook needs it.
#[derive(Default)]
pub(super) struct Report(Option<Box<Mutex<Facts>>>);

#[derive(Clone)]
pub(super) struct Facts {
    started: Instant,
    pub(super) route: Option<Arc<str>>,
    started_route: Option<Arc<str>>,
    pub(super) status: Option<StatusCode>,
    pub(super) rpc_method: Option<String>,
    pub(super) rpc_status: Option<&'static str>,
    pub(super) error_type: Option<Cow<'static, str>>,
    pub(super) code: Option<Code>,
    pub(super) is_shed: bool,
}

impl Report {
    /// `is_needed`: there is a hook that may read it.
    pub(super) fn start(is_needed: bool, route: Option<&str>) -> Report {
        let facts = || Facts {
            started: Instant::now(),
            route: route.map(Into::into),
            started_route: None,
            status: None,
            rpc_method: None,
            rpc_status: None,
            error_type: None,
            code: None,
            is_shed: false,
        };
        Report(is_needed.then(facts).map(Mutex::new).map(Box::new))
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Facts)) {
        if let Some(facts) = &self.0 {
            change(&mut facts.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The hooks for the start have run.
    pub(super) fn started(&self) {
        self.set(|facts| facts.started_route = facts.route.clone());
    }

    pub(super) fn set_rpc_status(&self, code: Option<Code>) {
        self.set(|facts| facts.rpc_status = Some(code.map_or("OK", Code::as_str)));
    }
}

/// What a layer knows about the span of a request or call.
pub(super) struct Hooked<'a> {
    pub(super) span: &'a Span,
    pub(super) kind: SpanKind,
    pub(super) method: &'static str,
    pub(super) report: &'a Report,
}

impl Hooked<'_> {
    /// Calls a hook with the span.
    pub(super) fn call(&self, hook: impl FnOnce(&HookSpan<'_>)) {
        let route_key = if self.kind == SpanKind::Server { "http.route" } else { "url.template" };
        let span = HookSpan { span: self.span.current_span(), method: self.method, route_key, report: self.report };
        // The message of a panic is the panic hook's to print.
        let _ = catch_unwind(AssertUnwindSafe(|| self.span.enter(|| hook(&span))));
    }

    /// Reports the end, once, to all hooks for it.
    pub(super) fn finish(&self, hooks: &[OnEnd], peer: Option<&str>, cause: Option<&Cause>) {
        let mut known = None;
        // Copied, so that the hook is not called under the lock, and may set the route.
        self.report.set(|facts| known = Some(facts.clone()));
        let Some(facts) = known else { return };
        let Facts { started, route, started_route, status, rpc_method, rpc_status, error_type, code, is_shed } = facts;
        let finished = Finished {
            kind: self.kind,
            method: self.method,
            route: route.as_deref(),
            started_route: started_route.as_deref(),
            rpc_method: rpc_method.as_deref(),
            peer,
            status,
            rpc_status,
            error_type: error_type.as_deref(),
            code,
            is_shed,
            cause,
            duration: started.elapsed(),
        };
        for hook in hooks {
            self.call(|span| hook(span, &finished));
        }
    }
}
