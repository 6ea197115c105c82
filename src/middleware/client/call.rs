//! The life of one call: its headers, its span and its error.
//!
//! A call begins with [`Call::begin`] and ends with [`Call::finish`], which ends the span and the
//! body of the request.

mod record;

use std::error::Error as StdError;
use std::fmt::Display;
use std::sync::Arc;

use http::{HeaderMap, Method, Response, StatusCode, Uri};
use throughline_core::trace::SpanKind;
use throughline_core::{CancelHandle, Cause, Context, Span};
use tokio::time::Instant;

use super::head::CallHead;
use super::inject::inject_external;
use super::layer::Config;
use super::timeout::inject_timeout;
use super::trust;
use crate::error::{Code, Error};
use crate::middleware::hooks::{Hooked, Report};
use crate::middleware::{grpc, semconv};

pub(super) struct Call {
    /// `None` after the call has ended.
    span: Option<Span>,
    ctx: Context,
    is_external: bool,
    is_grpc: bool,
    /// The host that is called, without a port.
    host: Option<Box<str>>,
    /// When the timeout that the callee got expires.
    ///
    /// From here on only the reply reserve is left.
    reserve_starts_at: Option<Instant>,
    /// A gRPC status has arrived, in the head or in trailers.
    has_grpc_status: bool,
    /// Ends the body of the request.
    request: Option<CancelHandle>,
    method: &'static str,
    report: Report,
    /// `None` if no hook is called after the start.
    hooks: Option<Arc<Config>>,
}

/// The parts of a request that a call needs.
pub(super) struct Outgoing<'a, U> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    /// Formatted only if the span records it.
    pub(super) full_url: U,
    pub(super) headers: &'a mut HeaderMap,
    /// The template of the path.
    pub(super) template: Option<&'a str>,
    /// The number of redirects that were followed before this request.
    pub(super) resend: u32,
    /// A redirect led to another origin than the first request's.
    pub(super) is_cross_origin: bool,
}

impl Call {
    /// Starts the span and writes the headers.
    ///
    /// # Errors
    /// The context is done or has no time left. The call must not be sent.
    pub(super) fn begin(config: &Arc<Config>, ctx: &Context, out: Outgoing<'_, impl Display>) -> Result<Call, Error> {
        let Outgoing { method, uri, full_url, headers, template, resend, is_cross_origin } = out;
        let is_grpc = *method == Method::POST && grpc::is_grpc(headers);
        let mut span = if is_grpc {
            // The client's own code names the method, so the number of names is limited.
            semconv::with_rpc(ctx.span(semconv::rpc_method(uri)), uri)
        } else {
            let span = ctx.span(semconv::span_name(semconv::method(method), template));
            let span = semconv::with_method(span, method);
            match template {
                Some(template) => span.attribute("url.template", template.to_owned()),
                None => span,
            }
        };
        if let Some(tracer) = &config.tracer {
            span = span.tracer(tracer);
        }
        span = semconv::with_server(span.kind(SpanKind::Client), uri, headers);
        if !is_grpc {
            span = span
                .attribute_with("url.full", || semconv::redacted_with(&full_url.to_string(), &config.redacted_keys));
        }
        if let Some(peer) = &config.peer {
            span = span.attribute("service.peer.name", peer.clone()).attribute("peer.service", peer.clone());
        }
        if resend > 0 {
            span = span.attribute("http.request.resend_count", resend);
        }
        let remaining = ctx.remaining();
        if let Some(remaining) = remaining {
            span = span.attribute(semconv::REMAINING_MS, semconv::millis(remaining));
        }
        // A call that is dropped early is no longer needed by its caller. That is not an error.
        let span = span.start().abandoned_if_dropped();
        let is_external = !config.internal.contains(uri, headers, is_cross_origin);
        let mut call = Call {
            ctx: span.context().clone(),
            span: Some(span),
            is_external,
            is_grpc,
            host: trust::host(uri, headers),
            reserve_starts_at: None,
            has_grpc_status: false,
            request: None,
            method: semconv::method(method),
            report: Report::start(config.has_hooks(), template.filter(|_| !is_grpc)),
            hooks: (!config.on_response.is_empty() || !config.on_end.is_empty()).then(|| Arc::clone(config)),
        };
        for hook in &config.on_start {
            if let Some(hooked) = call.hooked() {
                hooked.call(|span| hook(span, &CallHead { method, uri, headers }));
            }
        }
        call.report.started();
        if is_grpc {
            call.report.set(|facts| facts.rpc_method = Some(semconv::rpc_method(uri)));
        }
        if call.ctx.is_done() {
            return Err(call.not_sent(Error::from_context(ctx)));
        }
        if is_external {
            inject_external(&config.propagator, &call.ctx, headers);
        } else {
            config.propagator.inject(&call.ctx, headers);
        }
        match inject_timeout(config, remaining, is_external, headers) {
            Ok(timeout) => call.reserve_starts_at = timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            Err(e) => return Err(call.not_sent(Error::wrap(Code::DeadlineExceeded, e))),
        }
        Ok(call)
    }

    fn hooked(&self) -> Option<Hooked<'_>> {
        let span = self.span.as_ref()?;
        Some(Hooked { span, kind: SpanKind::Client, method: self.method, report: &self.report })
    }

    /// Calls the hook for the head of the response, after it was recorded.
    pub(super) fn pass_head<B>(&self, response: Response<B>) -> Response<B> {
        let hooks = self.hooks.as_ref().map(|hooks| &hooks.on_response).filter(|hooks| !hooks.is_empty());
        let (Some(hooks), Some(hooked)) = (hooks, self.hooked()) else { return response };
        let (head, body) = response.into_parts();
        for hook in hooks {
            hooked.call(|span| hook(span, &head));
        }
        Response::from_parts(head, body)
    }

    /// Reports the end to the hook for it. The span is about to end.
    fn report_end(&self, cause: Option<&Cause>) {
        let Some(config) = &self.hooks else { return };
        if let Some(hooked) = self.hooked() {
            hooked.finish(&config.on_end, config.peer.as_deref(), cause);
        }
    }

    /// A context that is done when the call ends.
    ///
    /// The body of the request ends with it.
    pub(super) fn request_end(&mut self) -> Context {
        self.request.get_or_insert_with(|| self.ctx.with_cancel()).context().clone()
    }

    pub(super) fn context(&self) -> &Context {
        &self.ctx
    }

    fn not_sent(&mut self, error: Error) -> Error {
        if let Some(span) = &self.span {
            span.set_attribute(semconv::SHED, "not sent");
            self.record_interruption(span, &error);
        }
        self.finish();
        self.for_caller(error)
    }

    /// The error of a call whose context is done before the response is complete.
    pub(super) fn interrupted(&self) -> Error {
        let error = Error::from_context(&self.ctx);
        if let Some(span) = &self.span {
            self.record_interruption(span, &error);
        }
        self.for_caller(error)
    }

    /// The error as the caller gets it.
    ///
    /// Tonic clients look for a status among its sources.
    fn for_caller(&self, error: Error) -> Error {
        #[cfg(feature = "tonic")]
        if self.is_grpc {
            return error.with_grpc_status();
        }
        error
    }

    /// Ends the call with a failure: there is no complete response.
    pub(super) fn failed(&mut self, failure: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        let failure = failure.into();
        // When the context is done, the request body ends with an error. The client may report
        // that error before this layer sees the end of the context.
        if self.ctx.is_done() && Error::find_in(&*failure).is_none() {
            let error = self.interrupted();
            self.finish();
            return error;
        }
        let error = Error::from_failure(failure, self.is_late());
        self.end_with(error)
    }

    fn is_late(&self) -> bool {
        self.reserve_starts_at.is_some_and(|reserve_starts_at| Instant::now() >= reserve_starts_at)
    }

    fn end_with(&mut self, error: Error) -> Error {
        if let Some(span) = &self.span {
            self.record_error(span, &error);
        }
        self.finish();
        self.for_caller(error)
    }

    /// Ends the call after the last frame of the response body.
    ///
    /// # Errors
    /// A gRPC response ended without a status. Hyper ends a body like this, too, when the peer
    /// resets the stream with NO_ERROR.
    pub(super) fn body_ended(&mut self) -> Result<(), Error> {
        if !self.is_missing_status() {
            self.complete();
            return Ok(());
        }
        if self.ctx.is_done() {
            let error = self.interrupted();
            self.finish();
            return Err(error);
        }
        let code = if self.is_late() { Code::DeadlineExceeded } else { Code::Unknown };
        Err(self.end_with(Error::new(code, "the response ended without a status")))
    }

    pub(super) fn is_missing_status(&self) -> bool {
        self.is_grpc && !self.has_grpc_status && self.is_live()
    }

    /// The error that a response describes, as far as its sender is trusted.
    ///
    /// Ends the call.
    pub(super) fn error_of(&mut self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
        let code = match self.is_grpc {
            true => Code::from_http_status_of_grpc(status),
            false => Code::from_http_status(status).unwrap_or(Code::Unknown),
        };
        let error = Error::from_head(code, headers);
        let error = if self.is_external { error } else { error.with_problem_body(headers, body) };
        let error = error.with_default_origin(self.host.as_deref());
        if let Some(span) = &self.span {
            self.record_error(span, &error);
        }
        self.finish();
        error
    }

    pub(super) fn is_external(&self) -> bool {
        self.is_external
    }

    /// Ends the call after the last frame of the response.
    fn complete(&mut self) {
        // A server may respond before it has read the whole request (RFC 9113 §8.1), and the
        // request then continues. A gRPC call ends with its status, and so does its request.
        if let Some(request) = self.request.take_if(|_| !self.is_grpc) {
            let _continues = request.disarm();
        }
        self.finish();
    }

    /// Ends the call: its span and the body of its request.
    pub(super) fn finish(&mut self) {
        self.report_end(self.ctx.cause().as_ref());
        if let Some(span) = self.span.take() {
            span.end();
        }
        drop(self.request.take());
    }

    pub(super) fn is_live(&self) -> bool {
        self.span.is_some()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.is_live() {
            self.report_end(Some(&self.ctx.cause().unwrap_or(Cause::Abandoned)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fmt;
    use std::sync::Arc;

    use http::HeaderValue;
    use http::header::CONTENT_TYPE;
    use throughline_core::SpanRecord;
    use throughline_core::trace::{Recorder, Tracer, TracerConfig};

    use super::*;
    use crate::ClientLayer;

    struct DiscardSpans;

    impl Recorder for DiscardSpans {
        fn record(&self, _: SpanRecord) {}
    }

    /// A URL that counts how often it is formatted.
    #[derive(Default)]
    struct Url(Cell<u32>);

    impl Display for Url {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.set(self.0.get() + 1);
            f.write_str("http://cards/7")
        }
    }

    #[test]
    fn a_url_is_formatted_only_for_spans_that_record_it() {
        let recorded = Context::background().with_tracer(&Tracer::new(TracerConfig::new(Arc::new(DiscardSpans))));
        let unrecorded = Context::background().with_tracer(&Tracer::noop());
        for (ctx, media_type, written) in [
            (&recorded, "application/json", 1),
            (&recorded, "application/grpc", 0),
            (&unrecorded, "application/json", 0),
            (&unrecorded, "application/grpc", 0),
        ] {
            let (url, uri) = (Url::default(), Uri::from_static("http://cards/7"));
            let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
            let layer = ClientLayer::internal();
            let (method, headers) = (&Method::POST, &mut headers);
            let out = Outgoing {
                method,
                uri: &uri,
                full_url: &url,
                headers,
                template: None,
                resend: 0,
                is_cross_origin: false,
            };
            assert!(Call::begin(layer.config(), ctx, out).is_ok());
            assert_eq!(url.0.get(), written, "{media_type}");
        }
    }
}
