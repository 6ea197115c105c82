//! The services that listen to one port.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use throughline::{Code, Error};
use tokio::sync::watch;

use crate::Inbox;

pub(super) struct Services {
    /// By the name in lower case.
    inboxes: Mutex<HashMap<Box<str>, Inbox>>,
    /// Changes when the last listener stops.
    drains: watch::Sender<()>,
}

impl Services {
    /// # Errors
    /// `ALREADY_EXISTS`
    pub(super) fn insert(&self, inbox: &Inbox) -> Result<(), Error> {
        let name = inbox.service().to_ascii_lowercase().into_boxed_str();
        let mut inboxes = self.lock();
        if inboxes.get(&name).is_some_and(|existing| !existing.is_closed()) {
            return Err(Error::new(Code::AlreadyExists, format!("{name} has a listener already")));
        }
        let replaced = inboxes.insert(name, inbox.clone());
        drop(inboxes);
        drop(replaced);
        Ok(())
    }

    /// Returns the inbox of a listener that has not ended. `name` is in lower case.
    pub(super) fn find(&self, name: &str) -> Option<Inbox> {
        self.lock().get(name).filter(|inbox| !inbox.is_closed()).cloned()
    }

    /// Returns the inbox of the only listener.
    pub(super) fn only_one(&self) -> Option<Inbox> {
        let inboxes = self.lock();
        let mut open = inboxes.values().filter(|inbox| !inbox.is_closed());
        let first = open.next();
        first.filter(|_| open.next().is_none()).cloned()
    }

    /// Returns a receiver that changes when the last listener stops.
    pub(super) fn drains(&self) -> watch::Receiver<()> {
        self.drains.subscribe()
    }

    /// Forgets listeners that have ended. Closes the connections when none takes new requests.
    pub(super) fn stopped(&self) {
        let mut inboxes = self.lock();
        let ended: Vec<_> = inboxes.extract_if(|_, inbox| inbox.is_closed()).collect();
        let is_unused = inboxes.values().all(Inbox::is_draining);
        drop(inboxes);
        drop(ended);
        if is_unused {
            self.drains.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Inbox>> {
        // Nothing panics under the lock.
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Services {
    fn default() -> Self {
        Services { inboxes: Mutex::default(), drains: watch::Sender::new(()) }
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}
