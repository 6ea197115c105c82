//! What the members and the publishers of one connection share.

use std::sync::Arc;

use async_nats::Client;
use throughline::{Code, Error};
use tokio::sync::watch;

/// What members and publishers share.
pub(super) struct Shared {
    pub(super) client: Client,
    /// Changes with each connection.
    pub(super) connected: watch::Receiver<()>,
    pub(super) phase: watch::Sender<Phase>,
    /// The messages that were taken and are not settled, and the calls of `publish`.
    pub(super) busy: watch::Sender<Busy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Open,
    /// Members take no more messages. Handlers may still publish.
    Draining,
    Closed,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busy {
    pub(super) unsettled: usize,
    pub(super) publishing: usize,
}

impl Shared {
    pub(super) fn new(client: Client, connected: watch::Receiver<()>) -> Self {
        Shared { client, connected, phase: watch::Sender::new(Phase::Open), busy: watch::Sender::default() }
    }

    /// Counts a call of `publish`, unless the events are closed.
    pub(super) fn publishing(self: &Arc<Self>) -> Result<Publishing, Error> {
        // Counted first: `drain` closes, and then waits for the count.
        self.busy.send_modify(|busy| busy.publishing += 1);
        let publishing = Publishing(Arc::clone(self));
        match *self.phase.borrow() {
            Phase::Closed => Err(Error::new(Code::Unavailable, "the events are closed")),
            _ => Ok(publishing),
        }
    }

    /// A phase never goes back.
    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let is_later = *current < phase;
            *current = phase.max(*current);
            is_later
        });
    }
}

pub(super) struct Publishing(Arc<Shared>);

impl Drop for Publishing {
    fn drop(&mut self) {
        self.0.busy.send_modify(|busy| busy.publishing -= 1);
    }
}
