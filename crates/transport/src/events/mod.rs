//! Publish and subscribe.

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

/// Where events are published and subscribed to. Cloning it costs one reference count.
///
/// A message goes to every *group* that is subscribed to its subject, and there to one subscriber. It is delivered at least once: what
/// is not acknowledged is delivered again. It carries the trace, the baggage, the values of keys that are declared for the wire and the
/// principal, and neither deadline nor cancellation: what a consumer does outlives the request that published, and has a deadline of its own.
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
    /// By subject and name.
    queues: HashMap<String, HashMap<String, Arc<Queue>>>,
    is_closed: bool,
}

/// What is published: headers and a payload, under a subject.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Message {
    /// What it is about, as `transaction.created`.
    pub subject: String,
    /// The trace, and whatever else.
    pub headers: HeaderMap,
    /// What it says.
    pub payload: Bytes,
}

impl Message {
    /// A message without headers.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Message { subject: subject.into(), headers: HeaderMap::new(), payload: payload.into() }
    }
}

impl Events {
    /// Within this process: each group keeps up to 1,024 messages in memory, and none when it has no subscriber.
    pub fn in_process() -> Self {
        let bus = Bus { groups: Mutex::default(), pending: Arc::default(), capacity: 1024 };
        Events { bus: Arc::new(bus), propagator: Propagator::current_default() }
    }

    /// The formats in which messages tell of their trace that are published through this value and its clones; default: those that
    /// `OTEL_PROPAGATORS` names, or W3C's, and baggage.
    #[must_use]
    pub fn propagator(mut self, propagator: Propagator) -> Self {
        self.propagator = propagator;
        self
    }

    /// Publishes `message`: it has been taken by every group that is subscribed to its subject now, and by none if there is none.
    ///
    /// A PRODUCER span covers it. Its identity, and what else the context has for the wire, goes with the message in place of whatever that
    /// had of it. Where a group's room is used
    /// up it waits.
    ///
    /// # Errors
    /// The context is done before every group has taken it (some may have): `CANCELLED`, `DEADLINE_EXCEEDED`. They are closed
    /// ([drained](Self::drain)): `UNAVAILABLE`.
    ///
    /// # Cancellation safety
    /// Dropped half-way, some groups may have taken the message. The span has the cause
    /// `abandoned`.
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
            // Under the lock: who drains sees them, or has closed.
            (self.bus.pending.offer(queues.len()), queues)
        };
        for queue in queues {
            queue.push(message.clone()).await;
            offered.taken();
        }
        Ok(())
    }

    /// Subscribes to `subject` as a member of `group`: of each message one member gets it. From now on.
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

    /// Returns when all that was published has been dealt with (acknowledged, or given up), and
    /// what was published in dealing with it; from then on nothing is taken any more, and
    /// subscriptions end.
    ///
    /// Who goes on publishing keeps it waiting. So does a message that pauses before its next
    /// attempt.
    ///
    /// # Cancellation safety
    /// Dropped, it stops waiting, and nothing is closed.
    pub async fn drain(&self) {
        let close = || {
            let mut groups = self.lock();
            if !self.bus.pending.is_none() {
                return false;
            }
            groups.is_closed = true;
            groups.queues.values().flat_map(HashMap::values).for_each(|queue| queue.close());
            true
        };
        self.bus.pending.none(close).await;
    }

    /// A group without members keeps nothing.
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

/// A span of the semantic conventions 1.45, "Messaging spans".
fn span<'a>(ctx: &'a Context, operation: &'static str, message: &Message) -> throughline::trace::SpanBuilder<'a> {
    ctx.span(format!("{operation} {}", message.subject))
        .attribute("messaging.system", "throughline")
        .attribute("messaging.operation.name", operation)
        .attribute("messaging.operation.type", operation)
        .attribute("messaging.destination.name", message.subject.clone())
        .attribute("messaging.message.body.size", message.payload.len() as u64)
}
