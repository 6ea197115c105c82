//! The error of a request, as its caller gets it.

use std::sync::Arc;

use http::HeaderMap;
use throughline_core::{Cause, ContextError};

use super::{Exchange, STALLED, TOO_SHORT};
use crate::error::{Code, Error};
use crate::middleware::grpc;

/// The message for the client of a request that its base has ended.
const SHUTTING_DOWN: &str = "shutting down";

impl Exchange {
    /// The error to respond with if the handler is not called, or was dropped.
    ///
    /// The request is refused, or its context is done.
    pub(in super::super) fn error_without_handler(&mut self) -> Error {
        self.respond_without_handler();
        if let Some(refusal) = self.refusal.take() {
            return refusal;
        }
        self.error_of_done_context()
    }

    /// The error of a request whose context is done.
    ///
    /// Its base, its deadline, or an outer layer has ended it.
    pub(in super::super) fn error_of_done_context(&mut self) -> Error {
        self.interrupt();
        if self.is_stalled {
            return Error::new(Code::DeadlineExceeded, STALLED);
        }
        let error = Error::from_context(&self.ctx);
        match self.ctx.cause() {
            Some(Cause::Shutdown) => self.unavailable(error),
            _ => self.unavailable_if_base_done(error),
        }
    }

    /// Makes the error `UNAVAILABLE` if the base has ended the request.
    ///
    /// Another instance may handle the request. Handlers see the end of the base as that of their
    /// context, and respond with its error. Other errors stay as they are.
    pub(in super::super) fn unavailable_if_base_done(&self, error: Error) -> Error {
        let base = &self.config.base;
        let is_by_base = match self.ctx.err() {
            Some(ContextError::DeadlineExceeded) => base.is_done() && base.deadline() == self.ctx.deadline(),
            Some(_) => base.is_done(),
            None => false,
        };
        let is_of_context = matches!(error.code(), Code::Cancelled | Code::DeadlineExceeded);
        if is_by_base && is_of_context { self.unavailable(error) } else { error }
    }

    /// The error for the client of a request that its base has ended.
    fn unavailable(&self, error: Error) -> Error {
        let unavailable = Error::new(Code::Unavailable, SHUTTING_DOWN).with_retryable(true);
        if error.only_reports_end_of(&self.ctx) { unavailable } else { unavailable.with_source(Arc::new(error)) }
    }

    /// Whether the cause on the span says as much as `error`.
    pub(in super::super) fn is_explained_by_cause(&self, error: &Error) -> bool {
        let is_shutdown = error.code() == Code::Unavailable && error.message() == SHUTTING_DOWN;
        let has_source = std::error::Error::source(error).is_some();
        self.is_stalled
            || error.message() == TOO_SHORT
            || error.only_reports_end_of(&self.ctx)
            || (is_shutdown && !has_source && self.ctx.is_done())
    }

    /// The error after [`Error::through_service`], which an outer layer does for both layers.
    pub(in super::super) fn through_service(&self, error: Error) -> Error {
        if self.outer.is_some() {
            return error;
        }
        // Not the context's: the route may be unrecorded.
        let tracer = self.config.tracer.as_ref().unwrap_or_else(|| self.config.base.tracer());
        let of_tracer = tracer.resource().and_then(|resource| resource.service_name());
        error.through_service(of_tracer.or(self.config.service_name.as_deref()))
    }

    /// The error as the caller gets it.
    pub(in super::super) fn redact(&self, error: Error) -> Error {
        if self.is_edge() { error.redacted() } else { error }
    }

    /// The last frame of a gRPC response whose context is done before its end.
    pub(in super::super) fn trailers_of_done_context(&mut self) -> HeaderMap {
        let error = self.error_of_done_context();
        self.trailers_of(error)
    }

    /// The last frame of a gRPC response that ends with `error`.
    pub(in super::super) fn trailers_of(&self, error: Error) -> HeaderMap {
        let error = self.through_service(error);
        self.record_error(&error, error.code().http_status());
        grpc::trailers(self.redact(error))
    }

    /// Redacts a handler's gRPC status, in headers or trailers, if the client is not trusted.
    pub(in super::super) fn redact_grpc(&self, headers: &mut HeaderMap) {
        if self.is_edge() && self.is_grpc() {
            grpc::redact(headers);
        }
    }
}
