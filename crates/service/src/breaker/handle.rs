use std::error::Error as StdError;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Extensions, Method, Request, Response, Uri};
use throughline::middleware::client::UrlTemplate;
use throughline::trace::Value;
use throughline::{Code, Context, Error};
use tokio::time::Instant;

use super::machine::{Admission, BreakerCounters, BreakerState, Call, Machine, Outcome, Transition};
use super::outcome::Granted;
use super::settings::SharedSettings;

const LOG_TARGET: &str = "throughline::breaker";

/// The breaker of one callee, to read its state and its counters. A clone is the same breaker.
///
/// [`BreakerService::breaker`](super::BreakerService::breaker) returns it.
#[derive(Clone)]
pub struct Breaker(Arc<Shared>);

struct Shared {
    /// The callee, in errors, logs and events.
    name: Arc<str>,
    settings: SharedSettings,
    /// The epoch, doubled, plus 1 if the state is closed. Calls of a closed breaker take no lock.
    gate: AtomicU64,
    /// Locked for its own code only: events and log lines are written afterwards.
    machine: Mutex<Machine>,
}

impl Breaker {
    pub(crate) fn new(name: Arc<str>, settings: SharedSettings) -> Self {
        let machine = Machine::new(Instant::now(), &settings.load());
        Breaker(Arc::new(Shared { name, settings, gate: AtomicU64::new(1), machine: Mutex::new(machine) }))
    }

    /// Returns the name of the callee.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the state. An open breaker stays open until a call comes after its time.
    pub fn state(&self) -> BreakerState {
        self.lock().state()
    }

    /// Returns what the breaker has counted since it was made.
    pub fn counters(&self) -> BreakerCounters {
        self.lock().counters
    }

    /// Whether a call would be admitted at `now`.
    ///
    /// # Errors
    /// When a call may be admitted.
    pub(crate) fn is_ready(&self, now: Instant) -> Result<(), Duration> {
        if self.0.gate.load(Ordering::Acquire) & 1 == 1 {
            return Ok(());
        }
        self.lock().is_ready(now, &self.0.settings.load())
    }

    /// Admits a call with the context and route of `request`.
    ///
    /// # Errors
    /// The breaker is open. The call may be sent after this time.
    pub(crate) fn admit<B>(&self, request: &Request<B>, now: Instant) -> Result<Permit, Duration> {
        let gate = self.0.gate.load(Ordering::Acquire);
        let ctx = request.extensions().get::<Context>().cloned().unwrap_or_else(Context::current);
        let admission = if gate & 1 == 1 {
            Admission { epoch: gate >> 1 }
        } else {
            let mut machine = self.lock();
            let (admission, transition) = machine.admit(now, &self.0.settings.load())?;
            self.publish(machine, transition, &ctx);
            admission
        };
        let granted = ctx.deadline().map(|deadline| deadline.saturating_duration_since(now.into_std()));
        let route = route(request.method(), request.uri(), request.extensions());
        Ok(Permit { breaker: self.clone(), ctx, started: now, granted, route, admission, is_ended: false })
    }

    /// The error of a call that is refused.
    pub(crate) fn refusal(&self, after: Duration) -> Error {
        let message = format!("{} is unavailable: its circuit breaker is open", self.name());
        Error::new(Code::Unavailable, message).with_retryable(true).with_retry_after(after)
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // Nothing panics under the lock.
        self.0.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change visible to other calls, and then, without the lock, to users.
    fn publish(&self, machine: MutexGuard<'_, Machine>, transition: Option<Transition>, ctx: &Context) {
        let Some(transition) = transition else { return };
        let is_closed = u64::from(transition.to == BreakerState::Closed);
        self.0.gate.store((machine.epoch << 1) | is_closed, Ordering::Release);
        drop(machine);
        let (from, to) = (transition.from.name(), transition.to.name());
        let open_ms = transition.pause.map(|pause| pause.as_micros() as f64 / 1e3);
        let mut attributes = vec![
            ("throughline.breaker.name", Value::from(self.name().to_owned())),
            ("throughline.breaker.state", Value::from(to)),
            ("throughline.breaker.previous_state", Value::from(from)),
        ];
        attributes.extend(open_ms.map(|ms| ("throughline.breaker.open_ms", Value::from(ms))));
        ctx.current_span().add_event("throughline.breaker", attributes);
        let name = self.name();
        match open_ms {
            Some(ms) => tracing::warn!(target: LOG_TARGET, name, from, to, open_ms = ms, "circuit breaker opened"),
            None => tracing::info!(target: LOG_TARGET, name, from, to, "circuit breaker changed"),
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.lock();
        let (state, counters) = (machine.state(), machine.counters);
        drop(machine);
        f.debug_struct("Breaker")
            .field("name", &self.0.name)
            .field("state", &state)
            .field("counters", &counters)
            .finish()
    }
}

/// The hash of a call's route: the method, and the template of the path or else the path.
fn route(method: &Method, uri: &Uri, extensions: &Extensions) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let path = extensions.get().map_or(uri.path(), UrlTemplate::as_str);
    HASHER.hash_one((method.as_str(), path))
}

/// A call that was admitted. Its end is recorded, or else its drop.
pub(crate) struct Permit {
    breaker: Breaker,
    ctx: Context,
    started: Instant,
    granted: Option<Duration>,
    route: u64,
    admission: Admission,
    is_ended: bool,
}

impl Permit {
    /// Records the result of the call.
    pub(crate) fn end<B, E: AsFailure>(mut self, result: &Result<Response<B>, E>) {
        self.end_with(|granted| match result {
            Ok(response) => granted.responded(response),
            Err(failure) => granted.failed(failure.as_failure()),
        });
    }

    fn end_with(&mut self, outcome: impl FnOnce(Granted<'_>) -> Outcome) {
        self.is_ended = true;
        let (started, now, route) = (self.started, Instant::now(), self.route);
        let elapsed = now.saturating_duration_since(started);
        let outcome = outcome(Granted { ctx: &self.ctx, time: self.granted, elapsed });
        let shared = &self.breaker.0;
        let settings = shared.settings.load();
        let mut machine = self.breaker.lock();
        let transition =
            machine.record(self.admission, outcome, &Call { route, started, now }, &settings, fastrand::f64);
        self.breaker.publish(machine, transition, &self.ctx);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_ended {
            self.end_with(|granted| granted.dropped());
        }
    }
}

/// An error, as the reason of a failed call.
pub(crate) trait AsFailure {
    fn as_failure(&self) -> &(dyn StdError + 'static);
}

impl AsFailure for Box<dyn StdError + Send + Sync> {
    fn as_failure(&self) -> &(dyn StdError + 'static) {
        &**self
    }
}

impl AsFailure for Error {
    fn as_failure(&self) -> &(dyn StdError + 'static) {
        self
    }
}
