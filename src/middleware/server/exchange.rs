//! The life of one request: its context and its span.
//!
//! - *Live:* the request has not ended.
//! - *Interrupted:* the request was cancelled before its end.
//! - *Outer:* the context of a `ContextLayer` around this one.
//! - *gRPC's form:* the request says that it is gRPC. Its response decides whether it is.

mod admission;
mod error;
mod record;

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Extensions, Method, Response, StatusCode};
use throughline_core::propagation::Counted;
use throughline_core::trace::{SpanKind, Status, Value};
use throughline_core::{CancelHandle, Cause, Context, ContextError, RunningWork, Span, Work};
use tokio::time::Instant;

use super::extract::{Inbound, Served, remove_untrusted_headers};
use super::layer::{Config, Trust};
use super::observed::trace_response;
use super::route::OnDisconnect;
use super::shed::Shortage;
use super::span::{Responder, Rpc, SpanStart, name_by_route, start_span};
use crate::error::{Code, Error};
use crate::middleware::hooks::{Hooked, Report};
use crate::middleware::{failure, semconv};

pub(super) struct Exchange {
    /// `None` once it has ended.
    live: Option<Live>,
    config: Arc<Config>,
    trust: Trust,
    method: Method,
    /// Of a request in gRPC's form, until its response shows that it is not gRPC.
    rpc: Option<Rpc>,
    /// Until the head of the response: the handler's context. Then: that of the whole exchange.
    ctx: Context,
    /// The context of the whole exchange, while `ctx` also ends at the layer's limit.
    whole: Option<Context>,
    /// The limit for each frame of the body.
    stall: Option<Duration>,
    on_disconnect: OnDisconnect,
    /// The handler has made no progress for as long as the limit.
    is_stalled: bool,
    is_internal: bool,
    /// The error that replaces the handler's response: too little time, or the authenticator's.
    refusal: Option<Error>,
    /// As in [`Inbound`].
    reserve_starts_at: Option<Instant>,
    /// The context of an outer `ContextLayer`, which has the span and reports to the caller.
    outer: Option<Context>,
    is_interrupted: bool,
    /// Of a request with a span.
    report: Report,
    /// The last field: a shutdown waits until the span has ended.
    _counted: Option<RunningWork>,
}

struct Live {
    /// `None` inside another `ContextLayer`, which has the span.
    span: Option<Span>,
    /// Its context is the parent of the span's.
    handle: CancelHandle,
}

/// The message of a response whose body has stalled.
const STALLED: &str = "the response has stalled";
/// The message for a caller that has too little time.
const TOO_SHORT: &str = "less time is left than the route needs";

impl Exchange {
    pub(super) fn begin(config: &Arc<Config>, head: &mut Parts) -> Exchange {
        let trust = config.trust.of(head);
        let name = config.routes.name(head);
        let route = config.routes.options(name.as_deref(), head);
        let rpc = Rpc::of(config, head, name.as_deref());
        let carrier = Counted::new(&head.headers);
        let Inbound { handle, ctx, limit, shortage, outer_limit, outer, is_internal, reserve_starts_at } =
            Inbound::extract(config, trust, &route, &head.extensions, &carrier);
        let span = outer.is_none().then(|| {
            let is_unrecorded = route.is_unrecorded;
            let (head, route, rpc, ctx) = (&*head, name.as_deref(), rpc.as_ref(), &ctx);
            start_span(config, SpanStart { trust, head, route, is_unrecorded, rpc, ctx, limit }, &carrier)
        });
        config.counts.add_dropped(carrier.dropped());
        if span.is_none() && rpc.is_none() {
            name_by_route(&ctx, head, name.as_deref());
        }
        let report = Report::start(config.has_hooks() && span.is_some(), name.as_deref());
        drop(name);
        if !is_internal {
            remove_untrusted_headers(config, &mut head.headers);
        }
        let whole = span.as_ref().map_or(ctx, |span| span.context().clone());
        let head_limit = limit.into_iter().chain(outer_limit).min();
        let limited =
            head_limit.map(|limit| whole.with_timeout(limit)).filter(|ctx| ctx.deadline() != whole.deadline());
        let (ctx, whole) = match limited {
            Some(limited) => (limited, Some(whole)),
            None => (whole, None),
        };
        let lifecycle = config.lifecycle.as_ref().filter(|_| outer.is_none());
        let _counted = lifecycle.map(|lifecycle| lifecycle.start(Work::Request));
        let exchange = Exchange {
            ctx,
            whole,
            stall: route.stall(limit),
            on_disconnect: route.on_disconnect.unwrap_or(config.on_disconnect),
            is_stalled: false,
            is_internal,
            live: Some(Live { span, handle }),
            config: Arc::clone(config),
            trust,
            method: head.method.clone(),
            rpc,
            refusal: (shortage == Some(Shortage::TooShort)).then(|| Error::new(Code::DeadlineExceeded, TOO_SHORT)),
            reserve_starts_at,
            outer,
            is_interrupted: false,
            report,
            _counted,
        };
        for hook in &config.on_start {
            if let Some(hooked) = exchange.hooked() {
                hooked.call(|span| hook(span, head));
            }
        }
        exchange.report.started();
        exchange
    }

    fn span(&self) -> Option<&Span> {
        self.live.as_ref()?.span.as_ref()
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn is_edge(&self) -> bool {
        self.trust == Trust::Edge
    }

    /// Whether the context is done because the outer layer's is. That layer ends the request.
    pub(super) fn is_ended_by_outer(&self) -> bool {
        self.outer.as_ref().is_some_and(Context::is_done)
    }

    /// The handler's context until the head of the response, then that of the whole exchange.
    pub(super) fn context(&self) -> &Context {
        &self.ctx
    }

    /// The limit for each frame of the body.
    pub(super) fn stall(&self) -> Option<Duration> {
        self.stall
    }

    pub(super) fn on_disconnect(&self) -> OnDisconnect {
        self.on_disconnect
    }

    /// Puts the context where the handler and inner layers find it.
    pub(super) fn insert_into(&self, extensions: &mut Extensions) {
        let trust = if self.is_internal { Trust::Internal } else { Trust::Edge };
        let (whole, handler) = (self.whole.as_ref().unwrap_or(&self.ctx).clone(), self.ctx.clone());
        Served { trust, whole, handler }.insert_into(extensions);
    }

    /// Whether the request and its response are gRPC.
    pub(super) fn is_grpc(&self) -> bool {
        self.rpc.as_ref().is_some_and(|rpc| rpc.responder.is_some())
    }

    /// Prepares the layer's own response, which is gRPC if the request has gRPC's form.
    fn respond_without_handler(&mut self) {
        let Some(rpc) = &mut self.rpc else { return };
        rpc.responder = Some(Responder::Layer);
        if !rpc.is_known {
            self.record_unknown_method();
        }
    }

    /// The response as it is passed on: with the trace id, and after the hook for it.
    pub(super) fn pass_head<B>(&self, mut response: Response<B>) -> Response<B> {
        let Some(hooked) = self.hooked() else { return response };
        if let (Some(name), Some(span)) = (&self.config.trace_response, self.ctx.span_context()) {
            response.headers_mut().insert(name.clone(), trace_response(name, span));
        }
        if self.config.on_response.is_empty() {
            return response;
        }
        let (head, body) = response.into_parts();
        for hook in &self.config.on_response {
            hooked.call(|span| hook(span, &head));
        }
        Response::from_parts(head, body)
    }

    fn hooked(&self) -> Option<Hooked<'_>> {
        Some(self.hooked_with(self.span()?))
    }

    fn hooked_with<'a>(&'a self, span: &'a Span) -> Hooked<'a> {
        Hooked { span, kind: SpanKind::Server, method: semconv::method(&self.method), report: &self.report }
    }

    /// Reports the end to the hook for it. The span is about to end.
    fn report_end(&self, live: &Live) {
        let Some(span) = live.span.as_ref().filter(|_| !self.config.on_end.is_empty()) else { return };
        if let Some(rpc) = self.rpc.as_ref().filter(|rpc| rpc.responder.is_some()) {
            let method = semconv::rpc_method(&rpc.uri);
            let method = if self.config.methods.contains(&method) { method } else { "_OTHER".to_owned() };
            self.report.set(|facts| facts.rpc_method = Some(method));
        }
        self.hooked_with(span).finish(&self.config.on_end, None, live.handle.cause().as_ref());
    }

    /// Sets the `error.type` of the span.
    pub(super) fn record_error_type(&self, kind: impl Into<Cow<'static, str>>) {
        let Some(span) = self.span() else { return };
        let kind = kind.into();
        self.report.set(|facts| facts.error_type = Some(kind.clone()));
        span.set_attribute(semconv::ERROR_TYPE, Value::Str(kind));
    }

    /// Records that the head is passed on. Returns whether a body follows on the wire.
    pub(super) fn head_sent<B>(&mut self, response: &Response<B>) -> bool {
        // The limit was for the head.
        if let Some(whole) = self.whole.take() {
            self.ctx = whole;
        }
        let status = response.status();
        self.report.set(|facts| facts.status = Some(status));
        if let Some(span) = self.span().filter(|_| !self.is_grpc() || !status.is_success()) {
            span.set_attribute("http.response.status_code", status.as_u16());
        }
        let is_upgrade =
            status == StatusCode::SWITCHING_PROTOCOLS || (self.method == Method::CONNECT && status.is_success());
        if let Some(live) = self.live.take_if(|_| is_upgrade) {
            self.report_end(&live);
            let Live { span, handle } = live;
            if let Some(span) = span {
                span.end();
            }
            let _context = handle.disarm();
        }
        let is_bodyless =
            status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        self.method != Method::HEAD && !is_bodyless
    }

    /// Records a response whose client has disconnected.
    pub(super) fn response_not_sent<B>(&mut self, response: &Response<B>) {
        self.decide_protocol(response);
        self.record_response(response);
        self.head_sent(response);
    }

    /// Ends the request after its last frame: first the span, then the context.
    pub(super) fn finish(&mut self) {
        if let Some(live) = self.live.take() {
            self.report_end(&live);
            let Live { span, handle } = live;
            if let Some(span) = span {
                span.end();
            }
            handle.cancel_with(Cause::RequestFinished);
        }
    }

    /// Ends a request whose handler has failed without a response.
    pub(super) fn failed(&mut self, error: &dyn Any) {
        if let Some(span) = self.span() {
            let code = failure::report_any(span, error);
            self.report.set(|facts| facts.code = code);
            self.record_error_type(code.map_or("_OTHER", Code::as_str));
            span.set_status(Status::Error("the service failed".into()));
        }
        self.treat_as_http();
        self.finish();
    }

    /// Ends a request whose body has failed half-way.
    ///
    /// If the context is done, that is the reason of the failure.
    pub(super) fn body_failed(&mut self, error: &(dyn std::error::Error + 'static)) {
        if self.ctx.is_done() {
            return self.interrupt();
        }
        if let Some(span) = self.span() {
            failure::report(span, error, true);
            let code = Error::find_in(error).map(Error::code);
            self.report.set(|facts| facts.code = code);
            self.record_error_type(code.map_or("_OTHER", Code::as_str));
        }
        self.finish();
    }

    /// Records that the limit for the next frame has passed.
    ///
    /// If the context is done already, that ends the body.
    pub(super) fn stalled(&mut self) {
        self.is_stalled = !self.ctx.is_done() || self.is_ended_by_outer();
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Cancels the context of a request before its end, and records the cause, once.
    pub(super) fn interrupt(&mut self) {
        if self.is_interrupted {
            return;
        }
        self.treat_as_http();
        let Some(live) = &self.live else { return };
        self.is_interrupted = true;
        // An earlier cause stays: a deadline that has passed, or a shutdown.
        live.handle.cancel_with(self.cause_of_drop());
        let (Some(span), Some(cause)) = (&live.span, live.handle.cause()) else { return };
        span.record_cancelled(&cause);
        let is_late =
            live.handle.err() == Some(ContextError::DeadlineExceeded) || matches!(cause, Cause::DeadlineExceeded);
        if is_late {
            self.report.set(|facts| facts.code = Some(Code::DeadlineExceeded));
            self.record_error_type(Code::DeadlineExceeded.as_str());
            let reason = if self.is_stalled { STALLED } else { "deadline exceeded" };
            span.set_status(Status::Error(reason.into()));
        }
    }

    /// Whether the caller waits for a gRPC status.
    pub(super) fn expects_grpc(&self) -> bool {
        self.rpc.is_some()
    }

    /// Records a panic while it unwinds. The drop of the span records the panic, too.
    pub(super) fn panicked(&mut self) {
        if self.rpc.as_ref().is_some_and(|rpc| rpc.responder.is_none()) {
            self.respond_without_handler();
        }
        self.record_grpc_code(Some(Code::Internal));
        self.interrupt();
        self.report.set(|facts| (facts.code, facts.error_type) = (Some(Code::Internal), Some("panic".into())));
        let live = self.live.take();
        if let Some(live) = &live {
            self.report_end(live);
        }
        drop(live.map(|live| live.span));
    }

    /// The cause of a request that is dropped before its end.
    fn cause_of_drop(&self) -> Cause {
        if std::thread::panicking() {
            return Cause::Panicked;
        }
        if self.is_stalled || self.ctx.err() == Some(ContextError::DeadlineExceeded) {
            return Cause::DeadlineExceeded;
        }
        match self.reserve_starts_at {
            Some(reserve_starts_at) if Instant::now() >= reserve_starts_at => Cause::DeadlineExceeded,
            _ if self.config.outer_layers_may_drop || self.outer.is_some() => Cause::Abandoned,
            _ => Cause::ClientDisconnected,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.interrupt();
        let live = self.live.take();
        if let Some(live) = &live {
            self.report_end(live);
        }
        // The span ends by drop, and before the handle, so that it records the cause.
        drop(live.map(|live| live.span));
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("context", self.context()).finish_non_exhaustive()
    }
}
