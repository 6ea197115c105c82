//! Requests, and the responders that respond to them.

use std::fmt;

use bytes::Bytes;
use http::{Request, Response};
use throughline::{Cause, Code, Error};
use tokio::sync::oneshot;

use crate::control::Flight;
use crate::error::{response_of, too_large};

/// A request, and the responder to respond to it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// The request.
    pub request: Request<Bytes>,
    /// Responds to the request.
    pub responder: Responder,
}

/// Sends the response to one request.
///
/// A responder that is dropped responds with `INTERNAL`.
#[must_use = "a responder that is dropped responds with INTERNAL"]
pub struct Responder {
    /// `None`: it has responded.
    sender: Option<oneshot::Sender<Response<Bytes>>>,
    flight: Flight,
}

impl Responder {
    pub(crate) fn new(sender: oneshot::Sender<Response<Bytes>>, flight: Flight) -> Self {
        Responder { sender: Some(sender), flight }
    }

    /// Sends the response.
    ///
    /// - If the caller has given up, the response is discarded and counted.
    /// - A body that is larger than the limit becomes `RESOURCE_EXHAUSTED`.
    pub fn respond(mut self, response: Response<Bytes>) {
        let limit = self.flight.max_body();
        if response.body().len() > limit {
            let error = too_large("response body", self.flight.service(), limit);
            return self.respond_error(error);
        }
        self.send(response);
    }

    /// Sends `error` as the response: a problem document that names this service as the origin.
    pub fn respond_error(mut self, error: Error) {
        let response = response_of(error, self.flight.service());
        self.send(response);
    }

    pub(crate) fn service(&self) -> &str {
        self.flight.service()
    }

    pub(crate) fn max_body(&self) -> usize {
        self.flight.max_body()
    }

    /// Waits until the caller gives up.
    pub(crate) async fn abandoned(&mut self) {
        self.sender.as_mut().expect("a method that responds consumes the responder").closed().await;
    }

    /// Waits until there is no need for a response any more, and returns the cause.
    ///
    /// - [`Cause::ClientDisconnected`]: the caller gave up.
    /// - [`Cause::Shutdown`]: the listener was stopped and the drain time has passed.
    ///
    /// # Cancellation safety
    /// It may be dropped at any time and called again.
    pub async fn closed(&mut self) -> Cause {
        let sender = self.sender.as_mut().expect("a method that responds consumes the responder");
        tokio::select! {
            biased;
            () = sender.closed() => Cause::ClientDisconnected,
            () = self.flight.overdue().done() => Cause::Shutdown,
        }
    }

    /// Ends a request whose caller has given up.
    pub(crate) fn discard(mut self) {
        self.sender = None;
    }

    fn send(&mut self, response: Response<Bytes>) {
        let Some(sender) = self.sender.take() else { return };
        self.flight.record_response(&response);
        // Before the caller gets the response: its next request is not refused because of this one.
        self.flight.release();
        if sender.send(response).is_err() {
            self.flight.record_late_response();
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.sender.is_some() {
            let error = Error::new(Code::Internal, format!("{} did not respond", self.flight.service()));
            let response = response_of(error, self.flight.service());
            self.send(response);
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("service", &self.flight.service()).finish_non_exhaustive()
    }
}
