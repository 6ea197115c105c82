//! Records a response on the span: its protocol, its status, its error.

use http::{HeaderMap, Response, StatusCode};
use throughline_core::trace::Status;

use super::super::span::Responder;
use super::Exchange;
use crate::error::{Code, Error};
use crate::middleware::{failure, grpc, semconv};

impl Exchange {
    /// Records that no handler has shown that it knows the method.
    pub(super) fn record_unknown_method(&self) {
        if let (Some(span), Some(rpc)) = (self.span(), &self.rpc) {
            semconv::set_unknown_rpc(span, &rpc.uri);
        }
    }

    /// Treats the request as plain HTTP: no response in gRPC's form has come.
    pub(super) fn treat_as_http(&mut self) {
        let rpc = self.rpc.take_if(|rpc| rpc.responder.is_none());
        if let (Some(span), Some(rpc)) = (self.span(), rpc) {
            rpc.record_as_http(span);
        }
    }

    /// Records the error of a response.
    ///
    /// `status` is its HTTP status, or what that would be.
    pub(in super::super) fn record_error(&self, error: &Error, status: StatusCode) {
        self.record_grpc_code(Some(error.code()));
        self.report.set(|facts| facts.code = Some(error.code()));
        let Some(span) = self.span() else { return };
        semconv::record_error_code(span, error);
        // An error that only says that the context is done adds nothing to its cause.
        if !self.is_explained_by_cause(error) {
            failure::report(span, error, status.is_server_error());
        }
        if status.is_server_error() {
            self.record_error_type(error.code().as_str());
            span.set_status(Status::Error(error.message().to_owned().into()));
        } else {
            span.set_attribute(semconv::ERROR_MESSAGE, error.message().to_owned());
        }
    }

    /// Records the handler's own response.
    ///
    /// That is its gRPC status, the error that made it, or its status.
    pub(in super::super) fn record_response<B>(&self, response: &Response<B>) {
        let status = response.status();
        if self.is_grpc() {
            if let (Some(span), Some(error)) = (self.span(), grpc::error_behind(response.extensions())) {
                failure::report(span, &error, error.code().http_status().is_server_error());
            }
            self.record_grpc_status(grpc::status_of_head(status, response.headers()));
        } else if let Some(error) = response.extensions().get::<Error>() {
            return self.record_error(error, status);
        }
        if let Some(span) = self.span().filter(|_| status.is_server_error()) {
            self.record_error_type(semconv::error_type(status));
            span.set_status(Status::Error("".into()));
        }
    }

    /// Decides by the response's head whether a request in gRPC's form is gRPC.
    pub(in super::super) fn decide_protocol<B>(&mut self, response: &Response<B>) {
        if grpc::is_grpc(response.headers()) {
            let Some(rpc) = &mut self.rpc else { return };
            rpc.responder = Some(Responder::Handler);
        }
        let (span, Some(rpc)) = (self.span(), &self.rpc) else { return };
        if rpc.responder.is_some() {
            return span.map_or((), |span| rpc.set_span_name(span));
        }
        // What the response means to the client, which is a gRPC client.
        let code_for_client = grpc::status_of_head(response.status(), response.headers()).filter(|_| rpc.is_known);
        if let (Some(span), Some(code)) = (span, code_for_client) {
            semconv::record_rpc_status(span, code);
            self.report.set_rpc_status(code);
        }
        self.treat_as_http();
    }

    /// Records the status in the trailers of a handler's response.
    pub(in super::super) fn record_grpc_trailers(&self, trailers: &HeaderMap) {
        self.record_grpc_status(grpc::status(trailers));
    }

    fn record_grpc_status(&self, status: Option<Option<Code>>) {
        let Some(code) = status else { return };
        self.record_grpc_code(code);
        let code = code.filter(|code| self.is_grpc() && grpc::is_server_fault(*code));
        if let (Some(span), Some(code)) = (self.span(), code) {
            self.record_error_type(code.as_str());
            span.set_status(Status::Error("".into()));
        }
    }

    pub(super) fn record_grpc_code(&self, code: Option<Code>) {
        let (Some(span), Some(rpc)) = (self.span(), &self.rpc) else { return };
        let Some(responder) = rpc.responder else { return };
        semconv::record_rpc_status(span, code);
        self.report.set_rpc_status(code);
        if code == Some(Code::Unimplemented) {
            self.record_unknown_method();
        } else if responder == Responder::Handler && !rpc.is_known {
            self.config.methods.insert(semconv::rpc_method(&rpc.uri));
        }
    }
}
