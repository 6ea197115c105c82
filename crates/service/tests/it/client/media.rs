//! A medium whose instances behave as a test sets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use http::{Response, request};
use throughline::{Code, Error};
use throughline_transport::{Inbox, InstanceChanges, Medium, NoSuchService, Outgoing, Transport};
use tokio::sync::mpsc;
use tower::discover::Change;

/// What an instance does with a request.
#[derive(Clone)]
pub struct Behaviour {
    delay: Duration,
    error: Option<Error>,
    is_once: bool,
    is_unreachable: bool,
    body: Option<&'static [u8]>,
}

impl Behaviour {
    pub fn ok() -> Self {
        Behaviour { delay: Duration::ZERO, error: None, is_once: false, is_unreachable: false, body: None }
    }

    pub fn delay(delay: Duration) -> Self {
        Behaviour { delay, ..Self::ok() }
    }

    pub fn body(body: &'static [u8]) -> Self {
        Behaviour { body: Some(body), ..Self::ok() }
    }

    pub fn error(error: Error) -> Self {
        Behaviour { error: Some(error), ..Self::ok() }
    }

    /// The first request fails.
    pub fn error_once(error: Error) -> Self {
        Behaviour { is_once: true, ..Self::error(error) }
    }

    pub fn unreachable() -> Self {
        Behaviour { is_unreachable: true, ..Self::ok() }
    }
}

/// The instances of the service "balance".
#[derive(Clone, Default)]
pub struct Fleet(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    members: Vec<String>,
    behaviours: HashMap<String, Behaviour>,
    calls: HashMap<String, usize>,
    running: usize,
    look_ups: usize,
    watchers: Vec<mpsc::UnboundedSender<Change<Arc<str>, ()>>>,
    last: Option<request::Parts>,
}

impl Fleet {
    pub fn of(names: &[&str]) -> Self {
        let fleet = Fleet::default();
        names.iter().for_each(|name| fleet.insert(name));
        fleet
    }

    pub fn transport(&self) -> Transport {
        Transport::new(self.clone())
    }

    pub fn insert(&self, name: &str) {
        let mut state = self.lock();
        state.members.push(name.to_owned());
        state.watchers.iter().for_each(|watcher| drop(watcher.send(Change::Insert(name.into(), ()))));
    }

    pub fn remove(&self, name: &str) {
        let mut state = self.lock();
        state.members.retain(|member| member != name);
        state.watchers.iter().for_each(|watcher| drop(watcher.send(Change::Remove(name.into()))));
    }

    pub fn set(&self, name: &str, behaviour: Behaviour) {
        self.lock().behaviours.insert(name.to_owned(), behaviour);
    }

    pub fn calls(&self, name: &str) -> usize {
        self.lock().calls.get(name).copied().unwrap_or(0)
    }

    pub fn running(&self) -> usize {
        self.lock().running
    }

    pub fn look_ups(&self) -> usize {
        self.lock().look_ups
    }

    pub fn last_request(&self) -> request::Parts {
        self.lock().last.clone().unwrap()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Counts a request, and returns what to do with it.
    fn begin(&self, name: &str, request: request::Parts) -> Behaviour {
        let mut state = self.lock();
        *state.calls.entry(name.to_owned()).or_default() += 1;
        state.last = Some(request);
        state.running += 1;
        let behaviour = state.behaviours.get(name).cloned().unwrap_or_else(Behaviour::ok);
        if behaviour.is_once {
            state.behaviours.remove(name);
        }
        behaviour
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fleet")
    }
}

struct Running(Fleet);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

impl Medium for Fleet {
    fn listen(&self, inbox: Inbox) -> BoxFuture<'_, Result<BoxFuture<'static, ()>, Error>> {
        drop(inbox);
        Box::pin(async { Err(Error::new(Code::Unimplemented, "this medium only sends")) })
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'static, Result<Response<Bytes>, Error>> {
        let fleet = self.clone();
        Box::pin(async move {
            let name = outgoing.instance.unwrap_or_default();
            let (head, body) = outgoing.request.into_parts();
            let behaviour = fleet.begin(&name, head);
            let _running = Running(fleet);
            tokio::time::sleep(behaviour.delay).await;
            if behaviour.is_unreachable {
                return Err(Error::new(Code::Unavailable, format!("{name} refuses connections")));
            }
            if let Some(error) = behaviour.error {
                return Ok(error.to_response().map(Bytes::from));
            }
            let body = behaviour.body.map_or_else(
                || {
                    let terms: Vec<u64> = serde_json::from_slice(&body).unwrap();
                    Bytes::from(terms.iter().sum::<u64>().to_string())
                },
                Bytes::from_static,
            );
            Ok(Response::new(body))
        })
    }

    fn instances<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<InstanceChanges, Error>> {
        Box::pin(async move {
            // A registry takes a moment.
            tokio::task::yield_now().await;
            if service != "balance" {
                return Err(NoSuchService::new(service).into());
            }
            let mut state = self.lock();
            state.look_ups += 1;
            let (sender, mut receiver) = mpsc::unbounded_channel();
            state.watchers.push(sender);
            let now: Vec<_> = state.members.iter().map(|name| Change::Insert(Arc::from(&**name), ())).collect();
            let changes = stream::poll_fn(move |cx| receiver.poll_recv(cx));
            Ok(stream::iter(now).chain(changes).boxed())
        })
    }
}
