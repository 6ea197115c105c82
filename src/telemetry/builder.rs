//! Setting telemetry up.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use throughline_core::propagation::values;
use throughline_core::trace::{
    AlwaysOff, Attributes, FromContext, ParentBased, Recorder, Resource, Sampler, SpanLimits, Tracer, TracerConfig,
};
use throughline_core::{Context, SpanRecord};

use super::env::Env;
use super::exporter::{ExportError, Exporter};
use super::queue::{Bounds, Queue};
use super::stderr::warn;
use super::worker::{OnError, Worker};
use super::{Telemetry, TelemetryGuard, resource};

/// Sets up a [`Telemetry`]: made by [`builder`](super::builder).
///
/// Nothing is read from the environment until [`from_env`](Self::from_env) is called.
#[must_use = "nothing starts before `build`"]
pub struct Builder {
    service: String,
    attributes: Vec<(String, String)>,
    exporters: Vec<Box<dyn Exporter>>,
    sampler: Option<Arc<dyn Sampler>>,
    limits: SpanLimits,
    copied: Vec<String>,
    random_flag: bool,
    bounds: Bounds,
    schedule_delay: Duration,
    export_timeout: Duration,
    on_error: Option<OnError>,
    is_disabled: bool,
    error: Option<BuildError>,
}

impl Builder {
    pub(super) fn new(service: String) -> Self {
        Builder {
            on_error: None,
            service,
            attributes: Vec::new(),
            exporters: Vec::new(),
            sampler: None,
            limits: SpanLimits::default(),
            copied: Vec::new(),
            random_flag: false,
            bounds: Bounds { spans: 16_384, bytes: 32 << 20, batch: 512 },
            schedule_delay: Duration::from_secs(5),
            export_timeout: Duration::from_secs(30),
            is_disabled: false,
            error: None,
        }
    }

    /// Adds an exporter. Several each get every batch, on a thread of their own: a slow one does not hold up the others, and may have as
    /// much to catch up on as the queue holds. A span counts as exported when all have taken it. With none, spans end and count as
    /// exported.
    pub fn exporter(mut self, exporter: impl Exporter) -> Self {
        self.exporters.push(Box::new(exporter));
        self
    }

    /// Which traces are recorded; default: as the caller says, and all that begin here.
    pub fn sampler(mut self, sampler: impl Sampler + 'static) -> Self {
        self.sampler = Some(Arc::new(sampler));
        self
    }

    /// Adds an attribute to what is known about the process. `service.name` is the builder's own.
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((key.into(), value.into()));
        self
    }

    /// Copies what goes with a context under these names onto its spans as they start, as attributes of the same names: members of the
    /// baggage, and values of keys that are declared for the wire. What a span is given itself under a name stands. Log lines have them,
    /// too (`Telemetry::log_format`). Default: nothing is copied.
    ///
    /// ```
    /// use throughline::telemetry::{self, MemoryExporter};
    /// use throughline::{Context, Key};
    ///
    /// static TENANT: Key<u64> = Key::baggage("tenant");
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let memory = MemoryExporter::default();
    /// let telemetry = telemetry::builder("cards").exporter(memory.clone()).copy_to_spans(["tenant"]).build()?;
    /// let ctx = Context::background().with_tracer(telemetry.tracer()).with_value(&TENANT, 7);
    /// ctx.span("reserve").start().end();
    /// telemetry.shutdown(std::time::Duration::from_secs(5)).await?;
    /// let span = &memory.batches()[0].spans[0];
    /// assert_eq!(span.attributes.get("tenant").and_then(|value| value.as_str()), Some("7"));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn copy_to_spans<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.copied.extend(names.into_iter().map(Into::into));
        self
    }

    /// Sets the random flag of W3C Trace Context Level 2 on new traces. Default: off.
    ///
    /// Leave it off while any receiver uses OpenTelemetry for Go before 1.42: it rejects flags
    /// above `02`, and starts a new trace. A trace that is continued keeps its caller's flag either
    /// way, and samplers use the trace id's randomness without it.
    ///
    /// ```
    /// use throughline::telemetry;
    /// use throughline::{Context, TraceFlags};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let telemetry = telemetry::builder("cards").random_flag(true).build()?;
    /// let span = Context::background().with_tracer(telemetry.tracer()).span("reserve").start();
    /// assert_eq!(span.span_context().map(|span| span.flags()), Some(TraceFlags::SAMPLED | TraceFlags::RANDOM));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn random_flag(mut self, is_set: bool) -> Self {
        self.random_flag = is_set;
        self
    }

    /// How much one span may hold.
    pub fn limits(mut self, limits: SpanLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How much may wait for its export, in spans and in bytes (about); default: 16,384 and 32 MiB. What is more is dropped, and counted.
    pub fn max_queue(mut self, spans: usize, bytes: usize) -> Self {
        (self.bounds.spans, self.bounds.bytes) = (spans.max(1), bytes);
        self
    }

    /// How many spans go together at most, and are exported at once when they are there; default: 512.
    pub fn max_batch(mut self, spans: usize) -> Self {
        self.bounds.batch = spans.max(1);
        self
    }

    /// How long the first span of a batch waits for company; default: 5 s.
    pub fn schedule_delay(mut self, delay: Duration) -> Self {
        self.schedule_delay = delay;
        self
    }

    /// How long an exporter may take for one batch, with all attempts; default: 30 s. Pauses that the receiver asks for do not count.
    pub fn export_timeout(mut self, timeout: Duration) -> Self {
        self.export_timeout = timeout;
        self
    }

    /// Called with the first error of an outage of an exporter, and not again until a batch has arrived. Also called with each error of
    /// [`Exporter::flush`] and [`Exporter::shutdown`]. Default: a line on stderr. It runs on the exporter's thread.
    pub fn on_error(mut self, callback: impl Fn(&ExportError) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(callback));
        self
    }

    /// Reads the `OTEL_*` variables; what they say replaces what was set before, and adds the exporter that they name.
    ///
    /// These are read: `OTEL_SDK_DISABLED`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` (its `service.name` counts where
    /// `OTEL_SERVICE_NAME` is unset), `OTEL_TRACES_SAMPLER` with `_ARG`, `OTEL_TRACES_EXPORTER` (`otlp`, `none`),
    /// `OTEL_BSP_SCHEDULE_DELAY`, `_EXPORT_TIMEOUT`, `_MAX_QUEUE_SIZE` and `_MAX_EXPORT_BATCH_SIZE`, the span limits, and
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL`, `_HEADERS`, `_TIMEOUT` and `_INSECURE`, each also as `OTEL_EXPORTER_OTLP_TRACES_…`.
    /// There is an OTLP exporter if `OTEL_TRACES_EXPORTER` asks for it, or an endpoint is given; `OTEL_SDK_DISABLED` leaves out the
    /// exporter, and what would be wrong with it. `_COMPRESSION`, `_CERTIFICATE`, `_CLIENT_KEY` and `_CLIENT_CERTIFICATE` are not
    /// supported; stderr says so where they are set.
    /// `OTEL_PROPAGATORS` is not among them: the layers and the events read it
    /// ([`Propagator::current_default`](crate::Propagator::current_default)), whatever becomes of the spans.
    ///
    /// A timeout of 0 is no limit. An empty variable is one that is not set. One that makes no sense is ignored, and said so on stderr.
    pub fn from_env(self) -> Self {
        self.from_variables(&|name| std::env::var(name).ok())
    }

    /// [`from_env`](Self::from_env) with variables from elsewhere.
    pub fn from_variables(self, get: &dyn Fn(&str) -> Option<String>) -> Self {
        self.read(get, false)
    }

    pub(super) fn read(mut self, get: &dyn Fn(&str) -> Option<String>, otlp_by_default: bool) -> Self {
        let mut env = Env::new(get);
        self.is_disabled |= env.is_true("OTEL_SDK_DISABLED");
        let attributes = env.pairs("OTEL_RESOURCE_ATTRIBUTES");
        let name = attributes.iter().rev().find(|(key, name)| key == "service.name" && !name.trim().is_empty());
        let name = env.text("OTEL_SERVICE_NAME").or(name.map(|(_, name)| name.clone()));
        self.service = name.unwrap_or(self.service);
        self.attributes.extend(attributes);
        self.sampler = env.sampler().or(self.sampler);
        self.limits = env.limits(self.limits);
        self.schedule_delay = env.millis("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(self.schedule_delay);
        self.export_timeout = env.timeout("OTEL_BSP_EXPORT_TIMEOUT").unwrap_or(self.export_timeout);
        self.bounds.spans = env.count("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(self.bounds.spans);
        self.bounds.batch = env.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").unwrap_or(self.bounds.batch);
        // What would have nothing to export needs no endpoint that works.
        if !self.is_disabled
            && let Some(by_default) = env.exporter(otlp_by_default)
        {
            self.add_otlp(&mut env, by_default);
        }
        for warning in env.warnings {
            warn(format_args!("{warning}"));
        }
        self
    }

    #[cfg(feature = "otlp")]
    fn add_otlp(&mut self, env: &mut Env<'_>, by_default: bool) {
        match super::otlp::from_env(env, by_default) {
            Ok(exporter) => self.exporters.extend(exporter),
            Err(e) => self.error = Some(e),
        }
    }

    #[cfg(not(feature = "otlp"))]
    fn add_otlp(&mut self, _: &mut Env<'_>, _: bool) {}

    /// Starts the export threads, one for each exporter.
    ///
    /// # Errors
    /// An exporter can't be set up, with what to check; or the operating system gives no thread.
    pub fn build(self) -> Result<TelemetryGuard, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let resource = Arc::new(resource::resource(&self.service, self.attributes));
        let bounds = Bounds { batch: self.bounds.batch.min(self.bounds.spans), ..self.bounds };
        let queue = Arc::new(Queue::new(bounds, Arc::clone(&resource), self.exporters.len()));
        let mut config = TracerConfig::new(queue.clone());
        config.resource = resource;
        config.limits = self.limits;
        if let Some(sampler) = self.sampler {
            config.sampler = sampler;
        }
        config.find_descendant = Some(super::layer::find_descendant());
        Tracer::set_find_enclosing(super::layer::find_enclosing);
        let copied: Arc<[String]> = self.copied.into();
        if !copied.is_empty() {
            config.from_context = Some(from_context(Arc::clone(&copied)));
        }
        if self.is_disabled {
            config = disabled(config.resource);
        }
        config.random_flag = self.random_flag;
        let tracer = Tracer::new(config);
        let service = self.service;
        let default = move |error: &ExportError| warn(format_args!("spans of {service} are lost: {error}"));
        let on_error = self.on_error.unwrap_or_else(|| Arc::new(default));
        for (lane, exporter) in self.exporters.into_iter().enumerate() {
            let worker = Worker {
                queue: Arc::clone(&queue),
                lane,
                exporter,
                schedule_delay: self.schedule_delay,
                export_timeout: self.export_timeout,
                on_error: Arc::clone(&on_error),
            };
            worker.spawn().map_err(|e| {
                // Ends those that have started.
                queue.request_end(Instant::now());
                BuildError(format!("an export thread can't start: {e}"))
            })?;
        }
        Ok(TelemetryGuard::new(Telemetry::new(tracer, queue, copied)))
    }
}

/// As [`Tracer::noop`], but it knows what service this is: errors that leave it tell.
fn disabled(resource: Arc<Resource>) -> TracerConfig {
    struct DiscardSpans;

    impl Recorder for DiscardSpans {
        fn record(&self, _: SpanRecord) {}

        fn admit(&self) -> bool {
            false
        }
    }

    let mut config = TracerConfig::new(Arc::new(DiscardSpans));
    // Nobody here to decide: the caller's decision goes on.
    config.sampler = Arc::new(ParentBased::new(AlwaysOff));
    config.resource = resource;
    config
}

fn from_context(names: Arc<[String]>) -> FromContext {
    Arc::new(move |ctx: &Context, attributes: &mut Attributes| {
        for name in names.iter() {
            if attributes.get(name).is_none()
                && let Some(value) = values::get(ctx, name)
            {
                attributes.set(name.clone(), value.into_owned());
            }
        }
    })
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("service", &self.service).finish_non_exhaustive()
    }
}

/// Telemetry can't be set up; the message says what to check.
#[derive(Clone, Debug)]
pub struct BuildError(pub(super) String);

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BuildError {}
