//! Publish and subscribe: messages, and the groups that receive them.
//!
//! # Glossary
//! - **Subject**: the name that a message is published under.
//! - **Group**: the subscribers that share the messages of a subject. Each message goes to one
//!   member of each group.
//! - **Delivery**: one attempt to handle a message.
//! - **Handled**: acknowledged, or given up.
//! - **Given up**: not delivered again, after the last attempt or an error that is not retryable.
//! - **Dead letter**: the copy of a message that was given up, published under another subject.
//! - **Pending**: published, and not yet handled by every group.

mod backoff;
mod consumer;
mod counters;
mod handle;
mod in_process;
mod info;
mod medium;
mod message;
#[cfg(feature = "nats")]
mod nats;
mod outcome;
mod producer;
mod serve;
mod subscription;

use std::fmt;
use std::sync::Arc;

use throughline::{Context, Error, Propagator};

pub use consumer::Consumer;
pub use counters::GroupCounters;
pub use in_process::GroupLimits;
pub use info::MessageInfo;
pub use message::Message;
#[cfg(feature = "nats")]
pub use nats::NatsEvents;
pub use outcome::{DeadLetter, Outcome};
pub use producer::Producer;
pub use subscription::{Delivery, Subscription};

use in_process::InProcess;
use medium::Medium;
use message::check_subject;

/// A message bus to publish and subscribe to: within the process, or over NATS JetStream.
///
/// Cloning costs one reference count.
///
/// A message goes to every *group* that is subscribed to its subject, and to one subscriber in each
/// group. It is delivered at least once: a message that is not acknowledged is delivered again.
///
/// A message carries the trace, the baggage, the values of wire keys and the principal. It carries
/// neither the deadline nor the cancellation: a consumer outlives the request that published the
/// message, and has its own deadline.
///
/// # Examples
/// ```
/// use throughline::{Code, Context, Error};
/// use throughline_transport::{Consumer, Events, Message};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let (events, ctx) = (Events::in_process(), Context::background());
/// let cards = events.subscribe(&ctx, "card.ordered", "printer").await?;
/// let (sender, mut printed) = tokio::sync::mpsc::channel(1);
/// let consumer = Consumer::new(&ctx);
/// tokio::spawn(cards.serve(consumer, move |_ctx, message| {
///     let sender = sender.clone();
///     async move { sender.send(message.payload).await.map_err(|e| Error::wrap(Code::Unavailable, e)) }
/// }));
///
/// events.publish(&ctx, Message::new("card.ordered", "7")).await?;
/// assert_eq!(printed.recv().await.expect("it was printed"), "7");
/// events.drain().await;
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Events {
    medium: Arc<dyn Medium>,
    producer: Producer,
}

impl Events {
    /// Creates a message bus within this process, with the default [`GroupLimits`].
    ///
    /// A group without subscribers keeps no messages.
    pub fn in_process() -> Self {
        Events::in_process_with(GroupLimits::default())
    }

    /// Creates a message bus within this process, with limits for each group.
    pub fn in_process_with(limits: GroupLimits) -> Self {
        Events { medium: Arc::new(InProcess::new(limits)), producer: Producer::new() }
    }

    /// Sets the propagation formats for messages published through this value and its clones.
    ///
    /// Default: the formats in `OTEL_PROPAGATORS`, or else W3C Trace Context and baggage.
    #[must_use]
    pub fn propagator(mut self, propagator: Propagator) -> Self {
        self.producer = self.producer.propagator(propagator);
        self
    }

    /// Publishes `message` to every group that is subscribed to its subject.
    ///
    /// Over NATS, it returns when the broker has stored the message.
    ///
    /// Within the process, it returns when every group has taken the message. If no group is
    /// subscribed, the message is discarded. If a group is [full](GroupLimits), `publish` waits
    /// until the group has capacity, or `ctx` is done. Set a deadline to limit the wait.
    ///
    /// A PRODUCER span covers the call. The span and the other wire values of `ctx` are injected
    /// into the message. They replace existing headers.
    ///
    /// # Errors
    /// - `CANCELLED` or `DEADLINE_EXCEEDED`: `ctx` is done before every group has taken the
    ///   message. Some groups may have taken it.
    /// - `RESOURCE_EXHAUSTED`, not retryable: the message is larger than all that a group holds. It
    ///   is returned at once.
    /// - `INVALID_ARGUMENT`: the [subject](Message::subject) is malformed.
    /// - `UNAVAILABLE`: the events are closed ([drained](Self::drain)), or the broker does not
    ///   acknowledge the message.
    ///
    /// # Cancellation safety
    /// If the future is dropped before it completes, some groups may have taken the message. The
    /// span ends with the cause `abandoned`.
    pub async fn publish(&self, ctx: &Context, mut message: Message) -> Result<(), Error> {
        let headers = std::mem::take(&mut message.headers);
        let info =
            MessageInfo::new(self.medium.system(), message.subject.clone()).body_size(message.payload.len() as u64);
        let send = |headers| async {
            check_subject(&message.subject)?;
            self.medium.publish(ctx, Message { headers, ..message }).await
        };
        self.producer.send(ctx, info, headers, send).await
    }

    /// Subscribes to `subject` as a member of `group`, from now on.
    ///
    /// Each message goes to one member of the group. Within the process, this does not wait.
    ///
    /// # Errors
    /// - `INVALID_ARGUMENT`: the [subject](Message::subject) is malformed.
    /// - `CANCELLED` or `DEADLINE_EXCEEDED`: `ctx` is done. The subscription does not depend on
    ///   `ctx` later.
    pub async fn subscribe(
        &self,
        ctx: &Context,
        subject: impl Into<String>,
        group: impl Into<String>,
    ) -> Result<Subscription, Error> {
        let (subject, group) = (subject.into(), group.into());
        check_subject(&subject)?;
        let member = ctx.run(self.medium.subscribe(ctx, &subject, &group)).await;
        let member = member.map_err(|_| Error::from_context(ctx))??;
        Ok(Subscription { events: self.clone(), subject, group, member })
    }

    /// Waits until messages are handled, then closes the events.
    ///
    /// Within the process, it waits until every published message is handled:
    /// - A message is handled when it is acknowledged or given up.
    /// - `drain` also waits for messages that are published while it waits, for example by
    ///   handlers.
    /// - `drain` also waits for messages that pause before their next attempt.
    /// - Once closed, `publish` fails and subscriptions end.
    ///
    /// Over NATS, other processes share the messages:
    /// - Subscriptions of this connection end at once. They take no more messages.
    /// - `drain` waits for the messages that this process handles, and for calls of `publish`.
    ///   Handlers can still publish.
    /// - All other messages stay at the broker.
    ///
    /// # Cancellation safety
    /// If the future is dropped, nothing is closed. Over NATS, the subscriptions have ended.
    pub async fn drain(&self) {
        self.medium.drain().await;
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("system", &self.medium.system()).finish_non_exhaustive()
    }
}
