//! Panics of handlers and of their bodies.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::exchange::Exchange;
use crate::error::{Code, Error};

/// Records a panic while it unwinds.
///
/// The code outside that catches the panic drops the exchange later. At that time nothing shows the
/// panic any more.
pub(super) struct OnUnwind<'a> {
    exchange: &'a mut Option<Exchange>,
    was_panicking: bool,
}

impl<'a> OnUnwind<'a> {
    pub(super) fn new(exchange: &'a mut Option<Exchange>) -> Self {
        OnUnwind { exchange, was_panicking: std::thread::panicking() }
    }

    pub(super) fn get(&mut self) -> &mut Exchange {
        self.exchange.as_mut().expect("a future that was ready is not polled again")
    }

    /// Polls a handler or its body.
    ///
    /// Returns an error if it panics and the request has gRPC's form.
    ///
    /// The caller of such a request would take the reset of a stream for a cancellation. For other
    /// requests the panic passes through.
    pub(super) fn catch<T>(&mut self, poll: impl FnOnce() -> T) -> Result<T, Error> {
        if !self.get().expects_grpc() {
            return Ok(poll());
        }
        let guard = OnUnwind::new(self.exchange);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let _guard = guard;
            poll()
        }));
        polled.map_err(|_| Error::new(Code::Internal, "the handler panicked"))
    }

    pub(super) fn take(&mut self) -> Exchange {
        self.exchange.take().expect("a future that was ready is not polled again")
    }
}

impl Drop for OnUnwind<'_> {
    fn drop(&mut self) {
        if !self.was_panicking
            && std::thread::panicking()
            && let Some(exchange) = self.exchange
        {
            exchange.panicked();
        }
    }
}
