//! Where spans go: set up in one call, and never broken silently.
//!
//! [`init`] is the one line in `main`. A [`Telemetry`] is a value: several live side by side in one process, each with its own service
//! name, sampler and exporters. Finished spans wait in a bounded queue for a thread of their own, which takes them to the
//! [`Exporter`]s in batches; nobody who ends a span waits for it. [`Stats`] says at any time where every span has gone.
//!
//! # Examples
//! ```
//! use std::time::Duration;
//! use throughline::telemetry::{self, MemoryExporter};
//! use throughline::Context;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let memory = MemoryExporter::default();
//! let telemetry = telemetry::builder("card-api").exporter(memory.clone()).build()?;
//!
//! let ctx = Context::background().with_tracer(telemetry.tracer());
//! ctx.span("authorize").start().end();
//!
//! telemetry.shutdown(Duration::from_secs(5)).await?;
//! assert_eq!(memory.batches()[0].resource.service_name(), Some("card-api"));
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod env;
mod exporter;
mod layer;
#[cfg(feature = "fmt")]
mod log;
#[cfg(feature = "otlp")]
pub mod otlp;
mod queue;
mod resource;
mod stats;
mod worker;

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use throughline_core::trace::Tracer;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use builder::{BuildError, Builder};
pub use exporter::{ExportError, ExportFuture, Exporter, MemoryExporter};
pub use layer::Layer;
#[cfg(feature = "fmt")]
#[cfg_attr(docsrs, doc(cfg(feature = "fmt")))]
pub use log::LogFormat;
pub use stats::{DropReason, Stats};

use queue::Queue;
use worker::{Command, Kind};

/// How long a guard that is dropped without [`shutdown`](TelemetryGuard::shutdown) holds its thread up.
const DROP_LIMIT: Duration = Duration::from_secs(2);

/// Sets telemetry up for a process with one service, and makes it the process's default.
///
/// It reads the `OTEL_*` variables ([`Builder::from_env`]); `OTEL_SERVICE_NAME` comes before `service`. Unless they say otherwise, spans
/// go by OTLP over HTTP to `http://localhost:4318`, as the OpenTelemetry specification has it.
///
/// Keep the guard, and [`shutdown`](TelemetryGuard::shutdown) it at the end of `main`.
///
/// # Errors
/// There is a default already: a second call changes nothing. Or an exporter can't be set up; the message says what to check.
///
/// # Examples
/// ```no_run
/// use throughline::telemetry;
///
/// let _telemetry = telemetry::init("card-api")?;
/// assert!(telemetry::init("card-api").is_err(), "there is one");
/// # Ok::<(), telemetry::BuildError>(())
/// ```
pub fn init(service: impl Into<String>) -> Result<TelemetryGuard, BuildError> {
    let get = |name: &str| std::env::var(name).ok();
    let service = get("OTEL_SERVICE_NAME").filter(|name| !name.trim().is_empty()).unwrap_or_else(|| service.into());
    let already =
        || BuildError("the process has a default telemetry already: keep the first, or use telemetry::builder".into());
    if Tracer::current_default().is_enabled() {
        return Err(already());
    }
    let guard = Builder::new(service).read(&get, true).build()?;
    Tracer::set_default(guard.tracer().clone()).map_err(|_| already())?;
    Ok(guard)
}

/// Sets telemetry up step by step, for `service`; it does not become the process's default.
pub fn builder(service: impl Into<String>) -> Builder {
    Builder::new(service.into())
}

/// A running telemetry: where spans go, and what has become of them. Cloning it costs one reference count.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    tracer: Tracer,
    queue: Arc<Queue>,
    commands: UnboundedSender<Command>,
    /// The names of what is copied from contexts onto spans and log lines.
    #[cfg_attr(not(feature = "fmt"), expect(dead_code))]
    copied: Arc<[String]>,
}

impl Telemetry {
    fn new(tracer: Tracer, queue: Arc<Queue>, commands: UnboundedSender<Command>, copied: Arc<[String]>) -> Self {
        Telemetry(Arc::new(Inner { tracer, queue, commands, copied }))
    }

    /// What makes the spans: for [`Context::with_tracer`](crate::Context::with_tracer) and the layers' `tracer`.
    pub fn tracer(&self) -> &Tracer {
        &self.0.tracer
    }

    /// A layer for a `tracing` subscriber: `#[instrument]` spans become spans here, and events theirs.
    ///
    /// ```
    /// use throughline::telemetry::{self, MemoryExporter};
    /// use tracing_subscriber::layer::SubscriberExt;
    ///
    /// let telemetry = telemetry::builder("cards").exporter(MemoryExporter::default()).build()?;
    /// let subscriber = tracing_subscriber::registry().with(telemetry.layer());
    /// tracing::subscriber::with_default(subscriber, || tracing::info_span!("reserve").in_scope(|| tracing::info!("reserved")));
    /// assert_eq!(telemetry.stats().emitted, 1);
    /// # Ok::<(), telemetry::BuildError>(())
    /// ```
    pub fn layer(&self) -> Layer {
        Layer::new(self.tracer().clone())
    }

    /// Where every span has gone, as of now.
    pub fn stats(&self) -> Stats {
        self.0.queue.counters.read()
    }

    /// Exports what has ended by now, and returns when that is done, or after `limit`.
    ///
    /// # Errors
    /// The limit has passed, or spans have been lost meanwhile. What is still queued stays so.
    ///
    /// # Cancellation safety
    /// Dropping the future stops the waiting and not the export.
    pub async fn force_flush(&self, limit: Duration) -> Result<(), FlushError> {
        self.command(Kind::Flush, limit).await
    }

    async fn command(&self, kind: Kind, limit: Duration) -> Result<(), FlushError> {
        let before = self.stats();
        let (sender, receiver) = oneshot::channel();
        let reply = Box::new(move |in_time, stats| {
            let _ = sender.send((in_time, stats));
        });
        let sent = self.0.commands.send(Command { kind, until: after(limit), reply });
        let answer = if sent.is_ok() { receiver.await.ok() } else { None };
        let (in_time, stats) = answer.unwrap_or_else(|| self.nobody_to_ask());
        FlushError::from_stats(in_time, &before, stats)
    }
}

impl Telemetry {
    /// The answer of a thread that has ended: nothing waits, unless it was not the shutdown that ended it.
    fn nobody_to_ask(&self) -> (bool, Stats) {
        let stats = self.stats();
        (stats.queued == 0, stats)
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("tracer", self.tracer()).field("stats", &self.stats()).finish()
    }
}

/// A [`Telemetry`] to be shut down: made by [`init`] and [`Builder::build`].
///
/// Dropped instead, it exports what it can in 2 s, on the thread that drops it, and says on stderr if anything was lost.
#[must_use = "telemetry is shut down when its guard is dropped"]
pub struct TelemetryGuard {
    telemetry: Telemetry,
    is_shut: bool,
}

impl TelemetryGuard {
    fn new(telemetry: Telemetry) -> Self {
        TelemetryGuard { telemetry, is_shut: false }
    }

    /// Exports all that has ended, and ends the export thread. Spans that start or end from here on are no-ops, counted.
    ///
    /// It returns when all is exported, without any delay, or after `limit`. It needs nothing of the runtime that it is awaited on.
    ///
    /// # Errors
    /// Spans have been lost while shutting down: how many, and why.
    ///
    /// # Cancellation safety
    /// Dropping the future stops the waiting and not the shutdown.
    pub async fn shutdown(mut self, limit: Duration) -> Result<(), FlushError> {
        self.is_shut = true;
        self.0.queue.close();
        self.command(Kind::Shutdown, limit).await
    }
}

impl Deref for TelemetryGuard {
    type Target = Telemetry;

    fn deref(&self) -> &Telemetry {
        &self.telemetry
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if self.is_shut {
            return;
        }
        self.0.queue.close();
        let before = self.stats();
        let (sender, receiver) = mpsc::channel();
        let reply = Box::new(move |in_time, stats| {
            let _ = sender.send((in_time, stats));
        });
        let sent = self.0.commands.send(Command { kind: Kind::Shutdown, until: after(DROP_LIMIT), reply });
        // The thread keeps the limit; the rest is for one that can't.
        let answer = if sent.is_ok() { receiver.recv_timeout(DROP_LIMIT * 2).ok() } else { Some(self.nobody_to_ask()) };
        let (in_time, stats) = answer.unwrap_or_else(|| (false, self.stats()));
        if let Err(e) = FlushError::from_stats(in_time, &before, stats) {
            let name =
                self.tracer().resource().and_then(|resource| resource.service_name()).unwrap_or_default().to_owned();
            eprintln!("throughline: telemetry of {name} was dropped without a shutdown: {e}");
        }
    }
}

impl fmt::Debug for TelemetryGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.telemetry.fmt(f)
    }
}

/// The time after `limit`. On a clock that a test has not paused: the export thread runs on the real one.
fn after(limit: Duration) -> Instant {
    let now = std::time::Instant::now();
    Instant::from_std(now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(86_400)))
}

/// Spans were lost, or are still waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlushError {
    /// Spans that were lost since the call.
    pub lost: u64,
    /// All counts, as of the end of the call.
    pub stats: Stats,
}

impl FlushError {
    fn from_stats(in_time: bool, before: &Stats, stats: Stats) -> Result<(), FlushError> {
        let lost = stats.dropped().saturating_sub(before.dropped());
        if in_time && lost == 0 { Ok(()) } else { Err(FlushError { lost, stats }) }
    }
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spans were lost, {} are still queued; in all {}", self.lost, self.stats.queued, self.stats)
    }
}

impl std::error::Error for FlushError {}
