//! The medium JetStream: publishing, streams, durable consumers, and draining.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::context::{
    Context as Broker, ContextBuilder, GetStreamByNameErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::stream;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;
use throughline::{Code, Context, Error};
use tokio::sync::watch;

use super::super::medium::{Medium, Member};
use super::super::message::Message;
use super::member::JetStreamMember;
use super::shared::{Phase, Shared};
use super::{Settings, headers, names};

/// How long a request to the broker may take, an outage of the connection included.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is checked whether the connection is back. The client may drop its own event of it.
const CONNECTION_CHECK: Duration = Duration::from_millis(20);

/// The number of messages of a group that may be handled or pause at the same time.
const MAX_UNSETTLED: i64 = 1024;

pub(super) struct JetStream {
    broker: Broker,
    /// The addresses, for messages.
    servers: String,
    settings: Settings,
    state: Arc<Shared>,
}

impl JetStream {
    pub(super) async fn new(
        client: Client,
        connected: watch::Receiver<()>,
        servers: String,
        settings: Settings,
    ) -> Result<Self, Error> {
        let broker = ContextBuilder::new().timeout(PATIENCE).ack_timeout(PATIENCE).build(client.clone());
        // `query_account` of the client does not parse the response of older servers.
        let text = || format!("the NATS server {servers} does not run JetStream: start nats-server with -js");
        let info: Value = broker
            .request("INFO", &())
            .await
            .map_err(|error| Error::wrap(Code::Unavailable, error).with_message(text()))?;
        if let Some(error) = info.get("error") {
            return Err(Error::new(Code::Unavailable, format!("{}: {error}", text())));
        }
        let state = Arc::new(Shared::new(client, connected));
        Ok(JetStream { broker, servers, settings, state })
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        let headers = headers::to_broker(&message.headers)?;
        self.wait_for_connection().await;
        let mut is_first = true;
        loop {
            let (subject, headers, payload) = (message.subject.clone(), headers.clone(), message.payload.clone());
            let sent = self.broker.publish_with_headers(subject, headers, payload).await;
            let acknowledged = match sent {
                Ok(acknowledged) => acknowledged.await,
                Err(error) => Err(error),
            };
            match acknowledged {
                Ok(_) => return Ok(()),
                Err(error) if is_first && error.kind() == PublishErrorKind::StreamNotFound => {
                    is_first = false;
                    self.stream(&message.subject).await?;
                }
                Err(error) => return Err(self.publish_error(error)),
            }
        }
    }

    /// While there is no connection, the client would keep what is sent, and send it late.
    async fn wait_for_connection(&self) {
        while self.state.client.connection_state() != State::Connected {
            tokio::time::sleep(CONNECTION_CHECK).await;
        }
    }

    /// Returns the name of the stream that takes `subject`. Creates it if there is none.
    async fn stream(&self, subject: &str) -> Result<String, Error> {
        match self.broker.stream_by_subject(subject).await {
            Ok(name) => return Ok(name),
            Err(error) if matches!(error.kind(), GetStreamByNameErrorKind::NotFound) => {}
            Err(error) => return Err(self.unavailable(error, "does not say which stream has the subject")),
        }
        let (name, subjects) = names::stream(subject);
        let config = stream::Config {
            name: name.clone(),
            subjects,
            max_age: self.settings.max_age,
            num_replicas: self.settings.replicas,
            ..stream::Config::default()
        };
        match self.broker.create_stream(config).await {
            Ok(_) => Ok(name),
            Err(error) => {
                // Another process may have created it now, with other settings.
                if let Ok(name) = self.broker.stream_by_subject(subject).await {
                    return Ok(name);
                }
                let text = format!("the stream {name} for the subject {subject} cannot be created");
                Err(Error::wrap(Code::FailedPrecondition, error).with_message(text))
            }
        }
    }

    /// Returns the durable consumer of a group. Creates it if there is none.
    async fn consumer(&self, subject: &str, group: &str) -> Result<Consumer<pull::Config>, Error> {
        let stream = self.stream(subject).await?;
        let name = names::consumer(subject, group);
        if let Ok(consumer) = self.broker.get_consumer_from_stream(&name, &stream).await {
            return Ok(consumer);
        }
        let deliver_policy = if self.settings.from_start { DeliverPolicy::All } else { DeliverPolicy::New };
        let config = pull::Config {
            durable_name: Some(name.clone()),
            description: Some(format!("the group {group} of the subject {subject}")),
            filter_subject: subject.to_owned(),
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.settings.ack_wait,
            // Consumers count attempts themselves, and publish a dead letter after the last one.
            max_deliver: -1,
            max_ack_pending: MAX_UNSETTLED,
            ..pull::Config::default()
        };
        self.broker.create_consumer_on_stream(config, &stream).await.map_err(|error| {
            let text = format!("the consumer {name} of the stream {stream} cannot be created");
            Error::wrap(Code::FailedPrecondition, error).with_message(text)
        })
    }

    fn publish_error(&self, error: PublishError) -> Error {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                let max = self.state.client.max_payload();
                let text = format!("the message is larger than the {max} bytes that the NATS server takes");
                Error::wrap(Code::ResourceExhausted, error).with_message(text).with_retryable(false)
            }
            PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => {
                Error::wrap(Code::Aborted, error)
            }
            PublishErrorKind::MaxAckPending => Error::wrap(Code::ResourceExhausted, error),
            _ => self.unavailable(error, "did not acknowledge the message"),
        }
    }

    fn unavailable(&self, error: impl std::error::Error + Send + Sync + 'static, what: &str) -> Error {
        let text = format!("the NATS server {} {what}", self.servers);
        Error::wrap(Code::Unavailable, error).with_message(text).with_retryable(true)
    }

    /// Runs `work` for at most [`PATIENCE`], and ends before `ctx` does.
    async fn patiently<T>(&self, ctx: &Context, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let limit = ctx.remaining().map_or(PATIENCE, |left| (left * 9 / 10).min(PATIENCE));
        tokio::time::timeout(limit, work).await.unwrap_or_else(|elapsed| {
            let what = match self.state.client.connection_state() {
                State::Connected => format!("did not acknowledge the message within {limit:?}"),
                _ => format!("cannot be reached for {limit:?}: is it running?"),
            };
            Err(self.unavailable(elapsed, &what))
        })
    }
}

impl Medium for JetStream {
    fn system(&self) -> &'static str {
        "nats"
    }

    fn publish<'a>(&'a self, ctx: &'a Context, message: Message) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let _publishing = self.state.publishing()?;
            self.patiently(ctx, self.send(message)).await
        }
        .boxed()
    }

    fn subscribe<'a>(
        &'a self,
        ctx: &'a Context,
        subject: &'a str,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Member>, Error>> {
        async move {
            let consumer = self.patiently(ctx, self.consumer(subject, group)).await?;
            let member: Box<dyn Member> = Box::new(JetStreamMember::new(consumer, Arc::clone(&self.state)));
            Ok(member)
        }
        .boxed()
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        async {
            self.state.set_phase(Phase::Draining);
            let mut busy = self.state.busy.subscribe();
            // The sender lives as long as this medium.
            let _ = busy.wait_for(|busy| busy.unsettled == 0).await;
            self.state.set_phase(Phase::Closed);
            let _ = busy.wait_for(|busy| busy.publishing == 0).await;
            // The last acknowledgements. Without a connection, the broker delivers again.
            let _ = tokio::time::timeout(PATIENCE, self.state.client.flush()).await;
        }
        .boxed()
    }
}
