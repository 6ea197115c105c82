//! What the span of a message says about it.

use std::borrow::Cow;

use throughline::Context;
use throughline::trace::SpanBuilder;

/// A message as its span describes it: broker, destination, and what else is known.
///
/// The attributes are those of the semantic conventions 1.45, "Messaging spans". All texts may be
/// `&'static str` or `String`.
///
/// # Examples
/// ```
/// use throughline_transport::MessageInfo;
///
/// let info = MessageInfo::new("kafka", "orders").group("printer").partition("3").id("3:1042").attempt(2);
/// assert_eq!(info.destination(), "orders");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct MessageInfo {
    system: Cow<'static, str>,
    destination: Cow<'static, str>,
    group: Option<Cow<'static, str>>,
    id: Option<Cow<'static, str>>,
    partition: Option<Cow<'static, str>>,
    body_size: Option<u64>,
    attempt: u32,
}

impl MessageInfo {
    /// Describes a message of `system` that is sent to, or was received from, `destination`.
    ///
    /// - `system` is a value of `messaging.system`: `kafka`, `rabbitmq`, `aws_sqs`, …
    /// - `destination` is a topic, a queue or an exchange. It is part of the name of the span, so
    ///   it must not contain ids.
    pub fn new(system: impl Into<Cow<'static, str>>, destination: impl Into<Cow<'static, str>>) -> Self {
        let (system, destination) = (system.into(), destination.into());
        MessageInfo { system, destination, group: None, id: None, partition: None, body_size: None, attempt: 1 }
    }

    /// Sets the consumer group: `messaging.consumer.group.name`.
    pub fn group(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Sets the id that identifies the message at its broker: `messaging.message.id`.
    pub fn id(mut self, id: impl Into<Cow<'static, str>>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the partition: `messaging.destination.partition.id`.
    pub fn partition(mut self, partition: impl Into<Cow<'static, str>>) -> Self {
        self.partition = Some(partition.into());
        self
    }

    /// Sets the size of the payload in bytes: `messaging.message.body.size`.
    pub fn body_size(mut self, bytes: u64) -> Self {
        self.body_size = Some(bytes);
        self
    }

    /// Sets the number of this delivery; default: 1, the first.
    ///
    /// [`Consumer::handle`](super::Consumer::handle) decides from it whether the message is
    /// delivered again. The span of a further delivery has it as
    /// `messaging.message.delivery_attempt`.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt.max(1);
        self
    }

    /// Returns the destination.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    pub(super) fn group_name(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Returns the number of this delivery.
    pub(super) fn number(&self) -> u32 {
        self.attempt
    }

    /// Starts to build the span of `operation`: `send` or `process`.
    pub(super) fn span<'a>(&self, ctx: &'a Context, operation: &'static str) -> SpanBuilder<'a> {
        let mut span = ctx
            .span(format!("{operation} {}", self.destination))
            .attribute("messaging.system", self.system.clone())
            .attribute("messaging.operation.name", operation)
            .attribute("messaging.operation.type", operation)
            .attribute("messaging.destination.name", self.destination.clone());
        let texts = [
            ("messaging.consumer.group.name", &self.group),
            ("messaging.message.id", &self.id),
            ("messaging.destination.partition.id", &self.partition),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                span = span.attribute(name, text.clone());
            }
        }
        if let Some(size) = self.body_size {
            span = span.attribute("messaging.message.body.size", size);
        }
        if self.attempt > 1 {
            span = span.attribute("messaging.message.delivery_attempt", self.attempt);
        }
        span
    }
}
