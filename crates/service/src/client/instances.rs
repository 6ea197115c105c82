//! The instances of a service, as the transport's discovery reports them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;
use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt as _, StreamExt as _};
use throughline::Error;
use throughline_transport::{Endpoint, Instances, Transport};
use tokio::task::AbortHandle;
use tower::discover::Change;

use super::load::Load;
use crate::breaker::{Breaker, SharedSettings};

/// One instance, with its breaker and its load.
pub(super) struct Instance {
    pub(super) id: usize,
    pub(super) endpoint: Endpoint,
    pub(super) breaker: Breaker,
    pub(super) load: Load,
    name: Arc<str>,
}

/// Finds the instances of one service, and keeps them up to date.
pub(super) struct Discovery {
    pub(super) service: Arc<str>,
    transport: Transport,
    settings: SharedSettings,
    /// Locked for its own code only: what it held is dropped afterwards.
    state: Mutex<State>,
}

enum State {
    Unknown,
    LookingUp(Lookup),
    Known(Arc<Set>),
}

/// All calls that begin during a look-up wait for the same one.
type Lookup = Shared<BoxFuture<'static, Result<Arc<Set>, Error>>>;

/// The instances of now. A task follows the changes.
pub(super) struct Set {
    service: Arc<str>,
    settings: SharedSettings,
    instances: ArcSwap<Vec<Arc<Instance>>>,
    /// The task reads the changes, or there will be no more.
    is_current: AtomicBool,
    task: OnceLock<AbortHandle>,
}

impl Discovery {
    pub(super) fn new(service: Arc<str>, transport: Transport, settings: SharedSettings) -> Self {
        Discovery { service, transport, settings, state: Mutex::new(State::Unknown) }
    }

    /// Returns the instances. Looks them up if they are not known.
    pub(super) async fn set(&self) -> Result<Arc<Set>, Error> {
        let lookup = {
            let mut state = self.lock();
            match &*state {
                State::Known(set) if set.is_current.load(Ordering::Acquire) => return Ok(Arc::clone(set)),
                State::LookingUp(lookup) => lookup.clone(),
                _ => {
                    let (transport, service, settings) =
                        (self.transport.clone(), Arc::clone(&self.service), self.settings.clone());
                    let lookup = look_up(transport, service, settings).boxed().shared();
                    let old = std::mem::replace(&mut *state, State::LookingUp(lookup.clone()));
                    drop(state);
                    drop(old);
                    lookup
                }
            }
        };
        let result = lookup.clone().await;
        let mut state = self.lock();
        if matches!(&*state, State::LookingUp(current) if current.ptr_eq(&lookup)) {
            let next = result.as_ref().map_or(State::Unknown, |set| State::Known(Arc::clone(set)));
            let old = std::mem::replace(&mut *state, next);
            drop(state);
            drop(old);
        }
        result
    }

    /// Returns the instances, if they are known.
    pub(super) fn known(&self) -> Vec<Arc<Instance>> {
        match &*self.lock() {
            State::Known(set) => set.instances.load().to_vec(),
            _ => Vec::new(),
        }
    }

    /// Forgets `set`: the next call looks up the instances.
    pub(super) fn forget(&self, set: &Arc<Set>) {
        let mut state = self.lock();
        if matches!(&*state, State::Known(current) if Arc::ptr_eq(current, set)) {
            let old = std::mem::replace(&mut *state, State::Unknown);
            drop(state);
            drop(old);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_up(transport: Transport, service: Arc<str>, settings: SharedSettings) -> Result<Arc<Set>, Error> {
    let mut changes = transport.instances(&service).await?;
    let (instances, task) = (ArcSwap::default(), OnceLock::new());
    let set = Arc::new(Set { service, settings, instances, is_current: AtomicBool::new(true), task });
    // The instances of now are ready at once.
    loop {
        match changes.next().now_or_never() {
            Some(Some(change)) => set.apply(change?),
            Some(None) => return Ok(set),
            None => break,
        }
    }
    let task = tokio::spawn(Follow(Arc::downgrade(&set)).run(changes));
    set.task.get_or_init(|| task.abort_handle());
    Ok(set)
}

impl Set {
    pub(super) fn instances(&self) -> arc_swap::Guard<Arc<Vec<Arc<Instance>>>> {
        self.instances.load()
    }

    fn apply(&self, change: Change<Arc<str>, Endpoint>) {
        // Only the look-up and then its task change the list.
        let mut instances = self.instances.load().to_vec();
        match change {
            Change::Insert(name, endpoint) => {
                // An instance that is reported again keeps its breaker and its load.
                if instances.iter().any(|known| known.name == name) {
                    return;
                }
                static NEXT: AtomicUsize = AtomicUsize::new(1);
                let breaker =
                    if name.is_empty() { Arc::clone(&self.service) } else { format!("{}/{name}", self.service).into() };
                instances.push(Arc::new(Instance {
                    id: NEXT.fetch_add(1, Ordering::Relaxed),
                    endpoint,
                    breaker: Breaker::new(breaker, self.settings.clone()),
                    load: Load::new(),
                    name,
                }));
            }
            Change::Remove(name) => instances.retain(|known| known.name != name),
        }
        self.instances.store(Arc::new(instances));
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// The task that follows the changes. If its runtime ends, the next call looks up the instances.
struct Follow(Weak<Set>);

impl Follow {
    async fn run(mut self, mut changes: Instances) {
        while let Some(change) = changes.next().await {
            let Some(set) = self.0.upgrade() else { return };
            match change {
                Ok(change) => set.apply(change),
                Err(error) => {
                    tracing::warn!(target: "throughline::client", service = &*set.service, %error, "discovery failed");
                    return;
                }
            }
        }
        // There are no more changes: the instances stay.
        self.0 = Weak::new();
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if let Some(set) = self.0.upgrade() {
            set.is_current.store(false, Ordering::Release);
        }
    }
}
