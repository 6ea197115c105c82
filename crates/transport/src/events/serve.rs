//! Subscriptions that handle their messages with a consumer.

use std::sync::Arc;
use std::time::Duration;

use throughline::{Context, Error};
use throughline_core::{Lifecycle, RunningWork, Work};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Events;
use super::consumer::Consumer;
use super::info::MessageInfo;
use super::message::Message;
use super::outcome::{DeadLetter, Outcome};
use super::subscription::{Delivery, Subscription};

impl Subscription {
    /// Handles messages until the events are drained or the consumer's base context is done.
    ///
    /// Several messages are handled [at the same time](Consumer::concurrency). For each message:
    /// 1. `handler` is called with the message and a context, as in [`Consumer::handle`].
    /// 2. If the handler succeeds, the message is acknowledged.
    ///
    /// If the handler fails, panics or takes too long:
    /// - The message is delivered again after a [pause](Consumer::backoff). Other messages are
    ///   handled during the pause.
    /// - The message is given up after the [last attempt](Consumer::max_attempts), or at once if
    ///   the error is not [`retryable`](Error::retryable). It is published to the [dead-letter
    ///   subject](Consumer::dead_letter), [counted](super::GroupCounters::given_up), and logged to
    ///   `tracing` at the level ERROR. If the dead letter cannot be published, the message is
    ///   delivered again after a pause.
    /// - If the consumer's base context is done, the message goes back to the group and is not
    ///   given up, unless the error is not retryable.
    ///
    /// # Cancellation safety
    /// If the future is dropped, it takes no more messages. Messages that are being handled
    /// continue.
    ///
    /// # Panics
    /// Panics outside a tokio runtime with time enabled.
    pub async fn serve<F, Fut>(self, consumer: Consumer, handler: F)
    where
        F: Fn(Context, Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let semaphore = Arc::new(Semaphore::new(consumer.concurrency));
        let base = consumer.base.clone();
        let group = Arc::new(Group { events: self.events.clone(), name: self.group.clone(), consumer, handler });
        let work = async {
            // The semaphore is never closed.
            while let Ok(permit) = Arc::clone(&semaphore).acquire_owned().await {
                let Some(delivery) = self.next_of(1 + semaphore.available_permits()).await else { return };
                let counted = Lifecycle::of(&base).map(|lifecycle| lifecycle.start(Work::Request));
                tokio::spawn(Arc::clone(&group).handle(delivery, permit, counted));
            }
        };
        // No error if the base context is done: other members of the group take the waiting
        // messages.
        let _ = base.run(work).await;
    }
}

/// The group that messages are taken from, and what handles them.
struct Group<F> {
    events: Events,
    name: String,
    consumer: Consumer,
    handler: F,
}

impl<F, Fut> Group<F>
where
    F: Fn(Context, Message) -> Fut,
    Fut: Future<Output = Result<(), Error>>,
{
    /// Handles one delivery. Releases `permit` when the handler has ended.
    ///
    /// `_counted` is dropped when all is done.
    async fn handle(self: Arc<Self>, delivery: Delivery, permit: OwnedSemaphorePermit, _counted: Option<RunningWork>) {
        let message = delivery.message().clone();
        let info = MessageInfo::new(self.events.medium.system(), message.subject.clone())
            .group(self.name.clone())
            .body_size(message.payload.len() as u64)
            .attempt(delivery.attempt());
        let headers = message.headers.clone();
        let outcome = self.consumer.attempt(info, &headers, |ctx| (self.handler)(ctx, message)).await;
        drop(permit);
        // This comes last: `Events::drain` may return now, and the span has already ended.
        match outcome {
            Outcome::Acknowledge => delivery.acknowledge(),
            Outcome::Redeliver(pause) => delivery.redeliver_after(pause),
            Outcome::GiveUp(letter) => match self.publish(delivery.message(), &letter).await {
                Ok(()) => delivery.give_up(),
                Err(error) => {
                    letter.context().enter(|| {
                        tracing::error!(
                            dead_letter = letter.destination().unwrap_or("none"),
                            error = &error as &(dyn std::error::Error + 'static),
                            "a dead letter was not published: its message is delivered again"
                        );
                    });
                    let pause = self.consumer.backoff.pause(delivery.attempt(), error.retry_after());
                    delivery.redeliver_after(pause.max(MIN_PAUSE));
                }
            },
        }
    }

    /// Publishes the message as a dead letter, if it is not one already.
    async fn publish(&self, message: &Message, letter: &DeadLetter) -> Result<(), Error> {
        let Some(destination) = letter.destination() else { return Ok(()) };
        let mut copy = Message { subject: destination.to_owned(), ..message.clone() };
        letter.inject(&mut copy.headers);
        self.events.publish(letter.context(), copy).await
    }
}

/// The minimum pause after a dead letter could not be published.
///
/// The handler is called again for nothing, so a consumer without pauses must not repeat that at
/// once.
const MIN_PAUSE: Duration = Duration::from_millis(100);
