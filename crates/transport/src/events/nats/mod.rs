//! Events over NATS JetStream: how to connect.

mod headers;
mod holder;
mod jetstream;
mod member;
mod names;
mod shared;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Event;
use throughline::{Context, Error};
use tokio::sync::watch;

use super::{Events, Producer};
use crate::NatsOptions;
use jetstream::JetStream;

/// Connects [`Events`] to NATS JetStream. [`Events::nats`] makes it.
#[derive(Clone)]
#[must_use = "it connects with `connect`"]
pub struct NatsEvents {
    options: NatsOptions,
    settings: Settings,
}

/// The settings for streams and durable consumers that are created.
#[derive(Clone, Debug)]
struct Settings {
    ack_wait: Duration,
    max_age: Duration,
    replicas: usize,
    from_start: bool,
}

impl Events {
    /// Connects to NATS JetStream at `nats://127.0.0.1:4222`, for example.
    ///
    /// [`NatsOptions`] have the form of the addresses, the login and TLS.
    ///
    /// # Streams
    /// The first token of a subject names its stream: `card.ordered` is in the stream `card`, which
    /// takes `card` and `card.>`. If the broker has a stream for the subject already, it uses that
    /// stream as it is. Else it is created: on disk, for 7 days
    /// ([`max_age`](NatsEvents::max_age)). A message stays in the stream when it is handled.
    ///
    /// # Groups
    /// A group is a durable pull consumer with the name `GROUP@SUBJECT` (in the subject, `+` stands
    /// for `.`). If the broker has that consumer already, it is used as it is. Else it is created.
    /// It stays, with its position, when its last member leaves:
    /// `nats consumer rm card printer@card+ordered` deletes it. A new group gets the messages from
    /// then on.
    ///
    /// # Deliveries
    /// - A message is taken only when it can be handled at once. While it is handled, the broker
    ///   gets signs of life, however long it takes. If the process ends, the message is delivered
    ///   again after [`ack_wait`](NatsEvents::ack_wait).
    /// - The number of an attempt is the delivery count of the broker. It also counts deliveries
    ///   whose process ended.
    /// - A failed message pauses at the broker (NAK with a delay), so any member gets it next.
    /// - At most 1,024 messages of a group are being handled or pause. The others wait.
    /// - [`GroupCounters`](super::GroupCounters) count this member of the group only. The waiting
    ///   messages are at the broker: `nats consumer info`.
    ///
    /// # Publishing
    /// `publish` returns when the broker has stored the message. An outage of the broker delays it
    /// by 5 s at most, and never beyond the time left of the context. Then it fails with
    /// `UNAVAILABLE`, and the broker may have stored the message. To publish again without a
    /// duplicate, give both messages the same header `nats-msg-id`.
    ///
    /// # Headers
    /// Names are in lower case, as everywhere in this library. A header `nats-…` is sent as
    /// `Nats-…`, for the broker. It is not part of a message that was received. Of a received
    /// message, at most 1,024 headers are kept.
    ///
    /// # Examples
    /// ```no_run
    /// use throughline::{Context, Error};
    /// use throughline_transport::{Consumer, Events, Message};
    ///
    /// # async fn f() -> Result<(), Error> {
    /// let ctx = Context::background();
    /// let events = Events::nats("nats://127.0.0.1:4222").connect(&ctx).await?;
    /// let cards = events.subscribe(&ctx, "card.ordered", "printer").await?;
    /// tokio::spawn(cards.serve(Consumer::new(&ctx), |_ctx, _message| async { Ok(()) }));
    /// events.publish(&ctx, Message::new("card.ordered", "7")).await?;
    /// events.drain().await;
    /// # Ok(()) }
    /// ```
    pub fn nats(server: impl Into<NatsOptions>) -> NatsEvents {
        let day = Duration::from_secs(86_400);
        let settings = Settings { ack_wait: Duration::from_secs(30), max_age: day * 7, replicas: 1, from_start: false };
        NatsEvents { options: server.into(), settings }
    }
}

impl NatsEvents {
    /// Sets how long the broker waits for a sign of life of a message's process; default: 30 s.
    ///
    /// Applies to groups that do not exist yet.
    pub fn ack_wait(mut self, wait: Duration) -> Self {
        self.settings.ack_wait = wait.max(Duration::from_millis(10));
        self
    }

    /// Sets how long a stream keeps messages, handled or not; default: 7 days. Zero: for ever.
    ///
    /// Applies to streams that do not exist yet.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.settings.max_age = age;
        self
    }

    /// Sets the number of servers of a cluster that store a message; default: 1.
    ///
    /// Applies to streams that do not exist yet.
    pub fn replicas(mut self, servers: usize) -> Self {
        self.settings.replicas = servers;
        self
    }

    /// Gives a group that does not exist yet the messages that are stored already.
    ///
    /// The default: the messages from then on.
    pub fn from_start(mut self) -> Self {
        self.settings.from_start = true;
        self
    }

    /// Connects. Afterwards, a connection that is lost is made again without end.
    ///
    /// # Errors
    /// - `UNAVAILABLE`: no server can be reached, or it does not run JetStream. The message has the
    ///   address and what to check.
    /// - `UNAUTHENTICATED`: the server does not accept the user.
    /// - `INVALID_ARGUMENT`: an address, a prefix or the credentials are not valid.
    /// - `CANCELLED` or `DEADLINE_EXCEEDED`: `ctx` is done first. It has no effect afterwards.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(self, ctx: &Context) -> Result<Events, Error> {
        let medium = ctx.run(self.open()).await.map_err(|_| Error::from_context(ctx))??;
        Ok(Events { medium: Arc::new(medium), producer: Producer::new() })
    }

    async fn open(self) -> Result<JetStream, Error> {
        let broker = self.options.checked()?;
        let (connects, connected) = watch::channel(());
        let on_event = move |event| {
            if matches!(event, Event::Connected) {
                connects.send_replace(());
            }
        };
        let client = broker.connect(false, on_event).await?;
        JetStream::new(client, connected, broker.addresses(), self.settings).await
    }
}

impl fmt::Debug for NatsEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsEvents").field("options", &self.options).field("settings", &self.settings).finish()
    }
}
