//! The listening side: one task for each listener takes its messages.
//!
//! The reply subject of a request identifies it. Messages that cancel a request, or that carry its
//! body, have the same reply subject. It has 128 random bits, and only the caller and the instance
//! know it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::future::{AbortHandle, BoxFuture, abortable};
use futures_util::stream::{FuturesUnordered, SelectAll, select_all};
use futures_util::{FutureExt as _, StreamExt as _};
use http::Response;
use throughline::{Code, Error};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::bodies::Bodies;
use super::chunks::send_chunks;
use super::envelope::{decode_length, decode_offset, decode_request, encode_continue, encode_response, is_filler};
use super::link::{Link, Session};
use super::micro::{self, Instance};
use super::queue::{FILL_PAUSE, Queue};
use super::subjects::random_name;
use crate::error::response_of;
use crate::{Inbox, Reply};

/// How many responses, refusals included, may wait to be sent beyond the requests in flight.
const WAITING_RESPONSES: usize = 1024;

/// How often ignored messages are logged at most.
const LOG_PAUSE: Duration = Duration::from_secs(60);

pub(super) async fn listen(link: Arc<Link>, inbox: Inbox) -> Result<BoxFuture<'static, ()>, Error> {
    let (version, subject) = (link.settings.version.clone(), link.subjects.service(inbox.service()).to_string());
    let instance = Instance::new(inbox.service().into(), random_name(), version, subject);
    let session = link.session();
    let Ok(subscriptions) = Subscriptions::new(&link, &session, &instance).await else {
        let message = format!("the client of the NATS server {} has failed", link.broker.addresses());
        return Err(Error::new(Code::Unavailable, message).with_retryable(true));
    };
    // Without a connection, the subscriptions are made when there is one.
    if session.epoch().is_some() && !link.round_trip().await && session.epoch().is_some() {
        let message = format!(
            "the NATS server {} does not respond: may this user subscribe to {inbox}.> and publish to it?",
            link.broker.addresses(),
            inbox = link.broker.inbox_prefix(),
        );
        return Err(Error::new(Code::Unavailable, message));
    }
    if let Some(violation) = link.violation(&instance.subject) {
        return Err(Error::new(Code::PermissionDenied, violation));
    }
    let (ended_sender, ended) = oneshot::channel::<()>();
    let server = Server {
        link,
        inbox,
        instance: Arc::new(instance),
        requests: HashMap::new(),
        bodies: Bodies::default(),
        sending: FuturesUnordered::new(),
        ignored: 0,
        ignored_logged_at: None,
    };
    // A task of its own: requests that were taken get their responses also after the listener.
    tokio::spawn(async move {
        server.run(session, subscriptions).await;
        drop(ended_sender);
    });
    Ok(Box::pin(async move {
        let _ = ended.await;
    }))
}

/// What one listener has subscribed to.
struct Subscriptions {
    /// Requests to any instance.
    requests: Queue,
    /// Requests, cancels and bodies for this instance.
    own: Subscriber,
    /// Cancels of requests to any instance.
    cancels: Subscriber,
    /// The NATS services protocol.
    discovery: SelectAll<Subscriber>,
}

impl Subscriptions {
    async fn new(link: &Link, session: &Session, instance: &Instance) -> Result<Self, async_nats::SubscribeError> {
        let (client, service, id) = (&session.client, &*instance.service, &*instance.id);
        let own = client.subscribe(link.subjects.instance(service, id, ">")).await?;
        let cancels = client.subscribe(link.subjects.cancel(service)).await?;
        let mut discovery = Vec::new();
        for subject in micro::subjects(service, id) {
            discovery.push(client.subscribe(subject).await?);
        }
        // The last one, so that all the others are there when a request arrives.
        let requests = Queue::new(session, instance.subject.clone()).await?;
        Ok(Subscriptions { requests, own, cancels, discovery: select_all(discovery) })
    }
}

struct Server {
    link: Arc<Link>,
    inbox: Inbox,
    instance: Arc<Instance>,
    /// The requests in flight, by their reply subjects.
    requests: HashMap<Arc<str>, AbortHandle>,
    bodies: Bodies,
    /// Wait for responses and send them, without a task and its wake-ups for each. A future returns
    /// the reply subject of its request.
    sending: FuturesUnordered<BoxFuture<'static, Option<Arc<str>>>>,
    ignored: u64,
    ignored_logged_at: Option<Instant>,
}

impl Server {
    async fn run(mut self, mut session: Arc<Session>, mut from: Subscriptions) {
        let mut draining = std::pin::pin!(self.inbox.draining());
        let (mut is_draining, mut has_all_requests) = (false, false);
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fill = interval(FILL_PAUSE);
        fill.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(has_all_requests && self.sending.is_empty() && self.bodies.len() == 0) {
            tokio::select! {
                () = &mut draining, if !is_draining => {
                    is_draining = true;
                    from.discovery.clear();
                }
                _ = fill.tick(), if is_draining && !has_all_requests => {
                    has_all_requests = !from.requests.fill(&session).await;
                }
                message = from.requests.next(), if !has_all_requests => match message {
                    Some(message) => self.take(message),
                    None if is_draining => has_all_requests = true,
                    None => (session, from) = subscribe_again(&self.link, &self.instance, session).await,
                },
                Some(message) = from.own.next() => self.take_own(message, is_draining),
                Some(message) = from.cancels.next() => {
                    // The request was sent before, and may have arrived on the other subscription.
                    while let Some(request) = from.requests.arrived() {
                        self.take(request);
                    }
                    self.cancel(&message);
                }
                Some(message) = from.discovery.next(), if !is_draining => self.describe(message),
                Some(ended) = self.sending.next() => if let Some(reply) = ended {
                    self.requests.remove(&reply);
                },
                _ = tick.tick() => {
                    self.bodies.drop_stalled();
                    self.ask_for_bodies();
                    if !is_draining {
                        from.requests.follow(&session).await;
                    }
                }
            }
        }
        drop(from);
        // The broker has the responses, and knows that nothing listens any more.
        self.link.round_trip().await;
    }

    /// Takes a request. It never waits.
    fn take(&mut self, message: Message) {
        let Some(reply) = message.reply else {
            if !is_filler(message.headers.as_ref()) {
                self.ignore("it has no reply subject");
            }
            return;
        };
        if self.requests.contains_key(reply.as_str()) || self.bodies.contains(reply.as_str()) {
            return self.ignore("its reply subject is that of another request");
        }
        // A peer that sends more than responses can be sent does not fill the memory.
        if self.sending.len() >= self.inbox.max_in_flight().saturating_add(WAITING_RESPONSES) {
            return self.ignore("too many responses wait for the connection");
        }
        let headers = message.headers.as_ref();
        let decoded = decode_request(headers, message.payload)
            .and_then(|request| decode_length(headers).map(|length| (request, length)));
        let (request, length) = match decoded {
            Ok(decoded) => decoded,
            Err(why) => {
                self.refuse_garbage(reply, why);
                return self.ignore(why);
            }
        };
        let waiting = match length {
            None | Some(0) => self.inbox.deliver(request),
            Some(length) if length > self.inbox.max_body() => self.inbox.refuse_body(),
            Some(length) => match self.inbox.admit() {
                Err(refusal) => refusal,
                Ok(admission) => {
                    self.bodies.insert(reply.as_str().into(), admission, request, length);
                    return self.ask_for_bodies();
                }
            },
        };
        self.respond(reply, waiting);
    }

    /// Asks for the bodies whose turn it is.
    fn ask_for_bodies(&mut self) {
        while let Some(reply) = self.bodies.next_to_ask() {
            let subject = self.link.subjects.instance(&self.instance.service, &self.instance.id, "body");
            let session = self.link.session();
            self.send(async move {
                let (to, headers) = (Subject::from(&*reply), encode_continue());
                let _ = session.client.publish_with_reply_and_headers(to, subject, headers, Bytes::new()).await;
            });
        }
    }

    fn take_own(&mut self, message: Message, is_draining: bool) {
        match message.subject.rsplit('.').next() {
            // The caller chooses another instance.
            Some("request") if is_draining => match message.reply {
                Some(reply) => {
                    let refusal = self.inbox.refuse_ended();
                    self.respond(reply, refusal);
                }
                None => self.ignore("it has no reply subject"),
            },
            Some("request") => self.take(message),
            Some("cancel") => self.cancel(&message),
            Some("body") => self.take_chunk(message),
            _ => self.ignore("its subject is not known"),
        }
    }

    fn take_chunk(&mut self, message: Message) {
        let Some(reply) = message.reply else { return self.ignore("it has no reply subject") };
        // One for a request that was cancelled or refused is late, not wrong.
        let offset = decode_offset(message.headers.as_ref());
        match self.bodies.add(&reply, offset, &message.payload) {
            None => return,
            Some(Ok((admission, request))) => {
                let waiting = admission.deliver(request);
                self.respond(reply, waiting);
            }
            Some(Err(why)) => {
                self.refuse_garbage(reply, why);
                self.ignore(why);
            }
        }
        self.ask_for_bodies();
    }

    /// Drops the `Reply` of a request: its caller has given up.
    fn cancel(&mut self, message: &Message) {
        let Some(reply) = &message.reply else { return self.ignore("it has no reply subject") };
        let request = self.requests.remove(reply.as_str());
        self.bodies.cancel(reply);
        self.ask_for_bodies();
        if let Some(request) = request {
            request.abort();
        }
    }

    /// Sends the response once it is there.
    fn respond(&mut self, reply: Subject, waiting: Reply) {
        let (link, service) = (Arc::clone(&self.link), Arc::clone(&self.instance.service));
        let key: Arc<str> = reply.as_str().into();
        let ended = Arc::clone(&key);
        let (response, abort) = abortable(async move {
            let response = waiting.await;
            send_response(&link.session(), &service, &reply, response).await;
        });
        self.sending.push(response.map(|sent| sent.is_ok().then_some(ended)).boxed());
        self.requests.insert(key, abort);
    }

    fn send(&self, message: impl Future<Output = ()> + Send + 'static) {
        self.sending.push(message.map(|()| None).boxed());
    }

    fn refuse_garbage(&mut self, reply: Subject, why: &str) {
        let (session, service) = (self.link.session(), Arc::clone(&self.instance.service));
        let error = Error::new(Code::InvalidArgument, format!("the request to {service} is not valid: {why}"));
        let response = response_of(error, &service);
        self.send(async move { send_response(&session, &service, &reply, response).await });
    }

    /// Responds to a request of the NATS services protocol.
    fn describe(&mut self, message: Message) {
        let Some(reply) = message.reply else { return };
        if self.sending.len() >= self.inbox.max_in_flight().saturating_add(WAITING_RESPONSES) {
            return;
        }
        let Some(json) = self.instance.describe(&message.subject, || self.inbox.counters()) else { return };
        let session = self.link.session();
        self.send(async move { drop(session.client.publish(reply, json.into()).await) });
    }

    /// Counts a message that is not valid, and logs the count from time to time.
    fn ignore(&mut self, why: &str) {
        self.ignored += 1;
        if self.ignored_logged_at.is_none_or(|at| at.elapsed() >= LOG_PAUSE) {
            self.ignored_logged_at = Some(Instant::now());
            let (service, total) = (&*self.instance.service, self.ignored);
            tracing::warn!(service, why, total, "a message was ignored: it is not a valid request");
        }
    }
}

/// Subscribes over the next session, after the client has failed.
async fn subscribe_again(link: &Link, instance: &Instance, mut session: Arc<Session>) -> (Arc<Session>, Subscriptions) {
    loop {
        session = link.next_session(&session).await;
        if let Ok(subscriptions) = Subscriptions::new(link, &session, instance).await {
            return (session, subscriptions);
        }
    }
}

async fn send_response(session: &Session, service: &str, to: &Subject, response: Response<Bytes>) {
    let max_payload = session.client.max_payload();
    let (head, body) = response.into_parts();
    let (mut encoded, mut body) = (encode_response(&head), body);
    if !encoded.fits(128, max_payload) {
        let message = format!("the headers of the response of {service} are larger than {max_payload} bytes");
        let error = Error::new(Code::ResourceExhausted, message).with_retryable(false);
        let (head, problem) = response_of(error, service).into_parts();
        (encoded, body) = (encode_response(&head), problem);
    }
    // An error means that the client has failed, and with it the call.
    if encoded.fits(body.len(), max_payload) {
        let _ = session.client.publish_with_headers(to.clone(), encoded.headers, body).await;
        return;
    }
    encoded.announce(body.len());
    if session.client.publish_with_headers(to.clone(), encoded.headers, Bytes::new()).await.is_ok() {
        let _ = send_chunks(session, to, None, &body).await;
    }
}
