//! What the inbox, the listener and the responders of a service share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use throughline::{CancelHandle, Cause, Context};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::is_failure;

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

impl Control {
    pub(crate) fn new(service: Arc<str>, limits: Limits) -> Self {
        let background = Context::background();
        Control {
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
        }
    }

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

    pub(crate) fn record_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
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
    pub(crate) fn start(control: &Arc<Control>) -> Option<Flight> {
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
