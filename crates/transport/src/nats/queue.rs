//! The requests to any instance of a service, with an end that loses none.
//!
//! `async-nats` forgets a subscription when it has sent `UNSUB`, and drops what the broker sent
//! before it read that. So the queue ends after a number of messages that both sides count:
//! `UNSUB sid number`. Fillers, which are messages without a meaning, bring the number about.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::{Message, SubscribeError, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::unconstrained;
use tokio::time::timeout;

use super::envelope::encode_filler;
use super::link::Session;
use super::subjects::QUEUE;

/// How many more requests end the queue. So many may be on the way from the broker.
const LAST: u64 = 256;

/// How often fillers are sent. Other instances of the service get some of them.
pub(super) const FILL_PAUSE: Duration = Duration::from_millis(10);

/// After so many times (2 s) the queue ends without fillers: the user may not send to its subject.
const MAX_FILLS: u32 = 200;

pub(super) struct Queue {
    subject: String,
    subscriber: Subscriber,
    /// Counts on both sides start again with each connection, and so does the subscription.
    epoch: Option<u64>,
    received: u64,
    /// A subscription of an earlier connection, with messages that are not taken yet.
    earlier: Option<Subscriber>,
    fills: u32,
}

impl Queue {
    pub(super) async fn new(session: &Session, subject: String) -> Result<Self, SubscribeError> {
        let epoch = session.epoch();
        let subscriber = session.client.queue_subscribe(subject.clone(), QUEUE.to_owned()).await?;
        Ok(Queue { subject, subscriber, epoch, received: 0, earlier: None, fills: 0 })
    }

    /// Takes the next request. `None`: the queue has ended, or the client has failed.
    pub(super) async fn next(&mut self) -> Option<Message> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Takes a request that has arrived.
    pub(super) fn arrived(&mut self) -> Option<Message> {
        unconstrained(self.next()).now_or_never().flatten()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        if let Some(earlier) = &mut self.earlier {
            match earlier.poll_next_unpin(cx) {
                Poll::Ready(None) => self.earlier = None,
                Poll::Ready(message) => return Poll::Ready(message),
                Poll::Pending => {}
            }
        }
        let polled = self.subscriber.poll_next_unpin(cx);
        self.received += u64::from(matches!(polled, Poll::Ready(Some(_))));
        polled
    }

    /// Makes a subscription of its own for each connection.
    pub(super) async fn follow(&mut self, session: &Session) {
        let epoch = session.epoch();
        if self.epoch.is_none() {
            // It was made before the first connection.
            self.epoch = epoch;
        }
        if epoch.is_none() || epoch == self.epoch {
            return;
        }
        if let Ok(subscriber) = session.client.queue_subscribe(self.subject.clone(), QUEUE.to_owned()).await {
            let mut earlier = std::mem::replace(&mut self.subscriber, subscriber);
            let _ = earlier.drain().await;
            (self.epoch, self.received, self.earlier) = (epoch, 0, Some(earlier));
        }
    }

    /// Sends fillers until the queue has ended. Call it every [`FILL_PAUSE`]; the first call begins
    /// the end. `false`: do not wait for more.
    pub(super) async fn fill(&mut self, session: &Session) -> bool {
        if session.epoch().is_none() {
            // The broker has forgotten the subscription.
            return false;
        }
        self.fills += 1;
        match self.fills {
            1 => {
                self.follow(session).await;
                if self.subscriber.unsubscribe_after(self.received + LAST).await.is_err() {
                    return false;
                }
            }
            MAX_FILLS => return self.subscriber.drain().await.is_ok(),
            fills if fills > MAX_FILLS => return fills < MAX_FILLS + 50,
            _ => {}
        }
        let send = async {
            for _ in 0..LAST {
                let sent = session.client.publish_with_headers(self.subject.clone(), encode_filler(), Bytes::new());
                if sent.await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(FILL_PAUSE * 10, send).await;
        true
    }
}
