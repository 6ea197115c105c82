//! Exports spans, and counts every span that is exported or dropped.
//!
//! Call [`init`] once in `main`. A [`Telemetry`] is a value, not a global: one process can have
//! several, each with its own service name, sampler and exporters.
//!
//! Ended spans are enqueued in a bounded queue. Each [`Exporter`] has its own thread, which exports
//! the spans in batches. Ending a span never waits for an export. [`Stats`] counts the spans that
//! are queued, exported and dropped.
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

mod batch;
mod builder;
mod env;
mod exporter;
mod flush;
mod layer;
#[cfg(feature = "fmt")]
mod log;
#[cfg(feature = "otlp")]
pub mod otlp;
mod queue;
mod resource;
mod size;
mod stats;
mod stderr;
mod worker;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use throughline_core::trace::Tracer;

pub use builder::{BuildError, Builder};
pub use exporter::{ExportError, ExportFuture, Exporter, MemoryExporter};
pub use flush::FlushError;
pub use layer::Layer;
#[cfg(feature = "fmt")]
#[cfg_attr(docsrs, doc(cfg(feature = "fmt")))]
pub use log::LogFormat;
pub use stats::{DropReason, Stats};

use flush::{flush, on_own_thread, shutdown};
use queue::Queue;
use stderr::warn;

/// How long dropping a guard without [`shutdown`](TelemetryGuard::shutdown) may block its thread.
const DROP_LIMIT: Duration = Duration::from_secs(2);

/// Sets up telemetry for one service and makes it the default of the process.
///
/// It reads the `OTEL_*` variables ([`Builder::from_env`]). A service name in them overrides
/// `service`. By default, spans are exported with OTLP over HTTP to `http://localhost:4318`, as the
/// OpenTelemetry specification requires.
///
/// Keep the guard, and call [`shutdown`](TelemetryGuard::shutdown) on it at the end of `main`.
///
/// # Errors
/// - The process already has a default. The second call changes nothing.
/// - An exporter can't be set up. The message says what to check.
///
/// # Examples
/// ```no_run
/// use throughline::telemetry;
///
/// let _telemetry = telemetry::init("card-api")?;
/// assert!(telemetry::init("card-api").is_err(), "the process has a default");
/// # Ok::<(), telemetry::BuildError>(())
/// ```
pub fn init(service: impl Into<String>) -> Result<TelemetryGuard, BuildError> {
    let get = |name: &str| std::env::var(name).ok();
    let already =
        || BuildError("the process has a default telemetry already: keep the first, or use telemetry::builder".into());
    if Tracer::current_default().is_enabled() {
        return Err(already());
    }
    let guard = Builder::new(service.into()).read(&get, true).build()?;
    Tracer::set_default(guard.tracer().clone()).map_err(|_| already())?;
    Ok(guard)
}

/// Returns a builder for the telemetry of `service`.
///
/// The telemetry does not become the default of the process.
pub fn builder(service: impl Into<String>) -> Builder {
    Builder::new(service.into())
}

/// A running telemetry: makes spans, exports them and counts them.
///
/// Cloning it increments one reference count.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    tracer: Tracer,
    queue: Arc<Queue>,
    /// Names of the values that are copied from contexts to spans and log lines.
    #[cfg_attr(not(feature = "fmt"), expect(dead_code))]
    copied: Arc<[String]>,
}

impl Telemetry {
    fn new(tracer: Tracer, queue: Arc<Queue>, copied: Arc<[String]>) -> Self {
        Telemetry(Arc::new(Inner { tracer, queue, copied }))
    }

    /// Returns the tracer that makes the spans.
    ///
    /// Pass it to [`Context::with_tracer`](crate::Context::with_tracer) or to the `tracer` method
    /// of a middleware layer.
    pub fn tracer(&self) -> &Tracer {
        &self.0.tracer
    }

    /// Returns a layer for a `tracing` subscriber.
    ///
    /// The layer turns `tracing` spans, such as those of `#[instrument]`, into spans of this
    /// telemetry. It turns `tracing` events into events of these spans.
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

    /// Returns the current counts of spans.
    pub fn stats(&self) -> Stats {
        self.0.queue.counters.read()
    }

    /// Exports all spans that have ended, and flushes the exporters.
    ///
    /// It returns when that is done, or after `limit`. The limit holds even if an exporter blocks
    /// its thread. It is real time: a paused tokio clock does not shorten it.
    ///
    /// # Errors
    /// - The limit has passed. Spans that are still queued stay queued.
    /// - Spans were dropped during the call.
    /// - An exporter failed to flush.
    ///
    /// # Cancellation safety
    /// Dropping the future stops waiting. It does not stop the export.
    pub async fn force_flush(&self, limit: Duration) -> Result<(), FlushError> {
        on_own_thread(&self.0.queue, limit, flush).await
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("tracer", self.tracer()).field("stats", &self.stats()).finish()
    }
}

/// Owns a [`Telemetry`] and shuts it down: made by [`init`] and [`Builder::build`].
///
/// Dropping the guard without [`shutdown`](Self::shutdown) blocks the thread for up to 2 s to
/// export the queued spans. If spans were dropped, it writes a line to stderr.
#[must_use = "telemetry is shut down when its guard is dropped"]
pub struct TelemetryGuard {
    telemetry: Telemetry,
    is_shut: bool,
}

impl TelemetryGuard {
    fn new(telemetry: Telemetry) -> Self {
        TelemetryGuard { telemetry, is_shut: false }
    }

    /// Exports all spans that have ended, shuts down the exporters and ends their threads.
    ///
    /// Spans that start or end after this call are dropped and counted. The shutdown returns when
    /// every exporter has been shut down and dropped, or after `limit`. It does not wait for the
    /// schedule delay. The limit holds even if an exporter blocks its thread.
    ///
    /// During the shutdown:
    /// - If a receiver is unreachable, each batch gets one more attempt.
    /// - If a pause that a receiver requests ends after the limit, the batch is dropped at once.
    ///
    /// The shutdown works on any runtime: it uses no timer and no I/O of it.
    ///
    /// # Errors
    /// - Spans were dropped during the shutdown. The error has their number and the reasons.
    /// - An exporter failed to shut down.
    ///
    /// # Cancellation safety
    /// Dropping the future stops waiting. It does not stop the shutdown.
    pub async fn shutdown(mut self, limit: Duration) -> Result<(), FlushError> {
        self.is_shut = true;
        self.0.queue.close();
        on_own_thread(&self.0.queue, limit, shutdown).await
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
        if let Err(e) = shutdown(&self.0.queue, DROP_LIMIT) {
            let name = self.tracer().resource().and_then(|resource| resource.service_name()).unwrap_or_default();
            warn(format_args!("telemetry of {name} was dropped without a shutdown: {e}"));
        }
    }
}

impl fmt::Debug for TelemetryGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.telemetry.fmt(f)
    }
}
