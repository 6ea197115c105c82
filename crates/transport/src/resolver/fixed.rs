//! A list of addresses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use throughline::Error;
use tokio::sync::watch;

use crate::NoSuchService;
use crate::resolver::{Instance, InstanceSets, Resolver};

/// Finds services in a list that can change at run time. A clone shares the list.
///
/// # Examples
/// ```
/// use throughline::{Code, Context};
/// use throughline_transport::{NoSuchService, StaticResolver, Transport};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let addresses = StaticResolver::new();
/// addresses.set("balance", ["10.0.0.7:8080", "10.0.0.8:8080"]);
/// let transport = Transport::http2().resolver(addresses.clone()).client();
///
/// // A name that the list does not have fails at once.
/// let error = transport.send(&Context::background(), "cards", http::Request::default()).await;
/// assert!(NoSuchService::find_in(&error.expect_err("not in the list")).is_some());
///
/// // All that follows goes to the new address.
/// addresses.set("balance", ["10.0.0.9:8080"]);
/// assert!(addresses.remove("balance"));
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct StaticResolver {
    services: Arc<Mutex<Services>>,
}

type Services = HashMap<Box<str>, watch::Sender<Vec<Instance>>>;

impl StaticResolver {
    /// Makes an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service with its addresses, as [`set`](Self::set) does.
    #[must_use]
    pub fn with<A: Into<Arc<str>>>(self, service: &str, addresses: impl IntoIterator<Item = A>) -> Self {
        self.set(service, addresses);
        self
    }

    /// Sets the addresses of a service. Each is `HOST:PORT`.
    ///
    /// Instances that are not in the new list get no new requests. Requests in flight go on.
    pub fn set<A: Into<Arc<str>>>(&self, service: &str, addresses: impl IntoIterator<Item = A>) {
        self.set_instances(service, addresses.into_iter().map(Instance::new).collect());
    }

    /// Sets the instances of a service, for TLS with host names that differ from the addresses.
    pub fn set_instances(&self, service: &str, instances: Vec<Instance>) {
        let mut services = self.lock();
        let sender = services.entry(service.into()).or_insert_with(|| watch::Sender::new(Vec::new())).clone();
        drop(services);
        sender.send_replace(instances);
    }

    /// Removes a service. Returns whether the list had it.
    ///
    /// A transport that has sent a request to it before gets `UNAVAILABLE` then.
    pub fn remove(&self, service: &str) -> bool {
        let removed = self.lock().remove(service);
        removed.map(|sender| sender.send_replace(Vec::new())).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Services> {
        // Nothing panics under the lock.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for StaticResolver {
    fn resolve<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<InstanceSets, Error>> {
        let found = self.lock().get(service).map(watch::Sender::subscribe);
        Box::pin(async move {
            let mut receiver = found.ok_or_else(|| NoSuchService::new(service))?;
            receiver.mark_changed();
            let sets = stream::unfold(receiver, async |mut receiver| {
                receiver.changed().await.ok()?;
                let set = receiver.borrow_and_update().clone();
                Some((set, receiver))
            });
            Ok(sets.boxed())
        })
    }
}
