//! The connection to the broker, shared by the calls and the listeners of a transport.
//!
//! - session: one client of `async-nats`. It reconnects by itself. If its task fails, the link
//!   makes another session.
//! - epoch: the number of a connection. A call belongs to the connection that it was sent over, and
//!   ends when that one is lost.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Event, ServerError, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use throughline::Error;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::calls::{Calls, Outcome};
use super::options::Broker;
use super::subjects::{Subjects, id_of, random_id, random_name, reply_subject};

/// How long a round trip to the broker may take.
const ROUND_TRIP: Duration = Duration::from_secs(5);

/// How long after a reconnect services may take to come back. The pause between two attempts of
/// `async-nats` to reconnect is at most 4 s.
const RETURNING: Duration = Duration::from_secs(5);

pub(super) struct Link {
    pub(super) broker: Broker,
    pub(super) settings: Settings,
    pub(super) subjects: Subjects,
    pub(super) calls: Arc<Calls>,
    /// The prefix of the subjects for responses. It is unique.
    pub(super) inbox: String,
    /// Names of instances that nothing has subscribed for.
    pub(super) gone: broadcast::Sender<Arc<str>>,
    sessions: watch::Sender<Arc<Session>>,
    cancels: mpsc::UnboundedSender<Cancel>,
    events: Arc<Events>,
    tasks: [AbortHandle; 2],
}

/// What a [`NatsBuilder`](super::NatsBuilder) has set beside how to connect.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) subject_prefix: String,
    pub(super) in_background: bool,
    pub(super) is_balanced_by_broker: bool,
    pub(super) version: String,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    generation: u64,
}

/// What the callbacks of a client record.
#[derive(Debug, Default)]
struct Events {
    /// That of the link.
    inbox: String,
    changed: Notify,
    has_connected: AtomicBool,
    reconnected_at: Mutex<Option<Instant>>,
    is_inbox_forbidden: AtomicBool,
    /// The last errors of permissions.
    violations: Mutex<Vec<String>>,
}

/// A message that cancels a call.
pub(super) struct Cancel {
    pub(super) subject: Subject,
    /// The reply subject of the call.
    pub(super) reply: Subject,
    /// Whether the call was sent over a connection that is lost.
    pub(super) is_lost: bool,
}

/// How many cancels of lost calls are kept.
const MAX_LOST: usize = 65_536;

impl Link {
    pub(super) async fn connect(broker: Broker, settings: Settings) -> Result<Arc<Link>, Error> {
        let inbox = format!("{}.{}", broker.inbox_prefix(), random_name());
        let events = Arc::new(Events { inbox: inbox.clone(), ..Events::default() });
        let client = open(&broker, &events, settings.in_background).await?;
        // The task of the client runs, so that this does not fail. Else the router makes another.
        let replies = client.subscribe(format!("{inbox}.*")).await.ok();
        let sessions = watch::Sender::new(Arc::new(Session { client, generation: 0 }));
        let calls = Arc::new(Calls::default());
        let (cancels, cancelled) = mpsc::unbounded_channel();
        let router = Router {
            broker: broker.clone(),
            events: Arc::clone(&events),
            sessions: sessions.clone(),
            calls: Arc::clone(&calls),
            inbox: inbox.clone(),
        };
        let router = tokio::spawn(router.run(replies));
        let canceller = tokio::spawn(send_cancels(sessions.subscribe(), Arc::clone(&events), cancelled));
        Ok(Arc::new(Link {
            subjects: Subjects(settings.subject_prefix.clone()),
            broker,
            settings,
            calls,
            inbox,
            gone: broadcast::Sender::new(64),
            sessions,
            cancels,
            events,
            tasks: [router.abort_handle(), canceller.abort_handle()],
        }))
    }

    pub(super) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.sessions.borrow())
    }

    /// Waits for a session after that of `client`, whose task has failed.
    pub(super) async fn next_session(&self, session: &Session) -> Arc<Session> {
        let mut sessions = self.sessions.subscribe();
        let newer = sessions.wait_for(|other| other.generation > session.generation).await;
        newer.map(|newer| Arc::clone(&newer)).unwrap_or_else(|_| self.session())
    }

    /// Cancels a call. It never waits.
    ///
    /// The queue holds at most the calls that were sent.
    pub(super) fn cancel(&self, cancel: Cancel) {
        let _ = self.cancels.send(cancel);
    }

    /// Waits until the broker has handled what was sent so far. `false`: it does not respond.
    pub(super) async fn round_trip(&self) -> bool {
        let session = self.session();
        let Some(epoch) = session.epoch() else { return false };
        let id = random_id();
        let subject = reply_subject(&self.inbox, id);
        let waiting = self.calls.insert(id, epoch, subject.clone(), 0, None);
        let sent = session.client.publish(subject, Bytes::new()).await;
        let arrived = match sent {
            Ok(()) => timeout(ROUND_TRIP, waiting).await,
            Err(_) => Ok(Ok(Outcome::Disconnected)),
        };
        self.calls.remove(id);
        // A refusal comes after what was sent before, too.
        matches!(arrived, Ok(Ok(Outcome::Response(..) | Outcome::Forbidden)))
    }

    /// Whether services that were there before may not have reconnected yet.
    pub(super) fn has_just_reconnected(&self) -> bool {
        self.events.has_just_reconnected()
    }

    /// Whether this user may not receive responses.
    pub(super) fn is_inbox_forbidden(&self) -> bool {
        self.events.is_inbox_forbidden.load(Ordering::Relaxed)
    }

    /// Takes the error that forbids to subscribe to a subject.
    pub(super) fn violation(&self, subject: &str) -> Option<String> {
        let mut violations = self.events.violations.lock().unwrap_or_else(PoisonError::into_inner);
        let quoted = format!("\"{subject}\"");
        let found = violations.iter().position(|violation| violation.contains(&quoted))?;
        Some(violations.remove(found))
    }
}

impl Session {
    /// The number of the connection. `None`: there is none.
    pub(super) fn epoch(&self) -> Option<u64> {
        let connects = self.client.statistics().connects.load(Ordering::SeqCst);
        let is_connected = self.client.connection_state() == State::Connected;
        is_connected.then_some((self.generation << 32) + connects)
    }

    /// The number that calls must have to be alive.
    fn oldest_epoch(&self) -> u64 {
        let connects = self.client.statistics().connects.load(Ordering::SeqCst);
        let is_connected = self.client.connection_state() == State::Connected;
        (self.generation << 32) + connects + u64::from(!is_connected)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.session().client.connection_state();
        f.debug_struct("Nats")
            .field("servers", &self.broker.addresses())
            .field("state", &state)
            .field("calls", &self.calls.len())
            .finish_non_exhaustive()
    }
}

async fn open(broker: &Broker, events: &Arc<Events>, in_background: bool) -> Result<Client, Error> {
    let events = Arc::clone(events);
    broker.connect(in_background, move |event| events.record(event)).await
}

impl Events {
    fn record(&self, event: Event) {
        match event {
            Event::Connected => {
                self.is_inbox_forbidden.store(false, Ordering::Relaxed);
                if self.has_connected.swap(true, Ordering::SeqCst) {
                    *self.reconnected_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
            }
            Event::Disconnected | Event::Closed => self.changed.notify_one(),
            Event::ServerError(ServerError::Other(text)) if text.to_ascii_lowercase().contains("permissions") => {
                tracing::warn!(error = text, "the NATS server forbids a subject");
                if text.contains(&format!("\"{}.*\"", self.inbox)) {
                    self.is_inbox_forbidden.store(true, Ordering::Relaxed);
                }
                let mut violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
                if violations.len() >= 32 {
                    violations.remove(0);
                }
                violations.push(text);
                drop(violations);
                self.changed.notify_one();
            }
            _ => {}
        }
    }
}

impl Events {
    fn has_just_reconnected(&self) -> bool {
        let reconnected_at = *self.reconnected_at.lock().unwrap_or_else(PoisonError::into_inner);
        reconnected_at.is_some_and(|at| at.elapsed() < RETURNING)
    }

    /// Takes the subjects that this user has sent to and may not.
    fn forbidden(&self) -> Vec<String> {
        let mut violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        let is_publish = |text: &mut String| text.to_ascii_lowercase().contains("publish");
        let texts = violations.extract_if(.., is_publish);
        texts.filter_map(|text| text.split('"').nth(1).map(str::to_owned)).collect()
    }
}

/// Gives the messages of the inbox to their calls.
struct Router {
    broker: Broker,
    events: Arc<Events>,
    sessions: watch::Sender<Arc<Session>>,
    calls: Arc<Calls>,
    inbox: String,
}

impl Router {
    fn subject(&self) -> String {
        format!("{}.*", self.inbox)
    }

    async fn run(self, replies: Option<Subscriber>) {
        let mut replies = match replies {
            Some(replies) => replies,
            None => self.renew().await,
        };
        // Events can be lost when very many come at once, so it looks by itself, too.
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = replies.next() => match message {
                    Some(message) => if let Some(id) = id_of(&message.subject) {
                        self.calls.route(id, message);
                    },
                    None => replies = self.renew().await,
                },
                () = self.events.changed.notified() => self.sweep(),
                _ = tick.tick() => self.sweep(),
            }
        }
    }

    fn sweep(&self) {
        for subject in self.events.forbidden() {
            self.calls.forbid(&subject);
        }
        let oldest = self.sessions.borrow().oldest_epoch();
        self.calls.sweep(oldest);
    }

    /// Makes a session after the task of a client has failed, and returns its subscription.
    async fn renew(&self) -> Subscriber {
        tracing::error!("the NATS client has failed; a new one connects");
        loop {
            let generation = self.sessions.borrow().generation + 1;
            self.calls.sweep(generation << 32);
            if let Ok(client) = open(&self.broker, &self.events, true).await {
                let replies = client.subscribe(self.subject()).await;
                self.sessions.send_replace(Arc::new(Session { client, generation }));
                if let Ok(replies) = replies {
                    return replies;
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Sends the messages that cancel calls. While there is no connection, they wait for the next one.
///
/// Those of lost calls are sent once more later, when the instances are connected again, too.
async fn send_cancels(
    sessions: watch::Receiver<Arc<Session>>,
    events: Arc<Events>,
    mut cancels: mpsc::UnboundedReceiver<Cancel>,
) {
    let mut lost = Vec::new();
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = tokio::select! {
            cancel = cancels.recv() => match cancel {
                Some(cancel) => vec![cancel],
                None => return,
            },
            _ = tick.tick(), if !lost.is_empty() => {
                let is_connected = sessions.borrow().epoch().is_some();
                if !is_connected || events.has_just_reconnected() {
                    continue;
                }
                std::mem::take(&mut lost)
            }
        };
        let session = Arc::clone(&sessions.borrow());
        for Cancel { subject, reply, is_lost } in due {
            let _ = session.client.publish_with_reply(subject.clone(), reply.clone(), Bytes::new()).await;
            if is_lost && lost.len() < MAX_LOST {
                lost.push(Cancel { subject, reply, is_lost: false });
            }
        }
    }
}
