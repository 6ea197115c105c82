//! What a medium of events does. The rest of this folder is common to all media.

use std::time::Duration;

use futures_util::future::BoxFuture;
use throughline::{Context, Error};

use super::counters::GroupCounters;
use super::message::Message;

/// Stores messages, and delivers them to groups.
pub(super) trait Medium: Send + Sync {
    /// Returns the value of the span attribute `messaging.system`.
    fn system(&self) -> &'static str;

    /// Publishes `message`. The caller drops the future when `ctx` is done.
    fn publish<'a>(&'a self, ctx: &'a Context, message: Message) -> BoxFuture<'a, Result<(), Error>>;

    /// Adds a member to `group`. The caller drops the future when `ctx` is done.
    fn subscribe<'a>(
        &'a self,
        ctx: &'a Context,
        subject: &'a str,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Member>, Error>>;

    /// See [`Events::drain`](super::Events::drain).
    fn drain(&self) -> BoxFuture<'_, ()>;
}

/// A member of a group. Dropping it leaves the group.
pub(super) trait Member: Send + Sync {
    /// Takes the next message; `None` once the events are drained.
    ///
    /// The caller can handle `capacity` messages now, including this one. Dropping the future takes
    /// no message.
    fn next(&self, capacity: usize) -> BoxFuture<'_, Option<Taken>>;

    fn counters(&self) -> &GroupCounters;
}

/// A message that a member has taken and not yet settled.
pub(super) struct Taken {
    pub(super) message: Message,
    /// The number of this delivery, from 1.
    pub(super) attempt: u32,
    pub(super) receipt: Box<dyn Receipt>,
}

/// Settles one delivery at its medium.
pub(super) trait Receipt: Send + Sync {
    /// Does not block.
    fn settle(self: Box<Self>, message: Message, attempt: u32, settlement: Settlement);
}

/// What becomes of a message that was delivered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Settlement {
    Acknowledge,
    GiveUp,
    /// Deliver it again, after the pause at the earliest.
    Redeliver(Duration),
}
