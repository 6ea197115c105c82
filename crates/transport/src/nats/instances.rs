//! The instances of a service: those that respond to `$SRV.PING.NAME`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use throughline::{Code, Error};
use tokio::sync::broadcast;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tower::discover::Change;

use super::link::{Link, Session};
use super::micro::instance_of;
use super::subjects::random_name;
use crate::NoSuchService;
use crate::medium::InstanceChanges;
use crate::transport::is_name;

/// How often the instances are asked for.
const PAUSE: Duration = Duration::from_secs(5);

/// After so many pauses without a response an instance is removed.
const MISSED: u64 = 2;

/// How long the first response may take.
const FIRST: Duration = Duration::from_secs(5);

/// Peers that make up names do not fill the memory.
const MAX_INSTANCES: usize = 4096;

/// Returns as soon as one instance has responded. The others follow as changes.
pub(super) async fn instances(link: Arc<Link>, service: &str) -> Result<InstanceChanges, Error> {
    if !is_name(service) {
        return Err(NoSuchService::new(service).into());
    }
    let service: Arc<str> = service.into();
    let unavailable = |why: &str| {
        let servers = link.broker.addresses();
        let message = format!("the instances of {service} are not known: {why} the NATS server {servers}");
        Error::new(Code::Unavailable, message).with_retryable(true)
    };
    let session = link.session();
    if session.epoch().is_none() {
        return Err(unavailable("there is no connection to"));
    }
    let gone = link.gone.subscribe();
    let mut watch = Watch::new(Arc::clone(&link), session, Arc::clone(&service), gone)
        .await
        .ok_or_else(|| unavailable("there is no connection to"))?;
    let first = timeout(FIRST, async {
        loop {
            match watch.replies.next().await {
                Some(message) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                    return Err(match link.has_just_reconnected() {
                        true => unavailable("none is connected yet to"),
                        false => NoSuchService::new(Arc::clone(&service)).into(),
                    });
                }
                Some(message) => watch.take(&message),
                None => return Err(unavailable("there is no connection to")),
            }
            if !watch.changes.is_empty() {
                return Ok(());
            }
        }
    });
    first.await.unwrap_or_else(|_| Err(unavailable("none has responded over")))?;
    if link.settings.is_balanced_by_broker {
        let all = stream::iter([Change::Insert(Arc::from(""), ())]).chain(stream::pending());
        return Ok(all.boxed());
    }
    let changes = stream::unfold(watch, |mut watch| async move {
        let change = watch.next().await;
        Some((change, watch))
    });
    Ok(changes.boxed())
}

struct Watch {
    link: Arc<Link>,
    session: Arc<Session>,
    service: Arc<str>,
    replies: Subscriber,
    inbox: String,
    /// The instances, and the round in which each responded last.
    known: HashMap<Arc<str>, u64>,
    round: u64,
    tick: Interval,
    gone: broadcast::Receiver<Arc<str>>,
    changes: VecDeque<Change<Arc<str>, ()>>,
}

impl Watch {
    async fn new(
        link: Arc<Link>,
        session: Arc<Session>,
        service: Arc<str>,
        gone: broadcast::Receiver<Arc<str>>,
    ) -> Option<Self> {
        let inbox = format!("{}.{}", link.broker.inbox_prefix(), random_name());
        let replies = session.client.subscribe(inbox.clone()).await.ok()?;
        let mut tick = interval_at(Instant::now() + PAUSE, PAUSE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (known, changes) = (HashMap::new(), VecDeque::new());
        let watch = Watch { link, session, service, replies, inbox, known, round: 0, tick, gone, changes };
        watch.ping().await;
        Some(watch)
    }

    async fn ping(&self) {
        let subject = format!("$SRV.PING.{}", self.service);
        // An error means that the client has failed. The next session is used then.
        let _ = self.session.client.publish_with_reply(subject, self.inbox.clone(), Bytes::new()).await;
    }

    async fn next(&mut self) -> Change<Arc<str>, ()> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return change;
            }
            tokio::select! {
                message = self.replies.next() => match message {
                    Some(message) => self.take(&message),
                    None => self.subscribe_again().await,
                },
                // When too many are gone at once, the next rounds remove them.
                gone = self.gone.recv() => if let Ok(name) = gone {
                    self.remove(&name);
                },
                _ = self.tick.tick() => self.begin_round().await,
            }
        }
    }

    fn take(&mut self, message: &Message) {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            // After a restart of the broker the instances come back, each in its time.
            if !self.link.has_just_reconnected() {
                self.changes.extend(self.known.drain().map(|(name, _)| Change::Remove(name)));
            }
            return;
        }
        let Some(name) = instance_of(&message.payload, &self.service) else { return };
        if !self.known.contains_key(&name) {
            if self.known.len() >= MAX_INSTANCES {
                return;
            }
            self.changes.push_back(Change::Insert(Arc::clone(&name), ()));
        }
        self.known.insert(name, self.round);
    }

    fn remove(&mut self, name: &Arc<str>) {
        if self.known.remove(name).is_some() {
            self.changes.push_back(Change::Remove(Arc::clone(name)));
        }
    }

    async fn begin_round(&mut self) {
        // While there is no connection, silence means nothing.
        if self.session.epoch().is_none() {
            return;
        }
        self.round += 1;
        let (round, changes) = (self.round, &mut self.changes);
        self.known.retain(|name, responded| {
            let is_known = round - *responded <= MISSED;
            if !is_known {
                changes.push_back(Change::Remove(Arc::clone(name)));
            }
            is_known
        });
        self.ping().await;
    }

    async fn subscribe_again(&mut self) {
        self.session = self.link.next_session(&self.session).await;
        if let Ok(replies) = self.session.client.subscribe(self.inbox.clone()).await {
            self.replies = replies;
        }
    }
}
