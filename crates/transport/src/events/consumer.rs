//! The settings of consumers.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use throughline::propagation::WireKey;
use throughline::trace::Tracer;
use throughline::{Context, Propagator};

use super::backoff::Backoff;

/// How messages are handled: for [`Subscription::serve`](super::Subscription::serve), and for a
/// broker of your own with [`handle`](Self::handle).
#[derive(Clone)]
#[must_use]
pub struct Consumer {
    pub(super) base: Context,
    pub(super) propagator: Propagator,
    pub(super) keys: Arc<[&'static dyn WireKey]>,
    pub(super) tracer: Option<Tracer>,
    pub(super) timeout: Duration,
    pub(super) concurrency: usize,
    pub(super) max_attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) dead_letter: Option<String>,
}

impl Consumer {
    /// Creates a consumer with default settings.
    ///
    /// The context of each message is a child of `base`. When `base` is cancelled,
    /// [`serve`](super::Subscription::serve) returns.
    ///
    /// If `base` is the context of a [`Shutdown`](throughline::Shutdown), the shutdown waits for
    /// the messages that are being handled. It does not wait for those in the queue:
    /// [drain](super::Events::drain) the events first.
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

    /// Sets how many messages `serve` handles at the same time; default: 16.
    ///
    /// It does not limit [`handle`](Self::handle).
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
    /// - A pause is never shorter than the error's
    ///   [`retry_after`](throughline::Error::retry_after). `longest` does not limit `retry_after`.
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
    /// | `dead-letter-code` | the [`Code`](throughline::Code) of the last error |
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
    /// let (events, ctx) = (Events::in_process(), Context::background());
    /// let cards = events.subscribe(&ctx, "card.ordered", "printer").await?;
    /// let failed = events.subscribe(&ctx, "dead-letter.card.ordered", "support").await?;
    /// tokio::spawn(cards.serve(Consumer::new(&ctx), |_ctx, _message| async {
    ///     Err(Error::new(Code::InvalidArgument, "no such card").with_retryable(false))
    /// }));
    ///
    /// events.publish(&ctx, Message::new("card.ordered", "7")).await?;
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
