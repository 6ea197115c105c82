//! Events within one process: the queues of all groups.

mod pending;
mod queue;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use throughline::{Code, Context, Error};

use super::counters::GroupCounters;
use super::medium::{Medium, Member, Receipt, Settlement, Taken};
use super::message::Message;
use pending::Pending;
use queue::{Queue, Waiting};

/// What a group within the process holds at most.
///
/// A message counts until it is handled.
///
/// # Examples
/// ```
/// use throughline::{Code, Context};
/// use throughline_transport::{Events, GroupLimits, Message};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let events = Events::in_process_with(GroupLimits { bytes: 1024, ..GroupLimits::default() });
/// let error = events.publish(&Context::background(), Message::new("s", vec![0; 2048])).await.unwrap_err();
/// assert_eq!(error.code(), Code::ResourceExhausted);
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// The number of messages; default: 1,024. 0 counts as 1.
    pub messages: usize,
    /// The bytes of payloads and headers; default: 16 MiB. More than 4 GiB counts as 4 GiB.
    pub bytes: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        GroupLimits { messages: 1024, bytes: 16 * 1024 * 1024 }
    }
}

/// The message bus of a process.
pub(super) struct InProcess {
    groups: Arc<Mutex<Groups>>,
    pending: Arc<Pending>,
    limits: GroupLimits,
}

#[derive(Default)]
struct Groups {
    /// The queues, by subject and group name.
    queues: HashMap<String, HashMap<String, Arc<Queue>>>,
    is_closed: bool,
}

impl InProcess {
    pub(super) fn new(limits: GroupLimits) -> Self {
        InProcess { groups: Arc::default(), pending: Arc::default(), limits }
    }

    async fn offer(&self, message: Message) -> Result<(), Error> {
        let size = message.size();
        let max = self.limits.bytes;
        let Some(permits) = u32::try_from(size).ok().filter(|_| size <= max) else {
            let text = format!("a message of {size} bytes, and a group holds at most {max} bytes");
            return Err(Error::new(Code::ResourceExhausted, text).with_retryable(false));
        };
        let (mut offered, queues) = {
            let groups = lock(&self.groups);
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
            (self.pending.offer(queues.len()), queues)
        };
        for queue in queues {
            queue.push(message.clone(), permits).await;
            offered.record_taken();
        }
        Ok(())
    }

    fn join(&self, subject: &str, group: &str) -> InProcessMember {
        let mut groups = lock(&self.groups);
        let is_closed = groups.is_closed;
        let queue = groups.queues.entry(subject.to_owned()).or_default().entry(group.to_owned());
        let queue = queue.or_insert_with(|| Arc::new(Queue::new(self.limits, is_closed, Arc::clone(&self.pending))));
        let queue = Arc::clone(queue);
        queue.join();
        drop(groups);
        let groups = Arc::clone(&self.groups);
        InProcessMember { groups, subject: subject.to_owned(), group: group.to_owned(), queue }
    }
}

impl Medium for InProcess {
    fn system(&self) -> &'static str {
        "throughline"
    }

    fn publish<'a>(&'a self, _ctx: &'a Context, message: Message) -> BoxFuture<'a, Result<(), Error>> {
        self.offer(message).boxed()
    }

    fn subscribe<'a>(
        &'a self,
        _ctx: &'a Context,
        subject: &'a str,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Member>, Error>> {
        let member: Box<dyn Member> = Box::new(self.join(subject, group));
        ready(Ok(member)).boxed()
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        let close = || {
            let mut groups = lock(&self.groups);
            if !self.pending.is_zero() {
                return false;
            }
            groups.is_closed = true;
            groups.queues.values().flat_map(HashMap::values).for_each(|queue| queue.close());
            true
        };
        self.pending.wait_until(close).boxed()
    }
}

struct InProcessMember {
    groups: Arc<Mutex<Groups>>,
    subject: String,
    group: String,
    queue: Arc<Queue>,
}

impl Member for InProcessMember {
    fn next(&self, _capacity: usize) -> BoxFuture<'_, Option<Taken>> {
        async {
            let Waiting { message, attempt, permits } = self.queue.take().await?;
            let receipt = Box::new(InProcessReceipt { queue: Arc::clone(&self.queue), permits });
            Some(Taken { message, attempt, receipt })
        }
        .boxed()
    }

    fn counters(&self) -> &GroupCounters {
        &self.queue.counters
    }
}

impl Drop for InProcessMember {
    /// The last member removes the group and its messages.
    fn drop(&mut self) {
        let mut groups = lock(&self.groups);
        let Some(discarded) = self.queue.leave() else { return };
        if let Some(of_subject) = groups.queues.get_mut(&self.subject) {
            of_subject.remove(&self.group);
            if of_subject.is_empty() {
                groups.queues.remove(&self.subject);
            }
        }
        drop(groups);
        self.queue.discard(discarded);
    }
}

struct InProcessReceipt {
    queue: Arc<Queue>,
    permits: u32,
}

impl Receipt for InProcessReceipt {
    fn settle(self: Box<Self>, message: Message, attempt: u32, settlement: Settlement) {
        match settlement {
            Settlement::Acknowledge | Settlement::GiveUp => self.queue.record_handled(self.permits),
            Settlement::Redeliver(pause) => {
                let attempt = attempt.saturating_add(1);
                self.queue.put(Waiting { message, attempt, permits: self.permits }, pause);
            }
        }
    }
}

fn lock(groups: &Mutex<Groups>) -> MutexGuard<'_, Groups> {
    // Nothing panics under the lock.
    groups.lock().unwrap_or_else(PoisonError::into_inner)
}
