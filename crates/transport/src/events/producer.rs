//! Producers: they put the trace and other wire values of a context into messages.

use throughline::trace::{SpanKind, Status};
use throughline::{Context, Error, FutureExt as _, Injector, Propagator, Span};

use super::info::MessageInfo;

/// Prepares messages for any broker: the PRODUCER span, and the headers.
///
/// [`Events`](super::Events) uses it. Use it directly with the client of a broker of your own, such
/// as Kafka, AMQP or SQS. The headers are any carrier: a [`HeaderMap`](http::HeaderMap), a
/// `HashMap<String, String>`, a `Vec<(String, String)>`, or your own [`Injector`].
///
/// A message carries the trace, the baggage, the values of wire keys and the principal. It carries
/// neither the deadline nor the cancellation.
///
/// # Examples
/// ```
/// use std::collections::HashMap;
/// use throughline::{Context, Error};
/// use throughline_transport::{MessageInfo, Producer};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let ctx = Context::background(); // of the request
/// let (producer, info) = (Producer::new(), MessageInfo::new("kafka", "orders"));
/// let sent = producer.send(&ctx, info, HashMap::new(), async |headers: HashMap<String, String>| {
///     // Call the broker's client here, and wait until it has the message.
///     Ok::<_, Error>(headers)
/// });
/// assert!(sent.await?.contains_key("traceparent"));
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Producer {
    propagator: Propagator,
}

impl Producer {
    /// Creates a producer with the default propagation formats.
    ///
    /// They are the formats in `OTEL_PROPAGATORS`, or else W3C Trace Context and baggage.
    pub fn new() -> Self {
        Producer { propagator: Propagator::current_default() }
    }

    /// Sets the propagation formats.
    pub fn propagator(mut self, propagator: Propagator) -> Self {
        self.propagator = propagator;
        self
    }

    /// Sends a message: starts its span, injects the headers, calls `send`, and records its result.
    ///
    /// - `send` gets `headers` with the span and the other wire values of `ctx`. They replace
    ///   existing headers of the same name.
    /// - The span covers the call of `send` and its future. It is the current span in the future.
    ///
    /// # Errors
    /// - The error of `send`, which the span records.
    /// - `CANCELLED` or `DEADLINE_EXCEEDED`: `ctx` is done first. The future of `send` is dropped.
    ///
    /// # Cancellation safety
    /// If the future is dropped before it completes, the future of `send` is dropped. The span ends
    /// with the cause `abandoned`.
    pub async fn send<C, T, E, F, Fut>(
        &self,
        ctx: &Context,
        info: MessageInfo,
        mut headers: C,
        send: F,
    ) -> Result<T, Error>
    where
        C: Injector,
        F: FnOnce(C) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<Error>,
    {
        let span = self.prepare(ctx, &info, &mut headers);
        let work = send(headers).with_context(span.context());
        let result = match span.run(work).await {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err(Error::from_context(&span)),
        };
        if let Err(error) = &result {
            span.set_attribute("error.type", error.code().as_str());
            span.set_status(Status::Error(error.message().to_owned().into()));
        }
        span.end();
        result
    }

    /// Starts the span of a message, and injects it and the other wire values of `ctx`.
    ///
    /// This is for clients that take the message now and report later, in a callback. Keep the span
    /// until then. [`Span::record_error`] records a failure. If the span is dropped before
    /// [`Span::end`], it ends with the cause `abandoned`. Else use [`send`](Self::send).
    ///
    /// # Examples
    /// ```
    /// use throughline::Context;
    /// use throughline_transport::{MessageInfo, Producer};
    ///
    /// let mut headers: Vec<(String, String)> = vec![("shard".into(), "3".into())];
    /// let info = MessageInfo::new("rabbitmq", "orders").body_size(512);
    /// let span = Producer::new().prepare(&Context::background(), &info, &mut headers);
    /// assert_eq!(headers[1].0, "traceparent");
    /// span.end(); // when the broker has the message
    /// ```
    #[must_use = "the span ends when it is dropped"]
    pub fn prepare<C: Injector + ?Sized>(&self, ctx: &Context, info: &MessageInfo, headers: &mut C) -> Span {
        let span = info.span(ctx, "send").kind(SpanKind::Producer).start().abandoned_if_dropped();
        self.propagator.inject(&span, headers);
        span
    }
}

impl Default for Producer {
    fn default() -> Self {
        Producer::new()
    }
}
