//! One request from its birth to its end: its context, and its span.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use throughline_core::propagation::{Counted, Format, baggage, deadline, values};
use throughline_core::trace::{SpanBuilder, SpanKind, Status};
use throughline_core::{CancelHandle, Cause, Context, ContextError, Extractor, Propagator, Span, SpanContext};
use tokio::time::Instant;

use super::layer::{Config, Trust};
use crate::error::{Code, Error};
use crate::middleware::{grpc, semconv};

pub(super) struct Exchange {
    /// `None` once it has ended.
    live: Option<Live>,
    config: Arc<Config>,
    trust: Trust,
    method: Method,
    /// Of a request by gRPC.
    grpc: Option<Uri>,
    /// What the handler is called with.
    ctx: Context,
    /// The answer in place of a handler's, to one who is not who he says.
    refusal: Option<Error>,
    /// From here on the caller may have given up: its own deadline, less what it keeps back for the answer's way. Never that of our
    /// maximum, which the caller doesn't know.
    late_from: Option<Instant>,
    is_interrupted: bool,
}

struct Live {
    span: Span,
    /// Above the span.
    handle: CancelHandle,
}

impl Exchange {
    pub(super) fn begin(config: &Arc<Config>, head: &mut Parts) -> Exchange {
        let (trust, is_grpc) = (config.trust.of(head), grpc::is_grpc(&head.headers));
        let carrier = Counted::new(&head.headers);
        let sent = granted(config, &carrier);
        let timeout = match (sent.or(config.default_timeout), config.max_timeout(trust)) {
            (Some(timeout), Some(max)) => Some(timeout.min(max)),
            (timeout, max) => timeout.or(max),
        };
        let late_from = sent.and_then(|sent| Instant::now().checked_add(sent.saturating_sub(config.reserve.of(sent))));
        let handle = match timeout {
            Some(timeout) => config.base.with_timeout(timeout).with_cancel(),
            None => config.base.with_cancel(),
        };
        let span = match trust {
            Trust::Internal => {
                start_span(config, trust, head, is_grpc, &extract(config, handle.context(), &carrier), &carrier)
            }
            Trust::Edge => start_span(config, trust, head, is_grpc, handle.context(), &carrier),
        };
        config.counts.add_dropped(carrier.dropped());
        if trust == Trust::Edge {
            remove_claims(config, &mut head.headers);
        }
        Exchange {
            ctx: span.context().clone(),
            live: Some(Live { span, handle }),
            config: Arc::clone(config),
            trust,
            method: head.method.clone(),
            grpc: is_grpc.then(|| head.uri.clone()),
            refusal: None,
            late_from,
            is_interrupted: false,
        }
    }

    /// What the handler is called with.
    pub(super) fn context(&self) -> &Context {
        &self.ctx
    }

    pub(super) fn is_grpc(&self) -> bool {
        self.grpc.is_some()
    }

    /// Finds out who a stranger's request is made for. `false`: it is refused.
    pub(super) fn authenticate(&mut self, head: &Parts) -> bool {
        let authenticator = self.config.authenticator.as_ref().filter(|_| self.trust == Trust::Edge);
        match authenticator.map_or(Ok(None), |authenticate| authenticate(head)) {
            Ok(principal) => {
                if let Some(principal) = principal {
                    self.ctx = self.ctx.with_principal(principal);
                }
                true
            }
            Err(error) => {
                self.note_unknown_method();
                self.refusal = Some(error);
                false
            }
        }
    }

    /// Notes that the handler is not called.
    pub(super) fn shed(&self) {
        let Some(live) = &self.live else { return };
        live.span.set_attribute(semconv::SHED, "dead on arrival");
        if let Some(cause) = live.handle.cause() {
            live.span.record_shed(&cause);
        }
        self.note_unknown_method();
    }

    /// Notes that no handler has shown that it knows the method of gRPC.
    fn note_unknown_method(&self) {
        if let (Some(live), Some(uri)) = (&self.live, &self.grpc) {
            semconv::set_unknown_rpc(&live.span, uri);
        }
    }

    /// The answer in place of a handler's: to a request that is refused, or whose context is done.
    pub(super) fn error_in_place(&mut self) -> Error {
        if let Some(refusal) = self.refusal.take() {
            return refusal;
        }
        self.interrupt();
        let error = Error::from_context(self.context());
        match self.context().cause() {
            // Another instance may do it.
            Some(Cause::Shutdown) => Error::new(Code::Unavailable, "shutting down").with_retryable(true),
            _ => error,
        }
    }

    /// The error as it goes out from this service to its caller.
    pub(super) fn outbound(&self, error: Error) -> Error {
        let tracer = self.context().tracer();
        let error = error.leaving(tracer.resource().and_then(|resource| resource.service_name()));
        self.note_error(&error);
        if self.trust == Trust::Edge { error.public() } else { error }
    }

    fn note_error(&self, error: &Error) {
        let Some(live) = &self.live else { return };
        if let Some(origin) = error.origin() {
            live.span.set_attribute(semconv::ERROR_ORIGIN, origin.to_owned());
        }
        live.span.set_attribute(semconv::ERROR_CODE, error.code().as_str());
        self.note_grpc_code(Some(error.code()));
        if error.code().http_status().is_server_error() {
            live.span.set_attribute(semconv::ERROR_TYPE, error.code().as_str());
            live.span.set_status(Status::Error(error.message().to_owned().into()));
        } else {
            live.span.set_attribute(semconv::ERROR_MESSAGE, error.message().to_owned());
        }
    }

    /// Notes what a handler says by gRPC in the head of its answer. One that does not speak gRPC says something, too.
    pub(super) fn note_grpc_head<B>(&self, response: &Response<B>) {
        let headers = response.headers();
        if !self.is_grpc() || grpc::status(headers).is_some() {
            return self.note_grpc_status(headers);
        }
        if let Some(code) = grpc::status_of_head(response.status(), headers) {
            self.note_grpc_code(code);
        }
        if !grpc::is_grpc(headers) {
            self.note_unknown_method();
        }
    }

    /// Notes what a handler says by gRPC in headers (of an answer without a body) or trailers.
    pub(super) fn note_grpc_status(&self, headers: &HeaderMap) {
        let Some(live) = self.live.as_ref().filter(|_| self.is_grpc()) else { return };
        let Some(code) = grpc::status(headers) else { return };
        self.note_grpc_code(code);
        if let Some(code) = code.filter(|code| grpc::is_servers_fault(*code)) {
            live.span.set_attribute(semconv::ERROR_TYPE, code.as_str());
            live.span.set_status(Status::Error("".into()));
        }
    }

    fn note_grpc_code(&self, code: Option<Code>) {
        let Some(live) = self.live.as_ref().filter(|_| self.is_grpc()) else { return };
        live.span.set_attribute(semconv::RPC_STATUS_CODE, code.map_or("OK", Code::as_str));
        if code == Some(Code::Unimplemented) {
            self.note_unknown_method();
        }
    }

    /// Takes out of what a handler says by gRPC, in headers or trailers, what is not for strangers, if one has asked.
    pub(super) fn hide_depths(&self, headers: &mut HeaderMap) {
        if self.trust == Trust::Edge {
            grpc::make_public(headers);
        }
    }

    /// Notes the head of the answer. `false`: no body will follow on the wire.
    pub(super) fn answered<B>(&mut self, response: &Response<B>) -> bool {
        let status = response.status();
        if let Some(live) = &self.live {
            if !self.is_grpc() || !status.is_success() {
                live.span.set_attribute("http.response.status_code", status.as_u16());
            }
            if status.is_server_error() && response.extensions().get::<Error>().is_none() {
                live.span.set_attribute(semconv::ERROR_TYPE, semconv::error_type(status));
                live.span.set_status(Status::Error("".into()));
            }
        }
        let is_upgrade =
            status == StatusCode::SWITCHING_PROTOCOLS || (self.method == Method::CONNECT && status.is_success());
        if let Some(Live { span, handle }) = self.live.take_if(|_| is_upgrade) {
            span.end();
            let _goes_on = handle.disarm();
        }
        let has_none =
            status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        self.method != Method::HEAD && !has_none
    }

    /// The last frame has been taken: first the span ends, then the context.
    pub(super) fn finish(&mut self) {
        if let Some(Live { span, handle }) = self.live.take() {
            span.end();
            handle.cancel_with(Cause::RequestFinished);
        }
    }

    /// The handler has failed without an answer.
    pub(super) fn failed(mut self) {
        if let Some(live) = &self.live {
            live.span.set_status(Status::Error("the service failed".into()));
        }
        self.finish();
    }

    /// The handler's body has failed half-way, which is its end; with the context, if that is done.
    pub(super) fn body_failed(&mut self, error: &(dyn std::error::Error + 'static)) {
        if self.ctx.is_done() {
            return self.interrupt();
        }
        if let Some(live) = &self.live {
            live.span.record_error(error);
            live.span.set_attribute(semconv::ERROR_TYPE, Error::among(error).map_or("_OTHER", |e| e.code().as_str()));
        }
        self.finish();
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Cancels what ends before its end, and notes why, once.
    pub(super) fn interrupt(&mut self) {
        let Some(live) = self.live.as_ref().filter(|_| !self.is_interrupted) else { return };
        self.is_interrupted = true;
        // What came first stands: a deadline that has passed, or a shutdown.
        live.handle.cancel_with(self.cause_of_drop());
        let Some(cause) = live.handle.cause() else { return };
        live.span.record_cancelled(&cause);
        let is_late =
            live.handle.err() == Some(ContextError::DeadlineExceeded) || matches!(cause, Cause::DeadlineExceeded);
        if is_late {
            live.span.set_attribute(semconv::ERROR_TYPE, Code::DeadlineExceeded.as_str());
            live.span.set_status(Status::Error("deadline exceeded".into()));
        }
    }

    /// A panic passes. The span is dropped by it, and so says what it is.
    pub(super) fn panicked(&mut self) {
        self.interrupt();
        drop(self.live.take().map(|live| live.span));
    }

    /// Why a request is over that was dropped before its end.
    fn cause_of_drop(&self) -> Cause {
        if std::thread::panicking() {
            return Cause::Panicked;
        }
        match self.late_from {
            Some(late_from) if Instant::now() >= late_from => Cause::DeadlineExceeded,
            _ if self.config.is_inner => Cause::Abandoned,
            _ => Cause::ClientDisconnected,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.interrupt();
        // The span ends by drop, and before the handle: it takes the cause with it.
        drop(self.live.take().map(|live| live.span));
    }
}

/// The time that the caller grants: the least of what it says.
fn granted(config: &Config, carrier: &impl Extractor) -> Option<Duration> {
    let named = config.timeout_name.as_ref().and_then(|name| deadline::extract_from(name, carrier));
    let known = deadline::extract_least(&config.timeout_headers, carrier);
    named.into_iter().chain(known).min()
}

/// What a service of ours has sent.
fn extract(config: &Config, ctx: &Context, carrier: &impl Extractor) -> Context {
    let ctx = config.propagator.extract(ctx, carrier);
    let ctx = match config.max_baggage {
        Some((bytes, members)) => {
            let kept = ctx.baggage().within(bytes, members);
            let over = kept.dropped_count().saturating_sub(ctx.baggage().dropped_count());
            if over > 0 {
                carrier.dropped(&baggage::BAGGAGE, over);
            }
            ctx.with_baggage(kept)
        }
        None => ctx,
    };
    values::extract(&ctx, &config.keys, carrier)
}

/// Takes out what a stranger says that is for services of ours to say, so that nobody reads it or passes it on.
fn remove_claims(config: &Config, headers: &mut HeaderMap) {
    for name in Propagator::new(Format::ALL).fields() {
        headers.remove(name);
    }
    let names = config.keys.iter().filter_map(|key| key.header_name());
    for name in names.chain(values::header_names(&config.base)) {
        headers.remove(name);
    }
}

fn start_span(
    config: &Config,
    trust: Trust,
    head: &Parts,
    is_grpc: bool,
    ctx: &Context,
    carrier: &impl Extractor,
) -> Span {
    let (method, route) = (semconv::method(&head.method), route(head));
    let name = match (method, route) {
        _ if is_grpc => semconv::rpc_method(&head.uri).into(),
        ("_OTHER", Some(route)) => format!("HTTP {route}").into(),
        ("_OTHER", None) => "HTTP".into(),
        (method, Some(route)) => format!("{method} {route}").into(),
        (method, None) => std::borrow::Cow::Borrowed(method),
    };
    let mut span = ctx.span(name).kind(SpanKind::Server);
    if let Some(tracer) = &config.tracer {
        span = span.tracer(tracer);
    }
    if trust == Trust::Edge {
        span = span.new_root();
        if let Some(caller) = config.propagator.extract_span_context(carrier) {
            span = span.link(caller);
        }
    } else if !ctx.span_context().is_some_and(SpanContext::is_remote) {
        // The base's own span is not what asked for this.
        span = span.new_root();
    }
    span = semconv::with_server(span, &head.uri, &head.headers);
    span = if is_grpc { semconv::with_rpc(span, &head.uri) } else { with_http(span, head, route) };
    if let Some(remaining) = ctx.remaining() {
        span = span.attribute(semconv::REMAINING_MS, semconv::millis(remaining));
    }
    span.start()
}

fn with_http<'a>(span: SpanBuilder<'a>, head: &Parts, route: Option<&str>) -> SpanBuilder<'a> {
    let mut span = semconv::with_method(span, &head.method)
        .attribute("url.path", semconv::cut(head.uri.path()))
        .attribute("url.scheme", if head.uri.scheme_str() == Some("https") { "https" } else { "http" })
        .attribute("network.protocol.version", semconv::protocol_version(head.version));
    if let Some(route) = route {
        span = span.attribute("http.route", route.to_owned());
    }
    match semconv::user_agent(&head.headers) {
        Some(agent) => span.attribute("user_agent.original", agent),
        None => span,
    }
}

#[cfg(feature = "axum")]
fn route(head: &Parts) -> Option<&str> {
    head.extensions.get::<axum::extract::MatchedPath>().map(axum::extract::MatchedPath::as_str)
}

#[cfg(not(feature = "axum"))]
fn route(_: &Parts) -> Option<&str> {
    None
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("context", self.context()).finish_non_exhaustive()
    }
}
