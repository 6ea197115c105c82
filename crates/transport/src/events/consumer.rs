//! Dealing with messages: each in a context and a span of its own.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use throughline::propagation::{WireKey, values};
use throughline::trace::{SpanKind, Status, Tracer};
use throughline::{CancelHandle, Cause, Context, Error, FutureExt, Propagator, SpanContext};
use tokio::sync::Semaphore;

use super::{Delivery, Message, Subscription, span};

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

    /// Starts dealing with a message: its span goes on with the publisher's trace, its context knows nothing of the publisher's deadline.
    async fn deal_with<F, Fut>(self: Arc<Self>, delivery: Delivery, handler: Arc<F>)
    where
        F: Fn(Context, Message) -> Fut,
        Fut: Future<Output = Result<(), Error>>,
    {
        if delivery.attempt() > self.max_attempts {
            // Only a handler that panics does not give it up by itself.
            return delivery.acknowledge();
        }
        let message = delivery.message().clone();
        let attempt = Attempt(self.base.with_timeout(self.timeout).with_cancel());
        let ctx = self.propagator.extract(&attempt.0, &message.headers);
        let ctx = values::extract(&ctx, &self.keys, &message.headers);
        let mut builder = span(&ctx, "process", &message).kind(SpanKind::Consumer);
        if let Some(tracer) = &self.tracer {
            builder = builder.tracer(tracer);
        }
        if !ctx.span_context().is_some_and(SpanContext::is_remote) {
            // The base's own span is not what asked for this.
            builder = builder.new_root();
        }
        if let Some(remaining) = attempt.0.remaining() {
            builder = builder.attribute("throughline.deadline.remaining_ms", remaining.as_secs_f64() * 1e3);
        }
        if delivery.attempt() > 1 {
            builder = builder.attribute("messaging.message.delivery_attempt", delivery.attempt());
        }
        let span = builder.start();
        let work = handler(span.context().clone(), message).with_context(span.context().clone());
        let result = span.run(work).await.unwrap_or_else(|_| Err(Error::from_context(&span)));
        let again = match result {
            Ok(()) => false,
            Err(error) => {
                span.record_returned(&error);
                span.set_attribute("error.type", error.code().as_str());
                span.set_status(Status::Error(error.message().to_owned().into()));
                if let Some(cause) = span.cause() {
                    span.set_attribute("throughline.cancel.cause", cause.name());
                }
                error.retryable() != Some(false) && delivery.attempt() < self.max_attempts
            }
        };
        span.end();
        attempt.0.cancel_with(Cause::RequestFinished);
        // Last: whoever waits for the events to drain finds the span ended.
        if again { delivery.redeliver() } else { delivery.acknowledge() }
    }
}

/// The context of an attempt, which is cancelled with [`Cause::Panicked`] when its handler panics.
struct Attempt(CancelHandle);

impl Drop for Attempt {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel_with(Cause::Panicked);
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("base", &self.base)
            .field("timeout", &self.timeout)
            .field("concurrency", &self.concurrency)
            .field("max_attempts", &self.max_attempts)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    /// Deals with messages, several at a time, until the events are drained or the consumer's base is done.
    ///
    /// For each, `handler` gets a context with a CONSUMER span and the consumer's timeout, and the message, which is acknowledged when it
    /// succeeds. When it fails, panics or takes too long the message is delivered again, unless the error says that it is not
    /// [`retryable`](Error::retryable), or the attempts are used up. When it has ended its context is cancelled with
    /// [`Cause::RequestFinished`], and when it panics with [`Cause::Panicked`].
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
        let places = Arc::new(Semaphore::new(consumer.concurrency));
        let base = consumer.base.clone();
        let work = async {
            // The semaphore is never closed.
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                let Some(delivery) = self.next().await else { return };
                let work = Arc::clone(&consumer).deal_with(delivery, Arc::clone(&handler));
                tokio::spawn(async move {
                    work.await;
                    drop(place);
                });
            }
        };
        // When the base is done nobody is told: the messages that wait are somebody else's.
        let _ = base.run(work).await;
    }
}
