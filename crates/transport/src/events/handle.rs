//! One attempt at a message: its context, its span, the handler, and the decision.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use throughline::propagation::values;
use throughline::trace::{SpanKind, Status};
use throughline::{Cause, Code, Context, Error, Extractor, FutureExt, Span, SpanContext};
use throughline_core::{Lifecycle, Work};

use super::consumer::Consumer;
use super::info::MessageInfo;
use super::outcome::{DeadLetter, Outcome, is_dead_letter};

/// How often a message that ends its process is delivered beyond the last attempt.
///
/// Such a delivery is not always the message's fault: a deployment may have ended the process.
const SPARE_DELIVERIES: u32 = 10;

impl Consumer {
    /// Handles a message of any broker, and returns what to do with it.
    ///
    /// 1. The trace, the baggage, the [keys](Consumer::keys) and the principal are extracted from
    ///    `headers`: a [`HeaderMap`](http::HeaderMap), a `HashMap<String, String>`, a
    ///    `Vec<(String, Vec<u8>)>`, or your own [`Extractor`]. Malformed headers are ignored. A
    ///    deadline in the headers is ignored, too.
    /// 2. `handler` is called with a context. The context has a CONSUMER span and the consumer's
    ///    [timeout](Consumer::timeout). Without a trace in the headers, the span starts a new one.
    /// 3. When the handler returns, its context is cancelled with [`Cause::RequestFinished`]. If it
    ///    panics, the cause is [`Cause::Panicked`].
    /// 4. The span records the result. The [`Outcome`] follows from it, from the
    ///    [attempt](MessageInfo::attempt) and from the settings of the consumer. A message that is
    ///    given up is logged to `tracing` at the level ERROR.
    ///
    /// [`Subscription::serve`](super::Subscription::serve) does this for each message of
    /// [`Events`](super::Events). Here the caller takes messages from the broker, limits how many
    /// are handled at the same time, and does what the outcome says.
    ///
    /// If the attempt number exceeds [`max_attempts`](Consumer::max_attempts) by 10, the message is
    /// given up and the handler is not called. The message ended the process each time.
    ///
    /// # Cancellation safety
    /// If the future is dropped, the handler is dropped. The span ends with the cause `abandoned`.
    ///
    /// # Panics
    /// Panics outside a tokio runtime with time enabled.
    ///
    /// # Examples
    /// ```
    /// use std::collections::HashMap;
    /// use std::time::Duration;
    /// use throughline::{Code, Context, Error};
    /// use throughline_transport::{Consumer, MessageInfo, Outcome};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let consumer = Consumer::new(&Context::background()).max_attempts(2);
    /// // A message as the broker's client returns it.
    /// let mut headers = HashMap::from([("tenant".to_owned(), "7".to_owned())]);
    /// let info = |attempt| MessageInfo::new("kafka", "orders").group("printer").attempt(attempt);
    ///
    /// let outcome = consumer.handle(info(1), &headers, async |_ctx| Ok(())).await;
    /// assert!(matches!(outcome, Outcome::Acknowledge));
    ///
    /// let fail = async |_ctx| Err(Error::new(Code::Unavailable, "no paper"));
    /// let Outcome::Redeliver(pause) = consumer.handle(info(1), &headers, fail).await else { panic!() };
    /// assert!(pause >= Duration::from_millis(500));
    ///
    /// let Outcome::GiveUp(letter) = consumer.handle(info(2), &headers, fail).await else { panic!() };
    /// letter.inject(&mut headers);
    /// assert_eq!(letter.destination(), Some("dead-letter.orders"));
    /// assert_eq!((&*headers["dead-letter-message"], &*headers["tenant"]), ("no paper", "7"));
    /// # });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn handle<C, F, Fut>(&self, info: MessageInfo, headers: &C, handler: F) -> Outcome
    where
        C: Extractor + ?Sized,
        F: FnOnce(Context) -> Fut,
        Fut: Future<Output = Result<(), Error>>,
    {
        // A shutdown waits for the handler.
        let _counted = Lifecycle::of(&self.base).map(|lifecycle| lifecycle.start(Work::Request));
        self.attempt(info, headers, handler).await
    }

    /// Like [`handle`](Consumer::handle), and waits and tries again where that would redeliver.
    ///
    /// This is for brokers that do not deliver a message again after a pause, such as Kafka. The
    /// messages behind it wait, so their order stays. The first attempt has the number in `info`.
    ///
    /// [`Outcome::Redeliver`] is returned only if the consumer's base context is done. Do not
    /// acknowledge the message then: another consumer gets it.
    ///
    /// # Cancellation safety
    /// Like [`handle`](Consumer::handle).
    ///
    /// # Panics
    /// Panics outside a tokio runtime with time enabled.
    ///
    /// # Examples
    /// ```
    /// use std::cell::Cell;
    /// use throughline::{Code, Context, Error};
    /// use throughline_transport::{Consumer, MessageInfo, Outcome};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?.block_on(async {
    /// let consumer = Consumer::new(&Context::background());
    /// let (headers, calls) = (Vec::<(String, String)>::new(), Cell::new(0));
    /// let outcome = consumer.handle_in_place(MessageInfo::new("kafka", "orders"), &headers, async |_ctx| {
    ///     calls.set(calls.get() + 1);
    ///     if calls.get() < 3 { Err(Error::new(Code::Unavailable, "no paper")) } else { Ok(()) }
    /// });
    /// assert!(matches!(outcome.await, Outcome::Acknowledge));
    /// assert_eq!(calls.get(), 3);
    /// # });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn handle_in_place<C, F, Fut>(&self, info: MessageInfo, headers: &C, handler: F) -> Outcome
    where
        C: Extractor + ?Sized,
        F: Fn(Context) -> Fut,
        Fut: Future<Output = Result<(), Error>>,
    {
        let mut number = info.number();
        loop {
            match self.handle(info.clone().attempt(number), headers, &handler).await {
                Outcome::Redeliver(pause) if self.base.run(tokio::time::sleep(pause)).await.is_ok() => {
                    number = number.saturating_add(1);
                }
                Outcome::Redeliver(_) => return Outcome::Redeliver(Duration::ZERO),
                outcome => return outcome,
            }
        }
    }

    pub(super) async fn attempt<C, F, Fut>(&self, info: MessageInfo, headers: &C, handler: F) -> Outcome
    where
        C: Extractor + ?Sized,
        F: FnOnce(Context) -> Fut,
        Fut: Future<Output = Result<(), Error>>,
    {
        let limits = self.base.with_timeout(self.timeout).with_cancel();
        let span = self.span(&limits, &info, headers);
        let ctx = span.context().clone();
        let result = if info.number() > self.max_attempts.saturating_add(SPARE_DELIVERIES) {
            let error = Error::new(Code::Aborted, "no attempt at the message has come to an end").with_retryable(false);
            record(span, Err(error))
        } else {
            // Unwind safe: after a panic, only `limits` and the message are used. No panic leaves
            // them in an inconsistent state.
            let run = AssertUnwindSafe(run(span, handler)).catch_unwind();
            run.await.unwrap_or_else(|_| {
                limits.cancel_with(Cause::Panicked);
                Err(Error::new(Code::Internal, "the handler panicked"))
            })
        };
        limits.cancel_with(Cause::RequestFinished);
        let Err(error) = result else { return Outcome::Acknowledge };
        let is_last = info.number() >= self.max_attempts;
        match error.retryable() {
            Some(false) => self.give_up(ctx, info, headers, error),
            // The consumer is stopping, so the failure says nothing about the message. Another
            // member of the group may take it.
            _ if self.base.is_done() => Outcome::Redeliver(Duration::ZERO),
            _ if is_last => self.give_up(ctx, info, headers, error),
            _ => Outcome::Redeliver(self.backoff.pause(info.number(), error.retry_after())),
        }
    }

    /// Starts the span of a delivery. It continues the producer's trace.
    ///
    /// `limits` holds the consumer's timeout, not the producer's deadline.
    fn span<C: Extractor + ?Sized>(&self, limits: &Context, info: &MessageInfo, headers: &C) -> Span {
        let ctx = self.propagator.extract(limits, headers);
        let ctx = values::extract(&ctx, &self.keys, headers);
        let mut builder = info.span(&ctx, "process").kind(SpanKind::Consumer);
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
        builder.start().abandoned_if_dropped()
    }

    fn give_up<C>(&self, ctx: Context, info: MessageInfo, headers: &C, error: Error) -> Outcome
    where
        C: Extractor + ?Sized,
    {
        let default = || format!("dead-letter.{}", info.destination());
        // Do not publish a dead letter again: the message could loop forever.
        let destination = (!is_dead_letter(headers)).then(|| self.dead_letter.clone().unwrap_or_else(default));
        ctx.enter(|| {
            tracing::error!(
                messaging.destination.name = info.destination(),
                messaging.consumer.group.name = info.group_name(),
                messaging.message.delivery_attempt = info.number(),
                dead_letter = destination.as_deref().unwrap_or("none"),
                error = &error as &(dyn std::error::Error + 'static),
                "a message was given up"
            );
        });
        // Detached, to publish even if the base context is done. Limited to the time of an attempt.
        let ctx = ctx.detach().with_timeout(self.timeout);
        Outcome::GiveUp(DeadLetter { ctx, error, destination, info })
    }
}

/// Runs the handler in the span, and records its result.
async fn run<F, Fut>(span: Span, handler: F) -> Result<(), Error>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<(), Error>>,
{
    let work = handler(span.context().clone()).with_context(span.context());
    let result = span.run(work).await.unwrap_or_else(|_| Err(Error::from_context(&span)));
    record(span, result)
}

/// Records the result of an attempt, and ends its span.
fn record(span: Span, result: Result<(), Error>) -> Result<(), Error> {
    if let Err(error) = &result {
        span.record_returned(error);
        span.set_attribute("error.type", error.code().as_str());
        span.set_status(Status::Error(error.message().to_owned().into()));
    }
    span.end();
    result
}
