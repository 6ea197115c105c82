//! Whether a service is ready for requests.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use throughline::{Context, Error};
use tokio::sync::watch;

/// Says whether a service is ready. [`Service::health`](crate::Service::health) returns it.
///
/// A clone costs reference counts.
#[derive(Clone)]
pub struct Health {
    phase: Arc<watch::Sender<u8>>,
    checks: Arc<[Check]>,
    timeout: Duration,
}

type Check = (&'static str, Arc<dyn Fn(Context) -> BoxFuture<'static, Result<(), Error>> + Send + Sync>);

/// Whether a service is ready, and why not. As JSON, it is the response of `/health/ready`.
///
/// | Member | |
/// |---|---|
/// | `ready` | whether the service is serving and all checks succeed |
/// | `phase` | `starting`, `serving` or `draining` |
/// | `checks` | by name: `ok`, or the error |
///
/// The checks run only while the service is serving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Readiness {
    /// Whether the service is serving and all checks succeed.
    pub ready: bool,
    /// `starting`, `serving` or `draining`.
    pub phase: &'static str,
    /// The results of the checks: `ok`, or the error's code and message.
    pub checks: BTreeMap<&'static str, String>,
}

const PHASES: [&str; 3] = ["starting", "serving", "draining"];
const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;

impl Health {
    pub(crate) fn new() -> Self {
        Health {
            phase: Arc::new(watch::Sender::new(STARTING)),
            checks: Arc::default(),
            timeout: Duration::from_secs(1),
        }
    }

    pub(crate) fn add_check(
        &mut self,
        name: &'static str,
        check: impl Fn(Context) -> BoxFuture<'static, Result<(), Error>> + Send + Sync + 'static,
    ) {
        let added: [Check; 1] = [(name, Arc::new(check))];
        self.checks = self.checks.iter().cloned().chain(added).collect();
    }

    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    pub(crate) fn started(&self) {
        self.phase.send_replace(SERVING);
    }

    pub(crate) fn draining(&self) {
        self.phase.send_replace(DRAINING);
    }

    /// Waits until the service listens. It runs no checks.
    ///
    /// For tests, and for programs that call their own services. If the service fails to listen, it
    /// waits for ever: wait beside `serve`, for example with `tokio::try_join!`.
    ///
    /// # Cancellation safety
    /// It may be dropped at any time and called again.
    ///
    /// # Examples
    /// ```
    /// use throughline::{Context, Error};
    /// use throughline_service::Service;
    /// use throughline_transport::Transport;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let (transport, process) = (Transport::in_process(), Context::background().with_cancel());
    /// let service: Service = Service::new("cards");
    /// let health = service.health();
    /// let caller = async {
    ///     health.serving().await;
    ///     assert_eq!(health.readiness(&Context::background()).await.phase, "serving");
    ///     process.cancel();
    ///     Ok::<(), Error>(())
    /// };
    /// tokio::try_join!(service.serve_until(&transport, &process), caller)?;
    /// # Ok::<(), Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn serving(&self) {
        let reached = self.phase.subscribe().wait_for(|phase| *phase >= SERVING).await.is_ok();
        debug_assert!(reached, "`self` holds the sender");
    }

    /// Runs the checks and says whether the service is ready.
    ///
    /// It returns when all checks have ended, or `ctx` is done, or their timeout has passed.
    ///
    /// # Examples
    /// ```
    /// use throughline::Context;
    /// use throughline_service::Service;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let service: Service = Service::new("cards");
    /// let readiness = service.health().readiness(&Context::background()).await;
    /// assert_eq!((readiness.ready, readiness.phase), (false, "starting"));
    /// # });
    /// ```
    pub async fn readiness(&self, ctx: &Context) -> Readiness {
        let phase = || *self.phase.borrow();
        let mut checks = BTreeMap::new();
        if phase() == SERVING {
            let ctx = ctx.with_timeout(self.timeout);
            let results = self.checks.iter().map(async |(name, check)| {
                let result = ctx.run(check(ctx.clone())).await.unwrap_or_else(|_| Err(Error::from_context(&ctx)));
                (*name, result)
            });
            checks.extend(join_all(results).await);
        }
        // Read again: the service may have stopped meanwhile.
        let phase = phase();
        let ready = phase == SERVING && checks.values().all(Result::is_ok);
        let text = |result: Result<(), Error>| result.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        let checks = checks.into_iter().map(|(name, result)| (name, text(result))).collect();
        Readiness { ready, phase: PHASES[usize::from(phase)], checks }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.checks.iter().map(|(name, _)| *name).collect();
        let phase = PHASES[usize::from(*self.phase.borrow())];
        f.debug_struct("Health").field("phase", &phase).field("checks", &names).finish_non_exhaustive()
    }
}
