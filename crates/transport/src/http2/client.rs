//! The client: which instance gets a request.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{Method, Response, StatusCode};
use throughline::{Code, Error};
use tokio::sync::{OnceCell, watch};
use tower::discover::Change;

use super::peer::{Peer, Sent};
use super::{NO_SUCH_SERVICE, Options};
use crate::medium::{InstanceChanges, Outgoing};
use crate::resolver::InstanceSets;
use crate::{Instance, NoSuchService, Resolver};

/// How many services may be resolved at the same time.
///
/// Only names that the resolver knows are kept.
const MAX_SERVICES: usize = 4096;

pub(super) struct Client {
    resolver: Arc<dyn Resolver>,
    options: Options,
    services: Mutex<HashMap<Arc<str>, Arc<OnceCell<Pool>>>>,
}

type Peers = Arc<[Arc<Peer>]>;

/// The instances of one service.
#[derive(Clone)]
struct Pool {
    peers: watch::Receiver<Peers>,
    /// Where the next choice begins among instances with the same load.
    next: Arc<AtomicUsize>,
}

impl Client {
    pub(super) fn new(resolver: Arc<dyn Resolver>, options: Options) -> Arc<Self> {
        Arc::new(Client { resolver, options, services: Mutex::default() })
    }

    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<Response<Bytes>, Error> {
        let Outgoing { service, instance, request, max_body } = outgoing;
        if request.method() == Method::CONNECT {
            return Err(Error::new(Code::InvalidArgument, "services do not take CONNECT"));
        }
        let pool = self.pool(&service).await?;
        let peers = pool.candidates(&service, instance.as_deref())?;
        let mut last = None;
        for peer in peers {
            match peer.send(&request, max_body).await {
                Sent::Done(Ok(response)) if is_unknown(&response) => {
                    // The instance does not have the service, so nothing has handled the request.
                    let unknown = || Error::from(NoSuchService::new(Arc::clone(&service)));
                    last = last.or_else(|| Some(unknown()));
                }
                Sent::Done(result) => return result,
                Sent::Not(error) => last = Some(error),
            }
        }
        Err(last.expect("there is a candidate, and it was tried"))
    }

    pub(super) async fn instances(&self, service: &str) -> Result<InstanceChanges, Error> {
        let mut peers = self.pool(service).await?.peers;
        peers.mark_changed();
        let changes = stream::unfold((peers, Vec::<Arc<str>>::new()), async |(mut peers, known)| {
            if peers.changed().await.is_err() {
                // The transport is gone, or the resolver has no more changes.
                std::future::pending::<()>().await;
            }
            let now: Vec<_> = peers.borrow_and_update().iter().map(|peer| peer.name()).collect();
            let inserted = now.iter().filter(|name| !known.contains(name)).map(|name| Change::Insert(name.clone(), ()));
            let removed = known.iter().filter(|name| !now.contains(name)).map(|name| Change::Remove(name.clone()));
            let changes: Vec<_> = inserted.chain(removed).collect();
            Some((stream::iter(changes), (peers, now)))
        });
        Ok(changes.flatten().boxed())
    }

    /// Resolves a service at the first request. Requests at the same time share the attempt.
    async fn pool(&self, service: &str) -> Result<Pool, Error> {
        let found = self.lock().get(service).cloned();
        if let Some(pool) = found.as_deref().and_then(OnceCell::get) {
            return Ok(pool.clone());
        }
        let cell = match found {
            Some(cell) => cell,
            None => {
                let mut services = self.lock();
                if services.len() >= MAX_SERVICES {
                    let message = format!("requests were sent to {MAX_SERVICES} services already");
                    return Err(Error::new(Code::ResourceExhausted, message));
                }
                Arc::clone(services.entry(service.into()).or_default())
            }
        };
        let resolving = Resolving { client: self, service, cell };
        let pool = resolving.cell.get_or_try_init(|| self.resolve(service)).await?;
        Ok(pool.clone())
    }

    async fn resolve(&self, service: &str) -> Result<Pool, Error> {
        let mut sets = self.resolver.resolve(service).await?;
        let name: Arc<str> = service.into();
        let options = self.options.clone();
        let make = move |instance| Peer::new(Arc::clone(&name), instance, options.clone());
        let first = sets.next().await.unwrap_or_default();
        let (sender, peers) = watch::channel(update(&[], first, &make));
        tokio::spawn(follow(sets, sender, make));
        Ok(Pool { peers, next: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<OnceCell<Pool>>>> {
        // Nothing panics under the lock.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a name that was not resolved, so that names that callers make up do not fill the memory.
struct Resolving<'a> {
    client: &'a Client,
    service: &'a str,
    cell: Arc<OnceCell<Pool>>,
}

impl Drop for Resolving<'_> {
    fn drop(&mut self) {
        if self.cell.initialized() {
            return;
        }
        let mut services = self.client.lock();
        // Two references: the map's and this one. Others still resolve.
        if services.get(self.service).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell))
            && Arc::strong_count(&self.cell) == 2
        {
            let removed = services.remove(self.service);
            drop(services);
            drop(removed);
        }
    }
}

impl Pool {
    /// The instances in the order to try them.
    fn candidates(&self, service: &str, instance: Option<&str>) -> Result<Vec<Arc<Peer>>, Error> {
        let peers = Arc::clone(&self.peers.borrow());
        if let Some(name) = instance {
            let found = peers.iter().find(|peer| &*peer.name() == name).cloned();
            return found.map(|peer| vec![peer]).ok_or_else(|| {
                let message = format!("{service} has no instance at {name} any more");
                Error::new(Code::Unavailable, message).with_retryable(true)
            });
        }
        if peers.is_empty() {
            return Err(Error::new(Code::Unavailable, format!("{service} has no instances")).with_retryable(true));
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed) % peers.len();
        let mut candidates: Vec<_> = peers[start..].iter().chain(&peers[..start]).cloned().collect();
        candidates.sort_by_cached_key(|peer| peer.load());
        Ok(candidates)
    }
}

/// Replaces the set of instances with each change, until the transport is dropped.
async fn follow(mut sets: InstanceSets, sender: watch::Sender<Peers>, make: impl Fn(Instance) -> Arc<Peer>) {
    loop {
        let set = tokio::select! {
            set = sets.next() => set,
            () = sender.closed() => return,
        };
        let Some(set) = set else { break };
        let now = Arc::clone(&sender.borrow());
        sender.send_replace(update(&now, set, &make));
    }
    // The last set stays.
    drop(sets);
    sender.closed().await;
}

/// Instances that stay keep their connections.
fn update(now: &[Arc<Peer>], set: Vec<Instance>, make: &impl Fn(Instance) -> Arc<Peer>) -> Peers {
    let mut peers: Vec<Arc<Peer>> = Vec::with_capacity(set.len());
    for instance in set {
        if peers.iter().any(|peer| peer.name() == instance.name()) {
            continue;
        }
        let known = now.iter().find(|peer| peer.instance() == &instance);
        peers.push(known.cloned().unwrap_or_else(|| make(instance)));
    }
    peers.into()
}

/// Whether an instance says that nothing listens to the name.
fn is_unknown(response: &Response<Bytes>) -> bool {
    response.status() == StatusCode::NOT_FOUND && response.headers().contains_key(NO_SUCH_SERVICE)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("resolver", &self.resolver).finish_non_exhaustive()
    }
}
