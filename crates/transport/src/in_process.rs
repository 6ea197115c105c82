//! The medium within one process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use http::Response;
use throughline::{Code, Error};
use tower::discover::Change;

use crate::medium::{InstanceChanges, Medium, Outgoing};
use crate::{Inbox, NoSuchService};

/// Delivers requests to listeners of the same process.
#[derive(Default)]
pub(crate) struct InProcess {
    inboxes: Mutex<HashMap<Arc<str>, Inbox>>,
}

impl InProcess {
    /// Returns the inbox of a listener that has not ended.
    fn find(&self, service: &str) -> Option<Inbox> {
        let mut inboxes = self.lock();
        let is_closed = inboxes.get(service)?.is_closed();
        let found = if is_closed { inboxes.remove(service) } else { inboxes.get(service).cloned() };
        drop(inboxes);
        found.filter(|_| !is_closed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Inbox>> {
        // Nothing panics under the lock.
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Medium for InProcess {
    fn listen(&self, inbox: Inbox) -> BoxFuture<'_, Result<BoxFuture<'static, ()>, Error>> {
        let name: Arc<str> = inbox.service().into();
        let mut inboxes = self.lock();
        let is_taken = inboxes.get(&name).is_some_and(|existing| !existing.is_closed());
        let replaced = if is_taken { None } else { inboxes.insert(Arc::clone(&name), inbox.clone()) };
        drop(inboxes);
        drop(replaced);
        Box::pin(async move {
            if is_taken {
                return Err(Error::new(Code::AlreadyExists, format!("{name} has a listener already")));
            }
            // Requests are delivered by those who send them.
            let receiving: BoxFuture<'static, ()> = Box::pin(inbox.draining());
            Ok(receiving)
        })
    }

    fn send(&self, mut outgoing: Outgoing) -> BoxFuture<'static, Result<Response<Bytes>, Error>> {
        // They stay with the caller, as over a network. The empty map is used again by the service.
        outgoing.request.extensions_mut().clear();
        let Some(inbox) = self.find(&outgoing.service) else {
            return Box::pin(std::future::ready(Err(NoSuchService::new(outgoing.service).into())));
        };
        let reply = if inbox.is_draining() { inbox.refuse_ended() } else { inbox.deliver(outgoing.request) };
        Box::pin(reply.map(Ok))
    }

    fn instances<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<InstanceChanges, Error>> {
        let found = self.find(service).ok_or_else(|| NoSuchService::new(service).into());
        let one = stream::iter([Change::Insert(Arc::from(""), ())]).chain(stream::pending());
        Box::pin(std::future::ready(found.map(|_| one.boxed())))
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess").field("services", &self.lock().len()).finish()
    }
}
