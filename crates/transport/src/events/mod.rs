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
mod dead_letter;
mod queue;
mod subscription;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::HeaderMap;
use throughline::trace::{SpanKind, Status};
use throughline::{Code, Context, Error, Propagator};

pub use consumer::Consumer;
pub use counters::GroupCounters;
pub use subscription::{Delivery, Subscription};

use queue::{Pending, Queue};

/// A message bus to publish and subscribe to. Cloning costs one reference count.
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
/// let events = Events::in_process();
/// let cards = events.subscribe("card.ordered", "printer");
/// let (sender, mut printed) = tokio::sync::mpsc::channel(1);
/// let consumer = Consumer::new(&Context::background());
/// tokio::spawn(cards.serve(consumer, move |_ctx, message| {
///     let sender = sender.clone();
///     async move { sender.send(message.payload).await.map_err(|e| Error::wrap(Code::Unavailable, e)) }
/// }));
///
/// events.publish(&Context::background(), Message::new("card.ordered", "7")).await?;
/// assert_eq!(printed.recv().await.expect("it was printed"), "7");
/// events.drain().await;
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Events {
    bus: Arc<Bus>,
    propagator: Propagator,
}

struct Bus {
    groups: Mutex<Groups>,
    pending: Arc<Pending>,
    capacity: usize,
}

#[derive(Default)]
struct Groups {
    /// The queues, by subject and group name.
    queues: HashMap<String, HashMap<String, Arc<Queue>>>,
    is_closed: bool,
}

/// A message: a subject, headers and a payload.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Message {
    /// The subject, such as `transaction.created`.
    pub subject: String,
    /// The headers: the publisher's trace, other wire values, and headers of the application.
    pub headers: HeaderMap,
    /// The payload.
    pub payload: Bytes,
}

impl Message {
    /// Creates a message without headers.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Message { subject: subject.into(), headers: HeaderMap::new(), payload: payload.into() }
    }
}

impl Events {
    /// Creates a message bus within this process.
    ///
    /// Each group keeps up to 1,024 messages in memory. A group without subscribers keeps none.
    pub fn in_process() -> Self {
        let bus = Bus { groups: Mutex::default(), pending: Arc::default(), capacity: 1024 };
        Events { bus: Arc::new(bus), propagator: Propagator::current_default() }
    }

    /// Sets the propagation formats for messages published through this value and its clones.
    ///
    /// Default: the formats in `OTEL_PROPAGATORS`, or else W3C Trace Context and baggage.
    #[must_use]
    pub fn propagator(mut self, propagator: Propagator) -> Self {
        self.propagator = propagator;
        self
    }

    /// Publishes `message` to every group that is subscribed to its subject now.
    ///
    /// Returns when every group has taken the message. If no group is subscribed, the message is
    /// discarded. If the queue of a group is full, `publish` waits.
    ///
    /// A PRODUCER span covers the call. The span and the other wire values of `ctx` are injected
    /// into the message. They replace existing headers.
    ///
    /// # Errors
    /// - `CANCELLED` or `DEADLINE_EXCEEDED`: `ctx` is done before every group has taken the
    ///   message. Some groups may have taken it.
    /// - `UNAVAILABLE`: the events are closed ([drained](Self::drain)).
    ///
    /// # Cancellation safety
    /// If the future is dropped before it completes, some groups may have taken the message. The
    /// span ends with the cause `abandoned`.
    pub async fn publish(&self, ctx: &Context, mut message: Message) -> Result<(), Error> {
        let span = span(ctx, "send", &message).kind(SpanKind::Producer).start().abandoned_if_dropped();
        self.propagator.inject(&span, &mut message.headers);
        let result = match span.run(self.offer(message)).await {
            Ok(result) => result,
            Err(_) => Err(Error::from_context(&span)),
        };
        if let Err(error) = &result {
            span.set_attribute("error.type", error.code().as_str());
            span.set_status(Status::Error(error.message().to_owned().into()));
        }
        span.end();
        result
    }

    async fn offer(&self, message: Message) -> Result<(), Error> {
        let (mut offered, queues) = {
            let groups = self.lock();
            if groups.is_closed {
                return Err(Error::new(Code::Unavailable, "the events are closed"));
            }
            let queues: Vec<_> = groups
                .queues
                .get(&message.subject)
                .map(|groups| groups.values().cloned().collect())
                .unwrap_or_default();
            // Under the lock: `drain` either counts these messages, or has closed the events
            // before.
            (self.bus.pending.offer(queues.len()), queues)
        };
        for queue in queues {
            queue.push(message.clone()).await;
            offered.record_taken();
        }
        Ok(())
    }

    /// Subscribes to `subject` as a member of `group`, from now on.
    ///
    /// Each message goes to one member of the group.
    pub fn subscribe(&self, subject: impl Into<String>, group: impl Into<String>) -> Subscription {
        let (subject, group) = (subject.into(), group.into());
        let mut groups = self.lock();
        let is_closed = groups.is_closed;
        let queue = groups.queues.entry(subject.clone()).or_default().entry(group.clone());
        let queue = Arc::clone(
            queue.or_insert_with(|| Arc::new(Queue::new(self.bus.capacity, is_closed, Arc::clone(&self.bus.pending)))),
        );
        queue.join();
        drop(groups);
        Subscription::new(self.clone(), subject, group, queue)
    }

    /// Waits until every published message is handled, then closes the events.
    ///
    /// - A message is handled when it is acknowledged or given up.
    /// - `drain` also waits for messages that are published while it waits, for example by
    ///   handlers.
    /// - `drain` also waits for messages that pause before their next attempt.
    /// - Once closed, `publish` fails and subscriptions end.
    ///
    /// # Cancellation safety
    /// If the future is dropped, nothing is closed.
    pub async fn drain(&self) {
        let close = || {
            let mut groups = self.lock();
            if !self.bus.pending.is_zero() {
                return false;
            }
            groups.is_closed = true;
            groups.queues.values().flat_map(HashMap::values).for_each(|queue| queue.close());
            true
        };
        self.bus.pending.wait_until(close).await;
    }

    /// Removes a member from its group. The last member removes the group and its messages.
    fn leave(&self, subject: &str, group: &str, queue: &Arc<Queue>) {
        let mut groups = self.lock();
        if !queue.leave() {
            return;
        }
        if let Some(of_subject) = groups.queues.get_mut(subject) {
            of_subject.remove(group);
            if of_subject.is_empty() {
                groups.queues.remove(subject);
            }
        }
        drop(groups);
    }

    fn lock(&self) -> MutexGuard<'_, Groups> {
        // Nothing panics under the lock.
        self.bus.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.lock();
        f.debug_struct("Events").field("subjects", &groups.queues.len()).field("is_closed", &groups.is_closed).finish()
    }
}

/// Starts to build a span as in the semantic conventions 1.45, "Messaging spans".
fn span<'a>(ctx: &'a Context, operation: &'static str, message: &Message) -> throughline::trace::SpanBuilder<'a> {
    ctx.span(format!("{operation} {}", message.subject))
        .attribute("messaging.system", "throughline")
        .attribute("messaging.operation.name", operation)
        .attribute("messaging.operation.type", operation)
        .attribute("messaging.destination.name", message.subject.clone())
        .attribute("messaging.message.body.size", message.payload.len() as u64)
}
