//! Where spans go: set up in one call, and never broken silently.
//!
//! [`init`] is the one line in `main`. A [`Telemetry`] is a value: several live side by side in one process, each with its own service
//! name, sampler and exporters. Finished spans wait in a bounded queue. Each [`Exporter`] has a thread of its own, which takes them in
//! batches; nobody who ends a span waits for it. [`Stats`] says at any time where every span has gone.
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

/// How long a guard that is dropped without [`shutdown`](TelemetryGuard::shutdown) holds its thread up.
const DROP_LIMIT: Duration = Duration::from_secs(2);

/// Sets telemetry up for a process with one service, and makes it the process's default.
///
/// It reads the `OTEL_*` variables ([`Builder::from_env`]); a name of the service there comes before `service`. Unless they say
/// otherwise, spans go by OTLP over HTTP to `http://localhost:4318`, as the OpenTelemetry specification has it.
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
    let already =
        || BuildError("the process has a default telemetry already: keep the first, or use telemetry::builder".into());
    if Tracer::current_default().is_enabled() {
        return Err(already());
    }
    let guard = Builder::new(service.into()).read(&get, true).build()?;
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
    /// The names of what is copied from contexts onto spans and log lines.
    #[cfg_attr(not(feature = "fmt"), expect(dead_code))]
    copied: Arc<[String]>,
}

impl Telemetry {
    fn new(tracer: Tracer, queue: Arc<Queue>, copied: Arc<[String]>) -> Self {
        Telemetry(Arc::new(Inner { tracer, queue, copied }))
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

    /// Exports what has ended by now, flushes the exporters, and returns when that is done, or after `limit`.
    ///
    /// The limit holds whatever the exporters do. It is real time: a clock that a test has paused does not shorten it.
    ///
    /// # Errors
    /// The limit has passed, spans have been lost meanwhile, or an exporter can't be flushed. What is still queued stays so.
    ///
    /// # Cancellation safety
    /// Dropping the future stops the waiting and not the export.
    pub async fn force_flush(&self, limit: Duration) -> Result<(), FlushError> {
        on_own_thread(&self.0.queue, limit, flush).await
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

    /// Exports all that has ended, shuts the exporters down, and ends their threads. Spans that start or end from here on are no-ops,
    /// counted.
    ///
    /// It returns when every exporter has been shut down and dropped, without any delay, or after `limit`. The limit holds whatever the
    /// exporters do. While it runs, a receiver that can't be reached gets one more attempt for each batch, and a pause that a receiver
    /// has asked for is given up if it ends after the limit. It needs nothing of the runtime that it is awaited on.
    ///
    /// # Errors
    /// Spans have been lost while shutting down: how many, and why. Or an exporter can't be shut down.
    ///
    /// # Cancellation safety
    /// Dropping the future stops the waiting and not the shutdown.
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
