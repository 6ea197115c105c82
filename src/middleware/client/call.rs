//! One call from its beginning to its end: its span, below the caller's context.

use std::error::Error as StdError;
use std::fmt::Display;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, StatusCode, Uri};
use throughline_core::propagation::deadline::{self, TimeoutHeader};
use throughline_core::propagation::{Format, values, w3c};
use throughline_core::trace::{SpanKind, Status};
use throughline_core::{Cause, Context, Propagator, Span};

use super::layer::Config;
use crate::error::{Code, Error};
use crate::middleware::{grpc, semconv};

pub(super) struct Call {
    /// `None` once it has ended.
    span: Option<Span>,
    ctx: Context,
    is_external: bool,
    is_grpc: bool,
}

impl Call {
    /// Starts the span and writes the headers; an error for a call that is not to be sent. `full_url` is written if the span
    /// shows it; `resend` counts the redirects before it.
    pub(super) fn begin(
        config: &Config,
        ctx: &Context,
        method: &Method,
        uri: &Uri,
        full_url: impl Display,
        headers: &mut HeaderMap,
        resend: u32,
    ) -> Result<Call, Error> {
        let is_grpc = grpc::is_grpc(headers);
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
            span = span.attribute_with("url.full", || semconv::redacted(&full_url.to_string()));
        }
        if resend > 0 {
            span = span.attribute("http.request.resend_count", resend);
        }
        let remaining = ctx.remaining();
        if let Some(remaining) = remaining {
            span = span.attribute(semconv::REMAINING_MS, semconv::millis(remaining));
        }
        let span = span.start();
        let is_external = !config.internal.has(uri, headers);
        let mut call = Call { ctx: span.context().clone(), span: Some(span), is_external, is_grpc };
        if call.ctx.is_done() {
            return Err(call.not_sent(Error::from_context(ctx)));
        }
        if is_external {
            inject_for_strangers(&config.propagator, &call.ctx, headers);
        } else {
            config.propagator.inject(&call.ctx, headers);
        }
        let sent = inject_timeout(config, remaining, is_external, headers);
        sent.map_err(|e| call.not_sent(Error::wrap(Code::DeadlineExceeded, e)))?;
        Ok(call)
    }

    pub(super) fn context(&self) -> &Context {
        &self.ctx
    }

    fn not_sent(&mut self, error: Error) -> Error {
        if let Some(span) = &self.span {
            span.set_attribute(semconv::SHED, "not sent");
            self.note_interruption(span, &error);
        }
        self.finish();
        error
    }

    /// The context is done before the answer.
    pub(super) fn interrupted(&self) -> Error {
        let error = Error::from_context(&self.ctx);
        if let Some(span) = &self.span {
            self.note_interruption(span, &error);
        }
        error
    }

    fn note_interruption(&self, span: &Span, error: &Error) {
        if let Some(cause) = self.ctx.cause() {
            span.record_cancelled(&cause);
        }
        // That its own caller cancelled it is no failure of the call.
        if error.code() == Code::DeadlineExceeded {
            self.note_error(span, error);
        } else if self.is_grpc {
            span.set_attribute(semconv::RPC_STATUS_CODE, error.code().as_str());
        }
    }

    fn note_error(&self, span: &Span, error: &Error) {
        span.set_attribute(semconv::ERROR_TYPE, error.code().as_str());
        span.set_attribute(semconv::ERROR_CODE, error.code().as_str());
        if self.is_grpc {
            span.set_attribute(semconv::RPC_STATUS_CODE, error.code().as_str());
        }
        if let Some(origin) = error.origin() {
            span.set_attribute(semconv::ERROR_ORIGIN, origin.to_owned());
        }
        span.set_status(Status::Error(error.message().to_owned().into()));
    }

    /// There is no answer, or half of one.
    pub(super) fn failed(&mut self, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        let error = error.into();
        let code = if grpc::is_timeout(&*error) { Code::DeadlineExceeded } else { Code::Unavailable };
        let error = Error::wrap(code, error);
        if let Some(span) = &self.span {
            self.note_error(span, &error);
        }
        self.finish();
        error
    }

    /// Notes the head of the answer.
    pub(super) fn answered(&self, status: StatusCode, headers: &mut HeaderMap) {
        let Some(span) = &self.span else { return };
        if !self.is_grpc || !status.is_success() {
            span.set_attribute("http.response.status_code", status.as_u16());
        }
        if status.is_client_error() || status.is_server_error() {
            span.set_attribute(semconv::ERROR_TYPE, semconv::error_type(status));
            span.set_status(Status::Error("".into()));
        }
        self.note_grpc(grpc::status_of_head(status, headers), headers);
    }

    /// Notes what gRPC says in trailers.
    pub(super) fn ended(&self, trailers: &mut HeaderMap) {
        self.note_grpc(grpc::status(trailers), trailers);
    }

    /// Notes the status of a call by gRPC, and takes out of what it came in what tonic can't read.
    fn note_grpc(&self, status: Option<Option<Code>>, headers: &mut HeaderMap) {
        #[cfg(feature = "tonic")]
        super::grpc::drop_unreadable_details(headers);
        #[cfg(not(feature = "tonic"))]
        let _ = headers;
        let (Some(span), Some(code)) = (self.span.as_ref().filter(|_| self.is_grpc), status) else { return };
        span.set_attribute(semconv::RPC_STATUS_CODE, code.map_or("OK", Code::as_str));
        if let Some(code) = code {
            span.set_attribute(semconv::ERROR_TYPE, code.as_str());
            span.set_status(Status::Error("".into()));
        }
    }

    /// The error that an answer tells of, as far as its sender is believed; the call ends.
    pub(super) fn error_of(&mut self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
        let meant = match self.is_grpc {
            true => Code::from_http_status_of_grpc(status),
            false => Code::from_http_status(status).unwrap_or(Code::Unknown),
        };
        let error = Error::meant_by(meant, headers);
        let error = if self.is_external { error } else { error.told_in(headers, body) };
        if let Some(span) = &self.span {
            self.note_error(span, &error);
        }
        self.finish();
        error
    }

    /// The last frame of the answer has been taken.
    pub(super) fn finish(&mut self) {
        if let Some(span) = self.span.take() {
            span.end();
        }
    }

    /// Its caller has no more use for it, and so it is no error.
    pub(super) fn abandon(&mut self) {
        let Some(span) = self.span.take() else { return };
        if !self.ctx.is_done() && !std::thread::panicking() {
            span.record_cancelled(&Cause::Abandoned);
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.span.is_some()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// The `traceparent` alone, whatever else was there.
fn inject_for_strangers(propagator: &Propagator, ctx: &Context, headers: &mut HeaderMap) {
    for name in Propagator::new(Format::ALL).fields() {
        headers.remove(name);
    }
    for name in values::header_names(ctx) {
        headers.remove(name);
    }
    let speaks_w3c = propagator.formats().any(|format| format == Format::TraceContext);
    if let Some(span) = ctx.span_context().filter(|_| speaks_w3c) {
        w3c::inject(span, headers);
        headers.remove(&w3c::TRACESTATE);
    }
}

/// Writes the time left as the callee's protocol has it, in place of one that is longer.
fn inject_timeout(
    config: &Config,
    remaining: Option<Duration>,
    is_external: bool,
    headers: &mut HeaderMap,
) -> Result<(), deadline::Expired> {
    let protocol = Protocol::of(headers);
    let is_private = is_external && matches!(protocol, Protocol::Http);
    if is_private {
        let known = [
            &deadline::GRPC_TIMEOUT,
            &deadline::CONNECT_TIMEOUT_MS,
            &deadline::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
            &deadline::REQUEST_TIMEOUT,
        ];
        for name in known.into_iter().chain(&config.timeout_name) {
            headers.remove(name);
        }
    }
    let Some(remaining) = remaining.filter(|_| !is_private) else { return Ok(()) };
    let name = match (&protocol, &config.timeout_name) {
        (Protocol::Http, Some(name)) => name,
        _ => &deadline::GRPC_TIMEOUT,
    };
    let said = match protocol {
        Protocol::Connect => deadline::extract_least(&[TimeoutHeader::ConnectTimeoutMs], headers),
        Protocol::Grpc | Protocol::Http => deadline::extract_from(name, headers),
    };
    if said.is_some_and(|said| said <= remaining.saturating_sub(config.reserve.of(remaining))) {
        // Who made the request grants less than there is.
        return Ok(());
    }
    match protocol {
        Protocol::Connect => deadline::inject_connect(remaining, &config.reserve, headers),
        Protocol::Grpc | Protocol::Http => deadline::inject_as(name, remaining, &config.reserve, headers),
    }
}

/// What is spoken over HTTP.
enum Protocol {
    Grpc,
    Connect,
    Http,
}

impl Protocol {
    fn of(headers: &HeaderMap) -> Self {
        // Connect protocol, "Unary-Request": unary calls have a version, streams a media type.
        static CONNECT_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
        let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |media_type| media_type.as_bytes());
        // gRPC-Web's, too.
        if media_type.starts_with(b"application/grpc") {
            Protocol::Grpc
        } else if media_type.starts_with(b"application/connect+") || headers.contains_key(&CONNECT_PROTOCOL_VERSION) {
            Protocol::Connect
        } else {
            Protocol::Http
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fmt;
    use std::sync::Arc;

    use http::HeaderValue;
    use throughline_core::SpanRecord;
    use throughline_core::trace::{Recorder, Tracer, TracerConfig};

    use super::*;
    use crate::ClientLayer;

    struct Nowhere;

    impl Recorder for Nowhere {
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
        let recorded = Context::background().with_tracer(&Tracer::new(TracerConfig::new(Arc::new(Nowhere))));
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
            let call = Call::begin(layer.config(), ctx, &Method::POST, &uri, &url, &mut headers, 0);
            assert!(call.is_ok());
            assert_eq!(url.0.get(), written, "{media_type}");
        }
    }
}
