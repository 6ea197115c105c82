//! The receiving side of a service: limits, draining and counters, the same for each medium.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use throughline::{CancelHandle, Cause, Code, Context, Error};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::error::{is_failure, response_of, too_large};
use crate::listener::{Incoming, Responder};

/// Takes the requests that a [`Medium`](crate::Medium) receives for one service.
///
/// A clone costs one reference count.
#[derive(Clone)]
pub struct Inbox {
    sender: mpsc::Sender<Incoming>,
    control: Arc<Control>,
}

/// The limits of a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) in_flight: usize,
    pub(crate) body: usize,
}

/// What the inbox, the listener, its responders and the transport share.
pub(crate) struct Control {
    pub(crate) service: Arc<str>,
    pub(crate) limits: Limits,
    /// Done when the listener stops: no new requests.
    pub(crate) draining: CancelHandle,
    /// Done when the medium has delivered all that it received.
    pub(crate) received: CancelHandle,
    /// Done when the drain time has passed: requests in flight are cancelled.
    pub(crate) overdue: CancelHandle,
    /// Done when the listener has ended.
    pub(crate) closed: CancelHandle,
    in_flight: AtomicUsize,
    /// Notified when no request is in flight any more.
    became_idle: Notify,
    requests: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
    late_responses: AtomicU64,
    handling_nanos: AtomicU64,
}

/// What a listener has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerCounters {
    /// Requests that were taken, those in flight included.
    pub requests: u64,
    /// Whether the listener takes no more new requests.
    pub is_draining: bool,
    /// Requests that are taken and have no response yet.
    pub in_flight: usize,
    /// Responses with a status of 500 or more.
    pub failures: u64,
    /// Requests that were refused: too many in flight, a body over the limit, or a shutdown.
    pub refused: u64,
    /// Responses that were discarded, because the caller had given up.
    pub late_responses: u64,
    /// The time from the arrival of a request to its response, summed up.
    pub handling_time: Duration,
}

pub(crate) fn channel(service: Arc<str>, limits: Limits) -> (Inbox, mpsc::Receiver<Incoming>) {
    let (sender, receiver) = mpsc::channel(limits.in_flight);
    let background = Context::background();
    let control = Control {
        service,
        limits,
        draining: background.with_cancel(),
        received: background.with_cancel(),
        overdue: background.with_cancel(),
        closed: background.with_cancel(),
        in_flight: AtomicUsize::new(0),
        became_idle: Notify::new(),
        requests: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        late_responses: AtomicU64::new(0),
        handling_nanos: AtomicU64::new(0),
    };
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
        self.control.refused.fetch_add(1, Ordering::Relaxed);
        Reply(State::Ready(Some(Box::new(self.ended()))))
    }

    fn ended(&self) -> Response<Bytes> {
        let message = format!("{} is shutting down", self.service());
        response_of(Error::new(Code::Unavailable, message).with_retryable(true), self.service())
    }

    fn refuse(&self, error: Error) -> Reply {
        self.control.refused.fetch_add(1, Ordering::Relaxed);
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

impl Control {
    pub(crate) fn counters(&self) -> ListenerCounters {
        ListenerCounters {
            requests: self.requests.load(Ordering::Relaxed),
            is_draining: self.draining.is_done(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            late_responses: self.late_responses.load(Ordering::Relaxed),
            handling_time: Duration::from_nanos(self.handling_nanos.load(Ordering::Relaxed)),
        }
    }

    /// Waits until the medium has delivered all that it received, and no request is in flight.
    pub(crate) async fn drained(&self) {
        self.received.done().await;
        self.idle().await;
    }

    /// Waits until no request is in flight.
    async fn idle(&self) {
        loop {
            // Registered before the count is read, so that no end in between is missed.
            let became_idle = self.became_idle.notified();
            if self.in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            became_idle.await;
        }
    }

    pub(crate) fn close(&self) {
        self.draining.cancel_with(Cause::Shutdown);
        self.closed.cancel_with(Cause::Shutdown);
    }
}

/// A request in flight, until it is released or dropped.
pub(crate) struct Flight {
    control: Arc<Control>,
    started: Instant,
    is_counted: bool,
}

impl Flight {
    /// `None`: as many as allowed are in flight.
    fn start(control: &Arc<Control>) -> Option<Flight> {
        let limit = control.limits.in_flight;
        let add = |count: usize| (count < limit).then(|| count + 1);
        control.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).ok()?;
        control.requests.fetch_add(1, Ordering::Relaxed);
        Some(Flight { control: Arc::clone(control), started: Instant::now(), is_counted: true })
    }

    pub(crate) fn service(&self) -> &str {
        &self.control.service
    }

    pub(crate) fn max_body(&self) -> usize {
        self.control.limits.body
    }

    pub(crate) fn overdue(&self) -> &Context {
        &self.control.overdue
    }

    pub(crate) fn record_response(&self, response: &Response<Bytes>) {
        let nanos = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.control.handling_nanos.fetch_add(nanos, Ordering::Relaxed);
        if is_failure(response.status()) {
            self.control.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the count.
    pub(crate) fn release(&mut self) {
        let was_counted = std::mem::take(&mut self.is_counted);
        if was_counted && self.control.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.control.became_idle.notify_waiters();
        }
    }

    pub(crate) fn record_late_response(&self) {
        self.control.late_responses.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("service", &self.service()).finish_non_exhaustive()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.release();
    }
}
