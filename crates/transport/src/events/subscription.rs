//! Taking messages.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::queue::{Queue, Waiting};
use super::{Events, GroupCounters, Message};

/// A member of a group that is subscribed to a subject: made by [`Events::subscribe`]. The group's messages go with its last member.
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

    /// The subject that it is subscribed to.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// The group that it is a member of.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Counts of what the group has done with its messages, for all its members together.
    pub fn counters(&self) -> GroupCounters {
        self.queue.counters.clone()
    }

    /// The next message for this group; `None` once the events are [drained](Events::drain).
    ///
    /// It is the one who takes a message who starts its span and its context: [`serve`](Self::serve) does both.
    ///
    /// # Cancellation safety
    /// Dropped before it is ready, it has taken nothing.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled, when a message of the group
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
    /// let first = printer.next().await.expect("there is one");
    /// drop(first); // and is not acknowledged
    /// let second = printer.next().await.expect("it comes again");
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

/// A message to be dealt with: [`acknowledge`](Self::acknowledge)d, or else delivered again.
#[must_use = "a delivery that is dropped is delivered again"]
pub struct Delivery {
    /// `None` once it is dealt with.
    waiting: Option<Waiting>,
    queue: Arc<Queue>,
}

impl Delivery {
    /// What was published.
    pub fn message(&self) -> &Message {
        let waiting = self.waiting.as_ref();
        &waiting.expect("it is there until the delivery is given up, which takes it").message
    }

    /// Which delivery of the message it is, from 1.
    pub fn attempt(&self) -> u32 {
        self.waiting.as_ref().map_or(0, |waiting| waiting.attempt)
    }

    /// It has been dealt with: nobody else of the group gets it.
    pub fn acknowledge(mut self) {
        self.waiting = None;
        self.queue.counters.record_acknowledged();
        self.queue.settle();
    }

    /// Somebody of the group gets it again, after those that wait now. The same as dropping it.
    pub fn redeliver(self) {}

    /// Delivers the message to a member of the group again, no earlier than after `pause`.
    ///
    /// Until then the message keeps its place in the group. It goes with the group's last member.
    pub fn redeliver_after(mut self, pause: Duration) {
        self.back(pause);
    }

    /// It was given up: nobody gets it again.
    pub(super) fn give_up(mut self) {
        self.waiting = None;
        self.queue.counters.record_given_up();
        self.queue.settle();
    }

    fn back(&mut self, pause: Duration) {
        if let Some(Waiting { message, attempt }) = self.waiting.take() {
            self.queue.again(Waiting { message, attempt: attempt.saturating_add(1) }, pause);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.back(Duration::ZERO);
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.waiting.as_ref().map(|waiting| &waiting.message.subject);
        f.debug_struct("Delivery").field("subject", &subject).field("attempt", &self.attempt()).finish()
    }
}
