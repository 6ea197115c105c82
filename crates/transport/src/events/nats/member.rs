//! A member of a group: it pulls messages from the durable consumer.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::message::Message as Received;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Mutex;

use super::super::counters::GroupCounters;
use super::super::medium::{Member, Taken};
use super::super::message::Message;
use super::headers;
use super::holder::{HeldReceipt, Holder};
use super::shared::{Phase, Shared};

/// How long the broker keeps a request for messages. Then the member sends another one.
const PULL: Duration = Duration::from_secs(10);

/// The pause after a request for messages that failed.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct JetStreamMember {
    consumer: Consumer<pull::Config>,
    /// The request for messages that is open.
    batch: Mutex<Option<pull::Batch>>,
    holder: Holder,
    shared: Arc<Shared>,
    counters: GroupCounters,
}

impl JetStreamMember {
    pub(super) fn new(consumer: Consumer<pull::Config>, shared: Arc<Shared>) -> Self {
        let ack_wait = consumer.cached_info().config.ack_wait;
        let holder = Holder::start(Arc::clone(&shared), ack_wait);
        JetStreamMember { consumer, batch: Mutex::default(), holder, shared, counters: GroupCounters::default() }
    }

    async fn take(&self, capacity: usize) -> Option<Taken> {
        let mut phase = self.shared.phase.subscribe();
        let mut connected = self.shared.connected.clone();
        let mut batch = self.batch.lock().await;
        loop {
            if *phase.borrow_and_update() > Phase::Open {
                self.release(batch.take());
                return None;
            }
            let Some(open) = &mut *batch else {
                match self.consumer.batch().max_messages(capacity.max(1)).expires(PULL).messages().await {
                    Ok(open) => *batch = Some(open),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
                continue;
            };
            // A connection that was lost has lost the request. Messages that arrived come first.
            let received = tokio::select! {
                biased;
                received = open.next() => received,
                _ = phase.changed() => continue,
                _ = connected.changed() => None,
            };
            match received {
                Some(Ok(message)) => {
                    if let Some((message, attempt, receipt)) = self.hold(message) {
                        return Some(Taken { message, attempt, receipt: Box::new(receipt) });
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(error = &*error as &dyn std::error::Error, "a request for messages failed");
                    *batch = None;
                    tokio::time::sleep(PAUSE).await;
                }
                None => *batch = None,
            }
        }
    }

    /// `None`: the message did not come from JetStream.
    fn hold(&self, message: Received) -> Option<(Message, u32, HeldReceipt)> {
        let delivered = message.info().ok()?.delivered;
        let reply = message.reply.as_ref()?.to_string();
        let headers = message.headers.as_ref().map(headers::from_broker).unwrap_or_default();
        let subject = message.subject.to_string();
        let attempt = u32::try_from(delivered.max(1)).unwrap_or(u32::MAX);
        Some((Message { subject, headers, payload: message.message.payload }, attempt, self.holder.hold(reply)))
    }

    /// Gives the messages back that have arrived and were not taken.
    fn release(&self, batch: Option<pull::Batch>) {
        let Some(mut batch) = batch else { return };
        while let Some(Some(Ok(message))) = batch.next().now_or_never() {
            if let Some((_, _, receipt)) = self.hold(message) {
                receipt.release();
            }
        }
    }
}

impl Member for JetStreamMember {
    fn next(&self, capacity: usize) -> BoxFuture<'_, Option<Taken>> {
        self.take(capacity).boxed()
    }

    fn counters(&self) -> &GroupCounters {
        &self.counters
    }
}

impl Drop for JetStreamMember {
    fn drop(&mut self) {
        let batch = self.batch.get_mut().take();
        self.release(batch);
    }
}
