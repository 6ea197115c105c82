//! One call from its beginning to its end: its span, below the caller's context.

use std::error::Error as StdError;
use std::fmt::Display;

use http::{HeaderMap, Method, StatusCode, Uri};
use throughline_core::trace::{SpanKind, Status};
use throughline_core::{CancelHandle, Context, Span};
use tokio::time::Instant;

use super::inject::{inject_external, inject_timeout};
use super::layer::Config;
use super::trust;
use crate::error::{Code, Error};
use crate::middleware::{grpc, semconv};

pub(super) struct Call {
    /// `None` once it has ended.
    span: Option<Span>,
    ctx: Context,
    is_external: bool,
    is_grpc: bool,
    /// The called host, without a port.
    host: Option<Box<str>>,
    /// The reply reserve: from here on, no time is left of the timeout that the callee was given.
    reserve_starts_at: Option<Instant>,
    /// A status of gRPC has come, in the head or in trailers.
    has_grpc_status: bool,
    /// Ends the body of the request.
    request: Option<CancelHandle>,
}

/// What a call begins with.
pub(super) struct Outgoing<'a, U> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    /// Written if the span shows it.
    pub(super) full_url: U,
    pub(super) headers: &'a mut HeaderMap,
    /// How many redirects were followed before it.
    pub(super) resend: u32,
    /// A redirect has led to another origin than the one that was called first.
    pub(super) is_cross_origin: bool,
}

impl Call {
    /// Starts the span and writes the headers; an error for a call that is not to be sent.
    pub(super) fn begin(config: &Config, ctx: &Context, out: Outgoing<'_, impl Display>) -> Result<Call, Error> {
        let Outgoing { method, uri, full_url, headers, resend, is_cross_origin } = out;
        let is_grpc = *method == Method::POST && grpc::is_grpc(headers);
        let mut span = if is_grpc {
            // The names that a client's code has are known.
            semconv::with_rpc(ctx.span(semconv::rpc_method(uri)), uri)
        } else {
            let name = semconv::method(method);
            let span = ctx.span(if name == "_OTHER" { "HTTP" } else { name });
            semconv::with_method(span, method)
        };
        if let Some(tracer) = &config.tracer {
            span = span.tracer(tracer);
        }
        span = semconv::with_server(span.kind(SpanKind::Client), uri, headers);
        if !is_grpc {
            span = span
                .attribute_with("url.full", || semconv::redacted_with(&full_url.to_string(), &config.redacted_keys));
        }
        if resend > 0 {
            span = span.attribute("http.request.resend_count", resend);
        }
        let remaining = ctx.remaining();
        if let Some(remaining) = remaining {
            span = span.attribute(semconv::REMAINING_MS, semconv::millis(remaining));
        }
        // A call that is dropped half-way has a caller with no more use for it, and so is no error.
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
        };
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

    /// The context that is done when the call is over: the body of its request ends then.
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

    /// The context is done before the answer.
    pub(super) fn interrupted(&self) -> Error {
        let error = Error::from_context(&self.ctx);
        if let Some(span) = &self.span {
            self.record_interruption(span, &error);
        }
        self.for_caller(error)
    }

    /// The error as the caller gets it: tonic's clients look for a status among its sources.
    fn for_caller(&self, error: Error) -> Error {
        #[cfg(feature = "tonic")]
        if self.is_grpc {
            return error.with_grpc_status();
        }
        error
    }

    fn record_interruption(&self, span: &Span, error: &Error) {
        if let Some(cause) = self.ctx.cause() {
            span.record_cancelled(&cause);
        }
        // That its own caller cancelled it is no failure of the call.
        if error.code() == Code::DeadlineExceeded {
            self.record_error(span, error);
        } else if self.is_grpc {
            span.set_attribute(semconv::RPC_STATUS_CODE, error.code().as_str());
        }
    }

    fn record_error(&self, span: &Span, error: &Error) {
        span.set_attribute(semconv::ERROR_TYPE, error.code().as_str());
        span.set_attribute(semconv::ERROR_CODE, error.code().as_str());
        if self.is_grpc {
            span.set_attribute(semconv::RPC_STATUS_CODE, error.code().as_str());
        }
        if let Some(origin) = error.origin() {
            span.set_attribute(semconv::ERROR_ORIGIN, origin.to_owned());
        }
        if error.source().is_some() {
            // With the chain, which the message leaves out.
            span.record_returned(error);
        }
        span.set_status(Status::Error(error.message().to_owned().into()));
    }

    /// There is no answer, or half of one.
    pub(super) fn failed(&mut self, failure: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        let failure = failure.into();
        // The context ends the body of the request, and the client may report that first.
        if self.ctx.is_done() && Error::among(&*failure).is_none() {
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

    /// Notes the head of the answer. `false`: its body is not the callee's, and is dropped.
    pub(super) fn record_head(&mut self, status: StatusCode, headers: &mut HeaderMap) -> bool {
        let is_foreign = self.is_grpc && !grpc::is_grpc(headers);
        if is_foreign && grpc::status(headers).is_none() {
            // gRPC over HTTP/2, "Responses": a proxy has answered, or a server that does not speak gRPC.
            let error = Error::new(Code::from_http_status_of_grpc(status), format!("HTTP {status}, which is not gRPC"));
            grpc::write_status(error, headers);
        }
        if let Some(span) = &self.span {
            if !self.is_grpc || !status.is_success() {
                span.set_attribute("http.response.status_code", status.as_u16());
            }
            if status.is_client_error() || status.is_server_error() {
                span.set_attribute(semconv::ERROR_TYPE, semconv::error_type(status));
                span.set_status(Status::Error("".into()));
            }
        }
        self.record_grpc_status(grpc::status_of_head(status, headers), headers);
        !is_foreign
    }

    /// Notes what gRPC says in trailers.
    pub(super) fn record_trailers(&mut self, trailers: &mut HeaderMap) {
        self.record_grpc_status(grpc::status(trailers), trailers);
    }

    /// Notes the status of a call by gRPC, and takes out of what it came in what tonic can't read.
    fn record_grpc_status(&mut self, status: Option<Option<Code>>, headers: &mut HeaderMap) {
        #[cfg(feature = "tonic")]
        super::grpc::drop_unreadable_details(headers);
        let Some(code) = status.filter(|_| self.is_grpc) else { return };
        self.has_grpc_status = true;
        let Some(code) = code else {
            if let Some(span) = &self.span {
                span.set_attribute(semconv::RPC_STATUS_CODE, "OK");
            }
            return;
        };
        grpc::write_origin(self.host.as_deref(), self.is_external, headers);
        if let Some(span) = &self.span {
            self.record_error(span, &grpc::error_of(code, headers, self.is_external));
        }
    }

    /// The body has yielded its last frame. An error: it ends without the status that gRPC ends with.
    ///
    /// hyper ends a body like this, too, when the peer resets the stream with NO_ERROR.
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

    /// The error that an answer tells of, as far as its sender is believed; the call ends.
    pub(super) fn error_of(&mut self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
        let meant = match self.is_grpc {
            true => Code::from_http_status_of_grpc(status),
            false => Code::from_http_status(status).unwrap_or(Code::Unknown),
        };
        let error = Error::meant_by(meant, headers);
        let error = if self.is_external { error } else { error.told_in(headers, body) };
        let error = error.born_in(self.host.as_deref());
        if let Some(span) = &self.span {
            self.record_error(span, &error);
        }
        self.finish();
        error
    }

    pub(super) fn is_external(&self) -> bool {
        self.is_external
    }

    /// The last frame of the answer has been taken.
    fn complete(&mut self) {
        // A server may answer before it has read the request (RFC 9113 §8.1). A call by gRPC is over with its status.
        if let Some(request) = self.request.take_if(|_| !self.is_grpc) {
            let _goes_on = request.disarm();
        }
        self.finish();
    }

    /// The call is over: its span ends, and the body of its request.
    pub(super) fn finish(&mut self) {
        if let Some(span) = self.span.take() {
            span.end();
        }
        drop(self.request.take());
    }

    pub(super) fn is_live(&self) -> bool {
        self.span.is_some()
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

    /// A URL that counts how often it is written.
    #[derive(Default)]
    struct Url(Cell<u32>);

    impl Display for Url {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.set(self.0.get() + 1);
            f.write_str("http://cards/7")
        }
    }

    #[test]
    fn a_url_is_written_for_spans_that_show_it_alone() {
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
            let out = Outgoing { method, uri: &uri, full_url: &url, headers, resend: 0, is_cross_origin: false };
            assert!(Call::begin(layer.config(), ctx, out).is_ok());
            assert_eq!(url.0.get(), written, "{media_type}");
        }
    }
}
