//! Subscriptions and deliveries: how a consumer takes messages and acknowledges them.

use std::fmt;
use std::time::Duration;

use super::Events;
use super::counters::GroupCounters;
use super::medium::{Member, Settlement, Taken};
use super::message::Message;

/// A member of a group that is subscribed to a subject.
///
/// [`Events::subscribe`](super::Events::subscribe) creates it. Dropping it leaves the group. Within
/// a process, the messages of a group are discarded when its last member leaves.
pub struct Subscription {
    pub(super) events: Events,
    pub(super) subject: String,
    pub(super) group: String,
    pub(super) member: Box<dyn Member>,
}

impl Subscription {
    /// Returns the subject.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the name of the group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Returns the counters of the group. They cover all members.
    pub fn counters(&self) -> GroupCounters {
        self.member.counters().clone()
    }

    /// Takes the next message of the group; `None` once the events are [drained](Events::drain).
    ///
    /// It does not extract a context from the message and starts no span. [`serve`](Self::serve)
    /// does both.
    ///
    /// # Cancellation safety
    /// If the future is dropped before it is ready, no message is taken.
    ///
    /// # Panics
    /// Panics outside a tokio runtime with time enabled, if a message of the group
    /// [pauses](Delivery::redeliver_after).
    ///
    /// # Examples
    /// ```
    /// use throughline::Context;
    /// use throughline_transport::{Events, Message};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let (events, ctx) = (Events::in_process(), Context::background());
    /// let printer = events.subscribe(&ctx, "card.ordered", "printer").await?;
    /// events.publish(&ctx, Message::new("card.ordered", "7")).await?;
    ///
    /// let first = printer.next().await.expect("there is a message");
    /// drop(first); // not acknowledged
    /// let second = printer.next().await.expect("it is delivered again");
    /// assert_eq!((second.attempt(), &second.message().payload[..]), (2, &b"7"[..]));
    /// second.acknowledge();
    /// # Ok::<(), throughline::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn next(&self) -> Option<Delivery> {
        self.next_of(1).await
    }

    /// Takes the next message, when `capacity` messages can be handled now.
    pub(super) async fn next_of(&self, capacity: usize) -> Option<Delivery> {
        let taken = self.member.next(capacity).await?;
        Some(Delivery { taken: Some(taken), counters: self.counters() })
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("subject", &self.subject)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// A message to handle.
///
/// [`acknowledge`](Self::acknowledge) it when it is handled. A delivery that is dropped is
/// delivered again.
#[must_use = "a delivery that is dropped is delivered again"]
pub struct Delivery {
    /// `None` once the delivery is settled.
    taken: Option<Taken>,
    counters: GroupCounters,
}

impl Delivery {
    /// Returns the published message.
    pub fn message(&self) -> &Message {
        let taken = self.taken.as_ref();
        &taken.expect("the message is present until a method that consumes the delivery takes it").message
    }

    /// Returns the number of this delivery of the message, from 1.
    pub fn attempt(&self) -> u32 {
        self.taken.as_ref().map_or(0, |taken| taken.attempt)
    }

    /// Marks the message as handled. It is not delivered to this group again.
    pub fn acknowledge(mut self) {
        self.settle(Settlement::Acknowledge);
    }

    /// Delivers the message to the group again, after the messages that wait now.
    ///
    /// Dropping the delivery does the same.
    pub fn redeliver(self) {}

    /// Delivers the message to a member of the group again, after `pause` at the earliest.
    ///
    /// During the pause the message counts towards the capacity of the group. It is discarded if
    /// the last member of the group leaves.
    pub fn redeliver_after(mut self, pause: Duration) {
        self.settle(Settlement::Redeliver(pause));
    }

    /// Gives the message up. It is not delivered to this group again.
    pub(super) fn give_up(mut self) {
        self.settle(Settlement::GiveUp);
    }

    /// Does nothing if the delivery is settled already.
    fn settle(&mut self, settlement: Settlement) {
        let Some(Taken { message, attempt, receipt }) = self.taken.take() else { return };
        match settlement {
            Settlement::Acknowledge => self.counters.record_acknowledged(),
            Settlement::GiveUp => self.counters.record_given_up(),
            Settlement::Redeliver(_) => self.counters.record_redelivered(),
        }
        receipt.settle(message, attempt, settlement);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.settle(Settlement::Redeliver(Duration::ZERO));
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.taken.as_ref().map(|taken| &taken.message.subject);
        f.debug_struct("Delivery").field("subject", &subject).field("attempt", &self.attempt()).finish()
    }
}
