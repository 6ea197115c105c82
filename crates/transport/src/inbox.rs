//! The receiving side of a service: limits, draining and counters, the same for each medium.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use throughline::{Code, Error};
use tokio::sync::{mpsc, oneshot};

use crate::control::{Control, Flight, Limits, ListenerCounters};
use crate::error::{response_of, too_large};
use crate::responder::{Incoming, Responder};

/// Takes the requests that a [`Medium`](crate::Medium) receives for one service.
///
/// A clone costs one reference count.
#[derive(Clone)]
pub struct Inbox {
    sender: mpsc::Sender<Incoming>,
    control: Arc<Control>,
}

pub(crate) fn channel(service: Arc<str>, limits: Limits) -> (Inbox, mpsc::Receiver<Incoming>) {
    let (sender, receiver) = mpsc::channel(limits.in_flight);
    let control = Control::new(service, limits);
    (Inbox { sender, control: Arc::new(control) }, receiver)
}

impl Inbox {
    /// Returns the name of the service.
    pub fn service(&self) -> &str {
        &self.control.service
    }

    /// Returns the size of the largest body of a request, in bytes.
    ///
    /// A medium stops reading a body that is larger, and calls [`refuse_body`](Self::refuse_body).
    pub fn max_body(&self) -> usize {
        self.control.limits.body
    }

    /// Returns how many requests the listener takes at the same time.
    pub fn max_in_flight(&self) -> usize {
        self.control.limits.in_flight
    }

    /// Waits until the listener stops and takes no more new requests.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static {
        self.control.draining.done_owned()
    }

    /// Whether the listener takes no more new requests.
    pub fn is_draining(&self) -> bool {
        self.control.draining.is_done()
    }

    /// Whether the listener has ended. Nothing listens to the name then.
    pub fn is_closed(&self) -> bool {
        self.control.closed.is_done()
    }

    /// Delivers a request to the listener.
    ///
    /// It never waits. The response is that of the service, or a refusal:
    /// - `RESOURCE_EXHAUSTED`: as many requests as allowed are in flight, or the body is larger
    ///   than [`max_body`](Self::max_body).
    /// - `UNAVAILABLE`, retryable: the listener has ended.
    ///
    /// Drop the [`Reply`] when the caller gives up: its handler is cancelled.
    pub fn deliver(&self, request: Request<Bytes>) -> Reply {
        if request.body().len() > self.max_body() {
            return self.refuse_body();
        }
        match self.start() {
            Ok(flight) => self.accept(flight, request),
            Err(refusal) => refusal,
        }
    }

    /// Counts a request as in flight.
    fn start(&self) -> Result<Flight, Reply> {
        let Some(flight) = Flight::start(&self.control) else { return Err(self.refuse_full()) };
        // Checked after the request is counted: a listener ends only when nothing is in flight.
        if self.is_closed() { Err(self.refuse_ended()) } else { Ok(flight) }
    }

    fn accept(&self, flight: Flight, request: Request<Bytes>) -> Reply {
        let (responder, reply) = oneshot::channel();
        let incoming = Incoming { request, responder: Responder::new(responder, flight) };
        if let Err(error) = self.sender.try_send(incoming) {
            error.into_inner().responder.respond(self.ended());
        }
        Reply(State::Waiting(reply))
    }

    /// Counts a request as in flight before its body has arrived.
    ///
    /// For a medium that reads a body in parts: the limit of requests in flight then also limits
    /// how many bodies are in memory.
    ///
    /// # Errors
    /// The response to the caller, as in [`deliver`](Self::deliver): the request is refused.
    pub fn admit(&self) -> Result<Admission, Reply> {
        Ok(Admission { flight: self.start()?, inbox: self.clone() })
    }

    /// Refuses a request whose body is larger than [`max_body`](Self::max_body).
    pub fn refuse_body(&self) -> Reply {
        self.refuse(too_large("request body", self.service(), self.max_body()))
    }

    /// Refuses a request because [`max_in_flight`](Self::max_in_flight) are taken:
    /// `RESOURCE_EXHAUSTED`.
    fn refuse_full(&self) -> Reply {
        let (service, limit) = (self.service(), self.max_in_flight());
        self.refuse(Error::new(Code::ResourceExhausted, format!("{service} has {limit} requests in flight")))
    }

    /// Refuses a request because the listener stops: `UNAVAILABLE`, retryable.
    pub fn refuse_ended(&self) -> Reply {
        self.control.record_refused();
        Reply(State::Ready(Some(Box::new(self.ended()))))
    }

    fn ended(&self) -> Response<Bytes> {
        let message = format!("{} is shutting down", self.service());
        response_of(Error::new(Code::Unavailable, message).with_retryable(true), self.service())
    }

    fn refuse(&self, error: Error) -> Reply {
        self.control.record_refused();
        Reply(State::Ready(Some(Box::new(response_of(error, self.service())))))
    }

    /// Returns what the listener has counted.
    pub fn counters(&self) -> ListenerCounters {
        self.control.counters()
    }

    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("service", &self.control.service).finish_non_exhaustive()
    }
}

/// A request that is in flight and has not arrived completely. [`Inbox::admit`] makes it.
///
/// Drop it when the request does not arrive.
#[derive(Debug)]
#[must_use = "a request that is not delivered has no response"]
pub struct Admission {
    inbox: Inbox,
    flight: Flight,
}

impl Admission {
    /// Delivers the request, as [`Inbox::deliver`] does.
    pub fn deliver(self, request: Request<Bytes>) -> Reply {
        let Admission { inbox, flight } = self;
        if request.body().len() > inbox.max_body() {
            return inbox.refuse_body();
        }
        if inbox.is_closed() {
            return inbox.refuse_ended();
        }
        inbox.accept(flight, request)
    }
}

/// The response to a delivered request. Drop it when the caller gives up.
#[derive(Debug)]
pub struct Reply(State);

#[derive(Debug)]
enum State {
    Waiting(oneshot::Receiver<Response<Bytes>>),
    Ready(Option<Box<Response<Bytes>>>),
}

impl Future for Reply {
    type Output = Response<Bytes>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Response<Bytes>> {
        Poll::Ready(match &mut self.0 {
            State::Ready(response) => *response.take().expect("a future is not polled after it is ready"),
            State::Waiting(reply) => {
                ready!(Pin::new(reply).poll(cx)).expect("a responder that is dropped has responded")
            }
        })
    }
}
