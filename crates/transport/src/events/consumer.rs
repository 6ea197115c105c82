//! Consumers: they handle each message in its own context and span.

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use throughline::propagation::{WireKey, values};
use throughline::trace::{SpanKind, Status, Tracer};
use throughline::{Cause, Code, Context, Error, FutureExt, Propagator, Span, SpanContext};
use throughline_core::{Lifecycle, RunningWork, Work};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::backoff::Backoff;
use super::dead_letter::{dead_letter, is_dead_letter};
use super::{Delivery, Events, Message, Subscription, span};

/// The settings for [`Subscription::serve`].
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
    /// Creates a consumer with default settings.
    ///
    /// The context of each message is a child of `base`. When `base` is cancelled,
    /// [`serve`](Subscription::serve) returns.
    ///
    /// If `base` is the context of a [`Shutdown`](throughline::Shutdown), the shutdown waits for
    /// the messages that are being handled. It does not wait for those in the queue:
    /// [drain](Events::drain) the events first.
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

    /// Sets the propagation formats to extract from messages.
    ///
    /// The default is the same as for [`Events::propagator`](super::Events::propagator).
    pub fn propagator(mut self, propagator: Propagator) -> Self {
        self.propagator = propagator;
        self
    }

    /// Sets the keys whose values are extracted from messages.
    ///
    /// See [`ContextLayer::keys`](throughline::ContextLayer::keys). Default: no keys. The principal
    /// is always extracted.
    pub fn keys(mut self, keys: &[&'static dyn WireKey]) -> Self {
        self.keys = keys.into();
        self
    }

    /// Sets the tracer of the spans; default: the tracer of the base context.
    pub fn tracer(mut self, tracer: Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// Sets the timeout of one attempt; default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many messages are handled at the same time; default: 16.
    pub fn concurrency(mut self, messages: NonZeroUsize) -> Self {
        self.concurrency = messages.get();
        self
    }

    /// Sets the number of failed deliveries after which a message is given up; default: 5.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// Sets the pauses between the attempts at a message.
    ///
    /// - The default is 500 ms, doubling up to 60 s.
    /// - The pause after the first failed attempt is `first`. Each further pause is twice as long,
    ///   up to `longest`.
    /// - A random time of up to half of the pause is added.
    /// - A pause is never shorter than the error's [`retry_after`](Error::retry_after). `longest`
    ///   does not limit `retry_after`.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = Backoff { first, longest };
        self
    }

    /// Sets the subject of dead letters; default: `dead-letter.` plus the subject of the message.
    ///
    /// When a message is given up, it is published to this subject with its headers and its
    /// payload. These headers are added. Characters that are not printable ASCII are
    /// percent-encoded:
    ///
    /// | header | value |
    /// |---|---|
    /// | `dead-letter-subject` | the original subject |
    /// | `dead-letter-group` | the group that gave the message up |
    /// | `dead-letter-attempts` | the number of deliveries |
    /// | `dead-letter-code` | the [`Code`] of the last error |
    /// | `dead-letter-message` | the error's message, at most 1,024 bytes; never its source |
    /// | `dead-letter-origin` | the service that the error started in, if it is another service |
    ///
    /// A message that already has `dead-letter-subject` is not published again.
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
    /// let delivery = failed.next().await.expect("the message was given up");
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

    /// Handles one delivery. Releases `permit` when the handler has ended.
    ///
    /// `_counted` is dropped when all is done.
    async fn handle<F, Fut>(
        self: Arc<Self>,
        group: Arc<Group>,
        delivery: Delivery,
        handler: Arc<F>,
        permit: OwnedSemaphorePermit,
        _counted: Option<RunningWork>,
    ) where
        F: Fn(Context, Message) -> Fut,
        Fut: Future<Output = Result<(), Error>>,
    {
        let limits = self.base.with_timeout(self.timeout).with_cancel();
        let span = self.span(&limits, &delivery, &group.name);
        let ctx = span.context().clone();
        // Unwind safe: after a panic, only the delivery and `limits` are used. No panic leaves them
        // in an inconsistent state.
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
        // This comes last: `Events::drain` may return now, and the span has already ended.
        match result {
            Ok(()) => delivery.acknowledge(),
            Err(error) if error.retryable() == Some(false) => self.give_up(&group, &ctx, delivery, &error).await,
            // The consumer is stopping, so the failure says nothing about the message. Another
            // member of the group may take it.
            Err(_) if self.base.is_done() => delivery.redeliver(),
            Err(error) if delivery.attempt() < self.max_attempts => {
                let pause = self.backoff.pause(delivery.attempt(), error.retry_after());
                delivery.redeliver_after(pause);
            }
            Err(error) => self.give_up(&group, &ctx, delivery, &error).await,
        }
    }

    /// Starts the span of a delivery. It continues the publisher's trace.
    ///
    /// `limits` holds the consumer's timeout, not the publisher's deadline.
    fn span(&self, limits: &Context, delivery: &Delivery, group: &str) -> Span {
        let message = delivery.message();
        let ctx = self.propagator.extract(limits, &message.headers);
        let ctx = values::extract(&ctx, &self.keys, &message.headers);
        let mut builder = span(&ctx, "process", message)
            .kind(SpanKind::Consumer)
            .attribute("messaging.consumer.group.name", group.to_owned());
        if let Some(tracer) = &self.tracer {
            builder = builder.tracer(tracer);
        }
        if !ctx.span_context().is_some_and(SpanContext::is_remote) {
            // The message has no trace. The span of the base context did not cause it, so start a
            // new trace.
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

    /// Publishes the message as a dead letter, logs it and counts it.
    async fn give_up(&self, group: &Group, ctx: &Context, delivery: Delivery, error: &Error) {
        let (message, attempts) = (delivery.message(), delivery.attempt());
        let to = if is_dead_letter(message) {
            // Do not publish a dead letter again: the message could loop forever.
            None
        } else {
            let default = || format!("dead-letter.{}", message.subject);
            let to = self.dead_letter.clone().unwrap_or_else(default);
            // Detached, to publish even if the base context is done. Limited to the time of an
            // attempt.
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

/// The group that a consumer receives messages from.
struct Group {
    events: Events,
    name: String,
}

/// Runs the handler in the span, and records its result.
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
    /// Handles messages until the events are drained or the consumer's base context is done.
    ///
    /// Several messages are handled [at the same time](Consumer::concurrency). For each message:
    /// 1. `handler` is called with the message and a context. The context has a CONSUMER span and
    ///    the consumer's timeout.
    /// 2. When the handler returns, its context is cancelled with [`Cause::RequestFinished`]. If it
    ///    panics, the cause is [`Cause::Panicked`].
    /// 3. If the handler succeeds, the message is acknowledged.
    ///
    /// If the handler fails, panics or takes too long:
    /// - The message is delivered again after a [pause](Consumer::backoff). Other messages are
    ///   handled during the pause.
    /// - The message is given up after the [last attempt](Consumer::max_attempts), or at once if
    ///   the error is not [`retryable`](Error::retryable). It is published to the [dead-letter
    ///   subject](Consumer::dead_letter), [counted](super::GroupCounters::given_up), and logged to
    ///   `tracing` at the level ERROR.
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
        let (consumer, handler) = (Arc::new(consumer), Arc::new(handler));
        let group = Arc::new(Group { events: self.events().clone(), name: self.group().to_owned() });
        let semaphore = Arc::new(Semaphore::new(consumer.concurrency));
        let base = consumer.base.clone();
        let work = async {
            // The semaphore is never closed.
            while let Ok(permit) = Arc::clone(&semaphore).acquire_owned().await {
                let Some(delivery) = self.next().await else { return };
                let (consumer, group) = (Arc::clone(&consumer), Arc::clone(&group));
                let counted = Lifecycle::of(&base).map(|lifecycle| lifecycle.start(Work::Request));
                tokio::spawn(consumer.handle(group, delivery, Arc::clone(&handler), permit, counted));
            }
        };
        // No error if the base context is done: other members of the group take the waiting
        // messages.
        let _ = base.run(work).await;
    }
}
