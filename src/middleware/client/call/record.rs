//! What the span of a call gets, besides its attributes at the start.

use std::borrow::Cow;
use std::error::Error as _;

use http::{HeaderMap, StatusCode};
use throughline_core::Span;
use throughline_core::trace::{Status, Value};

use super::Call;
use crate::error::{Code, Error};
use crate::middleware::{grpc, semconv};

impl Call {
    /// Records the head of the response.
    ///
    /// Returns `false` if the response is not gRPC and its body must be dropped.
    pub(in crate::middleware::client) fn record_head(&mut self, status: StatusCode, headers: &mut HeaderMap) -> bool {
        let is_not_grpc = self.is_grpc && !grpc::is_grpc(headers);
        if is_not_grpc && grpc::status(headers).is_none() {
            // gRPC over HTTP/2, "Responses": a proxy or a server without gRPC sent this response.
            let error = Error::new(Code::from_http_status_of_grpc(status), format!("HTTP {status}, which is not gRPC"));
            grpc::write_status(error, headers);
        }
        self.report.set(|facts| facts.status = Some(status));
        if let Some(span) = &self.span {
            if !self.is_grpc || !status.is_success() {
                span.set_attribute("http.response.status_code", status.as_u16());
            }
            if status.is_client_error() || status.is_server_error() {
                self.record_error_type(span, semconv::error_type(status));
                span.set_status(Status::Error("".into()));
            }
        }
        self.record_grpc_status(grpc::status_of_head(status, headers), headers);
        !is_not_grpc
    }

    /// Records the gRPC status in trailers.
    pub(in crate::middleware::client) fn record_trailers(&mut self, trailers: &mut HeaderMap) {
        self.record_grpc_status(grpc::status(trailers), trailers);
    }

    /// Records the status of a gRPC call.
    ///
    /// Removes details that tonic cannot read from the headers.
    fn record_grpc_status(&mut self, status: Option<Option<Code>>, headers: &mut HeaderMap) {
        #[cfg(feature = "tonic")]
        super::super::grpc::drop_unreadable_details(headers);
        let Some(code) = status.filter(|_| self.is_grpc) else { return };
        self.has_grpc_status = true;
        let Some(code) = code else {
            if let Some(span) = &self.span {
                self.record_rpc_status(span, None);
            }
            return;
        };
        grpc::write_origin(self.host.as_deref(), self.is_external, headers);
        if let Some(span) = &self.span {
            self.record_error(span, &grpc::error_of(code, headers, self.is_external));
        }
    }

    pub(super) fn record_interruption(&self, span: &Span, error: &Error) {
        if let Some(cause) = self.ctx.cause() {
            span.record_cancelled(&cause);
        }
        // If the caller cancelled the call, the call has not failed.
        if error.code() == Code::DeadlineExceeded {
            self.record_error(span, error);
        } else if self.is_grpc {
            self.record_rpc_status(span, Some(error.code()));
        }
    }

    pub(super) fn record_error(&self, span: &Span, error: &Error) {
        self.record_error_type(span, error.code().as_str());
        semconv::record_error_code(span, error);
        if self.is_grpc {
            self.record_rpc_status(span, Some(error.code()));
        }
        if error.source().is_some() {
            // This records the sources, too. The message does not contain them.
            span.record_returned(error);
        }
        span.set_status(Status::Error(error.message().to_owned().into()));
    }

    fn record_error_type(&self, span: &Span, kind: impl Into<Cow<'static, str>>) {
        let kind = kind.into();
        self.report.set(|facts| facts.error_type = Some(kind.clone()));
        span.set_attribute(semconv::ERROR_TYPE, Value::Str(kind));
    }

    fn record_rpc_status(&self, span: &Span, code: Option<Code>) {
        self.report.set_rpc_status(code);
        semconv::record_rpc_status(span, code);
    }
}
