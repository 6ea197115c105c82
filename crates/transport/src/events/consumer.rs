//! Dealing with messages: each in a context and a span of its own.

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use throughline::propagation::{WireKey, values};
use throughline::trace::{SpanKind, Status, Tracer};
use throughline::{Cause, Code, Context, Error, FutureExt, Propagator, Span, SpanContext};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::backoff::Backoff;
use super::dead_letter::{dead_letter, is_dead_letter};
use super::{Delivery, Events, Message, Subscription, span};

/// How a [`Subscription`] is served.
#[derive(Clone)]
#[must_use]
pub struct Consumer {
    base: Context,
    propagator: Propagator,
    keys: Arc<[&'static dyn WireKey]>,
    tracer: Option<Tracer>,
    timeout: Duration,
    concurrency: usize,
    max_attempts: u32,
    backoff: Backoff,
    dead_letter: Option<String>,
}

impl Consumer {
    /// Each message gets a context below `base`: when that is cancelled, the serving ends.
    pub fn new(base: &Context) -> Self {
        Consumer {
            base: base.clone(),
            propagator: Propagator::current_default(),
            keys: Arc::default(),
            tracer: None,
            timeout: Duration::from_secs(30),
            concurrency: 16,
            max_attempts: 5,
            backoff: Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(60) },
            dead_letter: None,
        }
    }

    /// The formats in which messages tell of their trace, as for [`Events::propagator`](super::Events::propagator).
    pub fn propagator(mut self, propagator: Propagator) -> Self {
        self.propagator = propagator;
        self
    }

    /// The values that messages may bring, by their keys, as for
    /// [`ContextLayer::keys`](throughline::ContextLayer::keys). Default: none but the principal.
    pub fn keys(mut self, keys: &[&'static dyn WireKey]) -> Self {
        self.keys = keys.into();
        self
    }

    /// Where the spans go; default: where the base's go.
    pub fn tracer(mut self, tracer: Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// How long one attempt may take; default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many messages are dealt with at a time; default: 16.
    pub fn concurrency(mut self, messages: NonZeroUsize) -> Self {
        self.concurrency = messages.get();
        self
    }

    /// After how many failed deliveries a message is given up; default: 5.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// The pauses between the attempts at a message; default: 500 ms, doubling up to 60 s.
    ///
    /// The pause after the first failed attempt is `first`, and each further one twice as long, up
    /// to `longest`. A random part of up to half of it comes on top. A pause is never shorter than
    /// the error's [`retry_after`](Error::retry_after), which `longest` does not limit.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = Backoff { first, longest };
        self
    }

    /// The subject of messages that are given up; default: `dead-letter.` and the message's own.
    ///
    /// Such a message keeps its headers and its payload and goes to the groups that are subscribed to
    /// this subject. These headers come on top, percent-encoded where they are not printable ASCII:
    ///
    /// | header | value |
    /// |---|---|
    /// | `dead-letter-subject` | the subject that it was given up under |
    /// | `dead-letter-group` | the group that gave it up |
    /// | `dead-letter-attempts` | the number of deliveries |
    /// | `dead-letter-code` | the [`Code`] of the last error |
    /// | `dead-letter-message` | the error's message, at most 1,024 bytes; never its source |
    /// | `dead-letter-origin` | the service in which the error began, if it came from another one |
    ///
    /// A message that has the first of these headers already is not published again.
    ///
    /// # Examples
    /// ```
    /// use throughline::{Code, Context, Error};
    /// use throughline_transport::{Consumer, Events, Message};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let events = Events::in_process();
    /// let cards = events.subscribe("card.ordered", "printer");
    /// let failed = events.subscribe("dead-letter.card.ordered", "support");
    /// tokio::spawn(cards.serve(Consumer::new(&Context::background()), |_ctx, _message| async {
    ///     Err(Error::new(Code::InvalidArgument, "no such card").with_retryable(false))
    /// }));
    ///
    /// events.publish(&Context::background(), Message::new("card.ordered", "7")).await?;
    /// let delivery = failed.next().await.expect("it was given up");
    /// assert_eq!(delivery.message().headers["dead-letter-message"], "no such card");
    /// assert_eq!(delivery.message().payload, "7");
    /// # delivery.acknowledge();
    /// # Ok::<(), Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dead_letter(mut self, subject: impl Into<String>) -> Self {
        self.dead_letter = Some(subject.into());
        self
    }

    /// Handles one delivery. `permit` is given back when the handler has ended.
    async fn handle<F, Fut>(
        self: Arc<Self>,
        group: Arc<Group>,
        delivery: Delivery,
        handler: Arc<F>,
        permit: OwnedSemaphorePermit,
    ) where
        F: Fn(Context, Message) -> Fut,
        Fut: Future<Output = Result<(), Error>>,
    {
        let limits = self.base.with_timeout(self.timeout).with_cancel();
        let span = self.span(&limits, &delivery);
        let ctx = span.context().clone();
        // After a panic only the delivery and `limits` are used, which no panic leaves half-changed.
        let attempt = AssertUnwindSafe(attempt(span, delivery.message().clone(), handler)).catch_unwind();
        let result = match attempt.await {
            Ok(result) => {
                limits.cancel_with(Cause::RequestFinished);
                result
            }
            Err(_) => {
                limits.cancel_with(Cause::Panicked);
                Err(Error::new(Code::Internal, "the handler panicked"))
            }
        };
        drop(permit);
        // Last: `Events::drain` returns after this, and finds the span ended.
        match result {
            Ok(()) => delivery.acknowledge(),
            Err(error) if error.retryable() == Some(false) => self.give_up(&group, &ctx, delivery, &error).await,
            // The consumer ends. The message is fine: another member of the group may take it.
            Err(_) if self.base.is_done() => delivery.redeliver(),
            Err(error) if delivery.attempt() < self.max_attempts => {
                let pause = self.backoff.pause(delivery.attempt(), error.retry_after());
                delivery.redeliver_after(pause);
            }
            Err(error) => self.give_up(&group, &ctx, delivery, &error).await,
        }
    }

    /// The span of a delivery: it continues the publisher's trace. `limits` has nothing of the
    /// publisher's deadline.
    fn span(&self, limits: &Context, delivery: &Delivery) -> Span {
        let message = delivery.message();
        let ctx = self.propagator.extract(limits, &message.headers);
        let ctx = values::extract(&ctx, &self.keys, &message.headers);
        let mut builder = span(&ctx, "process", message).kind(SpanKind::Consumer);
        if let Some(tracer) = &self.tracer {
            builder = builder.tracer(tracer);
        }
        if !ctx.span_context().is_some_and(SpanContext::is_remote) {
            // The base's own span is not what asked for this.
            builder = builder.new_root();
        }
        if let Some(remaining) = limits.remaining() {
            builder = builder.attribute("throughline.deadline.remaining_ms", remaining.as_micros() as f64 / 1e3);
        }
        if delivery.attempt() > 1 {
            builder = builder.attribute("messaging.message.delivery_attempt", delivery.attempt());
        }
        builder.start().abandoned_if_dropped()
    }

    /// Publishes the message as a dead letter, counts and reports it.
    async fn give_up(&self, group: &Group, ctx: &Context, delivery: Delivery, error: &Error) {
        let (message, attempts) = (delivery.message(), delivery.attempt());
        let to = if is_dead_letter(message) {
            // It ends here: published again, a message could go in circles.
            None
        } else {
            let default = || format!("dead-letter.{}", message.subject);
            let to = self.dead_letter.clone().unwrap_or_else(default);
            // Also when the consumer's base is done, and never longer than an attempt.
            let ctx = ctx.detach().with_timeout(self.timeout);
            let letter = dead_letter(to.clone(), message, &group.name, attempts, error);
            group.events.publish(&ctx, letter).await.is_ok().then_some(to)
        };
        ctx.enter(|| {
            tracing::error!(
                messaging.destination.name = message.subject,
                messaging.consumer.group.name = group.name,
                messaging.message.delivery_attempt = attempts,
                dead_letter = to.as_deref().unwrap_or("none"),
                error = error as &(dyn std::error::Error + 'static),
                "a message was given up"
            );
        });
        delivery.give_up();
    }
}

/// Where a consumer's messages come from.
struct Group {
    events: Events,
    name: String,
}

/// Runs the handler under the span, and records how it ended.
async fn attempt<F, Fut>(span: Span, message: Message, handler: Arc<F>) -> Result<(), Error>
where
    F: Fn(Context, Message) -> Fut,
    Fut: Future<Output = Result<(), Error>>,
{
    let work = handler(span.context().clone(), message).with_context(span.context());
    let result = span.run(work).await.unwrap_or_else(|_| Err(Error::from_context(&span)));
    if let Err(error) = &result {
        span.record_returned(error);
        span.set_attribute("error.type", error.code().as_str());
        span.set_status(Status::Error(error.message().to_owned().into()));
    }
    span.end();
    result
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("base", &self.base)
            .field("timeout", &self.timeout)
            .field("concurrency", &self.concurrency)
            .field("max_attempts", &self.max_attempts)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    /// Deals with messages, several at a time, until the events are drained or the consumer's base
    /// is done.
    ///
    /// For each, `handler` gets a context with a CONSUMER span and the consumer's timeout, and the
    /// message, which is acknowledged when it succeeds. When it has ended its context is cancelled
    /// with [`Cause::RequestFinished`], and when it panics with [`Cause::Panicked`].
    ///
    /// What happens when the handler fails, panics or takes too long:
    /// - The message is delivered again after a [pause](Consumer::backoff), during which other
    ///   messages are handled.
    /// - After the [last attempt](Consumer::max_attempts), and at once when the error is not
    ///   [`retryable`](Error::retryable), it is given up. It goes to the [dead-letter
    ///   subject](Consumer::dead_letter), is [counted](super::GroupCounters::given_up), and
    ///   `tracing` gets an event at the level ERROR.
    /// - When the consumer's base is done, the message goes back to the group, and is not given up
    ///   for it.
    ///
    /// # Cancellation safety
    /// Dropping the future takes no more messages; those at hand go on.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn serve<F, Fut>(self, consumer: Consumer, handler: F)
    where
        F: Fn(Context, Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let (consumer, handler) = (Arc::new(consumer), Arc::new(handler));
        let group = Arc::new(Group { events: self.events().clone(), name: self.group().to_owned() });
        let places = Arc::new(Semaphore::new(consumer.concurrency));
        let base = consumer.base.clone();
        let work = async {
            // The semaphore is never closed.
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                let Some(delivery) = self.next().await else { return };
                let (consumer, group) = (Arc::clone(&consumer), Arc::clone(&group));
                tokio::spawn(consumer.handle(group, delivery, Arc::clone(&handler), place));
            }
        };
        // When the base is done nobody is told: the messages that wait are somebody else's.
        let _ = base.run(work).await;
    }
}
