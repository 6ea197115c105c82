//! The medium: what sends requests over NATS.

use std::fmt;
use std::sync::Arc;

use async_nats::{PublishErrorKind, Subject};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Response;
use throughline::{Code, Error};
use tokio::sync::oneshot;

use super::calls::Outcome;
use super::chunks::send_chunks;
use super::envelope::{decode_response, encode_request};
use super::link::{Cancel, Link, Session};
use super::subjects::{random_id, reply_subject};
use super::{instances, server};
use crate::error::too_large;
use crate::medium::{InstanceChanges, Medium, Outgoing};
use crate::transport::is_name;
use crate::{Inbox, NoSuchService};

pub(super) struct Nats {
    link: Arc<Link>,
}

impl Nats {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Nats { link }
    }
}

impl Medium for Nats {
    fn listen(&self, inbox: Inbox) -> BoxFuture<'_, Result<BoxFuture<'static, ()>, Error>> {
        Box::pin(server::listen(Arc::clone(&self.link), inbox))
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'static, Result<Response<Bytes>, Error>> {
        Box::pin(send(Arc::clone(&self.link), outgoing))
    }

    fn instances<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<InstanceChanges, Error>> {
        Box::pin(instances::instances(Arc::clone(&self.link), service))
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.link.fmt(f)
    }
}

async fn send(link: Arc<Link>, outgoing: Outgoing) -> Result<Response<Bytes>, Error> {
    let Outgoing { service, instance, request, max_body } = outgoing;
    if !is_name(&service) || !instance.as_deref().is_none_or(is_name) {
        return Err(NoSuchService::new(service).into());
    }
    let (subject, cancel_subject) = match &instance {
        Some(instance) => (
            link.subjects.instance(&service, instance, "request"),
            link.subjects.instance(&service, instance, "cancel"),
        ),
        None => (link.subjects.service(&service), link.subjects.cancel(&service)),
    };
    let failure = Failure { link: &link, service: &service, instance: instance.as_ref() };
    if link.is_inbox_forbidden() {
        let inbox = link.broker.inbox_prefix();
        let message = format!("the NATS server does not let this user receive responses on {inbox}.>");
        return Err(Error::new(Code::PermissionDenied, message));
    }
    let session = link.session();
    let epoch = session.epoch().ok_or_else(|| failure.not_sent())?;
    let (head, body) = request.into_parts();
    let mut head = encode_request(&head);
    let max_payload = session.client.max_payload();
    let (inline, chunked) = match head.fits(body.len(), max_payload) {
        true => (body, None),
        false => {
            head.announce(body.len());
            (Bytes::new(), Some(body))
        }
    };
    if !head.fits(0, max_payload) {
        let message = format!("the headers of the request to {service} are larger than {max_payload} bytes");
        return Err(Error::new(Code::ResourceExhausted, message).with_retryable(false));
    }
    let id = random_id();
    let (body_sender, body_subject) = chunked.is_some().then(oneshot::channel).unzip();
    let mut outcome = link.calls.insert(id, epoch, subject.clone(), max_body, body_sender);
    let mut call = Call { link: &link, id, cancel: None };
    // Looked at again: a connection that was lost before the call was inserted does not end it.
    if session.epoch() != Some(epoch) {
        return Err(failure.not_sent());
    }
    let reply = reply_subject(&link.inbox, id);
    let sent = session.client.publish_with_reply_and_headers(subject, reply.clone(), head.headers, inline);
    tokio::select! {
        biased;
        sent = sent => sent.map_err(|error| failure.publish(error.kind()))?,
        // The queue of the connection is full, and then the connection is lost.
        _ = &mut outcome => return Err(failure.not_sent()),
    }
    call.cancel = Some(Cancel { subject: cancel_subject, reply: reply.clone(), is_lost: false });
    let outcome = match chunked.zip(body_subject) {
        None => outcome.await,
        Some((body, body_subject)) => tokio::select! {
            biased;
            outcome = &mut outcome => outcome,
            // The future that sends is pending once everything is sent.
            never = send_body(&session, &failure, body_subject, reply, body) => match never? {},
        },
    };
    match outcome.unwrap_or(Outcome::Disconnected) {
        Outcome::Response(headers, body) => {
            call.cancel = None;
            decode_response(headers.as_ref(), body).map_err(|why| failure.garbage(why))
        }
        Outcome::NoResponders => {
            call.cancel = None;
            Err(failure.no_responders())
        }
        Outcome::Forbidden => {
            call.cancel = None;
            Err(failure.forbidden())
        }
        Outcome::Disconnected => {
            call.cancel.iter_mut().for_each(|cancel| cancel.is_lost = true);
            Err(failure.lost())
        }
        Outcome::TooLarge => Err(too_large("response body", &service, max_body)),
        Outcome::Stalled => Err(failure.garbage("the rest of it does not arrive")),
        Outcome::Garbage(why) => Err(failure.garbage(why)),
    }
}

/// Sends the body in chunks to the instance that has asked for it. It never returns `Ok`.
async fn send_body(
    session: &Session,
    failure: &Failure<'_>,
    subject: oneshot::Receiver<Subject>,
    reply: Subject,
    body: Bytes,
) -> Result<std::convert::Infallible, Error> {
    if let Ok(subject) = subject.await {
        let service = failure.link.subjects.service(failure.service);
        if !subject.strip_prefix(service.as_str()).is_some_and(|rest| rest.starts_with('.')) {
            return Err(failure.garbage("it asks for the body on a subject that is not the service's"));
        }
        send_chunks(session, &subject, Some(&reply), &body).await.map_err(|kind| failure.publish(kind))?;
    }
    std::future::pending().await
}

/// A call in the table. Dropping it before its response cancels it.
struct Call<'a> {
    link: &'a Link,
    id: u128,
    /// `None`: there is nothing to cancel.
    cancel: Option<Cancel>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.link.calls.remove(self.id);
        if let Some(cancel) = self.cancel.take() {
            self.link.cancel(cancel);
        }
    }
}

/// Makes the errors of one call.
struct Failure<'a> {
    link: &'a Link,
    service: &'a str,
    instance: Option<&'a Arc<str>>,
}

impl Failure<'_> {
    /// It was not sent, so that also a request that is not idempotent may be sent again.
    fn not_sent(&self) -> Error {
        let (service, servers) = (self.service, self.link.broker.addresses());
        let message = format!("{service} cannot be reached: there is no connection to the NATS server {servers}");
        Error::new(Code::Unavailable, message).with_retryable(true)
    }

    /// It may have been sent.
    fn lost(&self) -> Error {
        let (service, servers) = (self.service, self.link.broker.addresses());
        let message = format!("the connection to the NATS server {servers} was lost while {service} had the request");
        Error::new(Code::Unavailable, message)
    }

    fn no_responders(&self) -> Error {
        let service = self.service;
        if let Some(instance) = self.instance {
            // No receiver: nobody follows the instances.
            let _ = self.link.gone.send(Arc::clone(instance));
            let message = format!("the instance {instance} of {service} has gone");
            return Error::new(Code::Unavailable, message).with_retryable(true);
        }
        if self.link.has_just_reconnected() {
            let message = format!("no instance of {service} is connected to the NATS server yet");
            return Error::new(Code::Unavailable, message).with_retryable(true);
        }
        NoSuchService::new(service).into()
    }

    fn forbidden(&self) -> Error {
        let message = format!("the NATS server does not let this user send requests to {}", self.service);
        Error::new(Code::PermissionDenied, message)
    }

    fn publish(&self, kind: PublishErrorKind) -> Error {
        match kind {
            PublishErrorKind::MaxPayloadExceeded => {
                let message = format!("the NATS server takes no message as large as the request to {}", self.service);
                Error::new(Code::ResourceExhausted, message).with_retryable(false)
            }
            PublishErrorKind::Send | PublishErrorKind::InvalidSubject => self.not_sent(),
        }
    }

    fn garbage(&self, why: &str) -> Error {
        Error::new(Code::Internal, format!("the response of {} is not valid: {why}", self.service))
    }
}
