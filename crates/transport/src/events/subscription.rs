//! Subscriptions and deliveries: how a consumer takes messages and acknowledges them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::queue::{Queue, Waiting};
use super::{Events, GroupCounters, Message};

/// A member of a group that is subscribed to a subject.
///
/// [`Events::subscribe`] creates it. When the last member of a group is dropped, the messages of
/// the group are discarded.
pub struct Subscription {
    events: Events,
    subject: String,
    group: String,
    queue: Arc<Queue>,
}

impl Subscription {
    pub(super) fn new(events: Events, subject: String, group: String, queue: Arc<Queue>) -> Self {
        Subscription { events, subject, group, queue }
    }

    /// Returns the subject.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// Returns the name of the group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Returns the counters of the group. They cover all members.
    pub fn counters(&self) -> GroupCounters {
        self.queue.counters.clone()
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
    /// let events = Events::in_process();
    /// let printer = events.subscribe("card.ordered", "printer");
    /// events.publish(&Context::background(), Message::new("card.ordered", "7")).await?;
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
        let waiting = self.queue.take().await?;
        Some(Delivery { waiting: Some(waiting), queue: Arc::clone(&self.queue) })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.events.leave(&self.subject, &self.group, &self.queue);
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
    /// `None` once the delivery is finished.
    waiting: Option<Waiting>,
    queue: Arc<Queue>,
}

impl Delivery {
    /// Returns the published message.
    pub fn message(&self) -> &Message {
        let waiting = self.waiting.as_ref();
        &waiting.expect("the message is present until a method that consumes the delivery takes it").message
    }

    /// Returns the number of this delivery of the message, from 1.
    pub fn attempt(&self) -> u32 {
        self.waiting.as_ref().map_or(0, |waiting| waiting.attempt)
    }

    /// Marks the message as handled. It is not delivered to this group again.
    pub fn acknowledge(mut self) {
        self.waiting = None;
        self.queue.counters.record_acknowledged();
        self.queue.record_handled();
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
        self.put_back(pause);
    }

    /// Gives the message up. It is not delivered to this group again.
    pub(super) fn give_up(mut self) {
        self.waiting = None;
        self.queue.counters.record_given_up();
        self.queue.record_handled();
    }

    fn put_back(&mut self, pause: Duration) {
        if let Some(Waiting { message, attempt }) = self.waiting.take() {
            self.queue.put_back(Waiting { message, attempt: attempt.saturating_add(1) }, pause);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.put_back(Duration::ZERO);
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.waiting.as_ref().map(|waiting| &waiting.message.subject);
        f.debug_struct("Delivery").field("subject", &subject).field("attempt", &self.attempt()).finish()
    }
}
