//! The builder of a telemetry.

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
/// The builder reads no environment variable before [`from_env`](Self::from_env) is called.
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

    /// Adds an exporter, which gets every batch and has its own thread.
    ///
    /// A slow exporter does not delay the others. It may lag behind by as many spans as the queue
    /// holds. A span counts as exported when all exporters have exported it. Without an exporter,
    /// spans count as exported when they end.
    pub fn exporter(mut self, exporter: impl Exporter) -> Self {
        self.exporters.push(Box::new(exporter));
        self
    }

    /// Sets which traces are recorded.
    ///
    /// By default, the caller's decision is kept, and all traces that start here are recorded.
    pub fn sampler(mut self, sampler: impl Sampler + 'static) -> Self {
        self.sampler = Some(Arc::new(sampler));
        self
    }

    /// Adds an attribute to the resource, which describes the process.
    ///
    /// `service.name` is ignored: the builder sets it.
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((key.into(), value.into()));
        self
    }

    /// Copies the values of a context with these names to its spans, as attributes.
    ///
    /// The values are members of the baggage, and values of keys that are propagated
    /// (`Key::baggage`, `Key::header`). They are copied when a span starts, under the same names.
    /// An attribute that is set on the span itself is not replaced. Log lines have the values too
    /// (`Telemetry::log_format`). By default nothing is copied.
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

    /// Sets the random flag of W3C Trace Context Level 2 on new traces.
    ///
    /// The default is off.
    ///
    /// Leave it off while any receiver uses OpenTelemetry for Go before 1.42: that version rejects
    /// flags above `02`, and starts a new trace. A continued trace keeps its caller's flag in both
    /// cases. Samplers use the randomness of the trace id even without the flag.
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

    /// Limits the size of one span.
    pub fn limits(mut self, limits: SpanLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Limits the queue, in spans and in bytes (approximately).
    ///
    /// The default is 16,384 spans and 32 MiB. Spans beyond a limit are dropped and counted.
    pub fn max_queue(mut self, spans: usize, bytes: usize) -> Self {
        (self.bounds.spans, self.bounds.bytes) = (spans.max(1), bytes);
        self
    }

    /// Limits the number of spans in a batch. The default is 512.
    ///
    /// When this many spans are queued, they are exported at once.
    pub fn max_batch(mut self, spans: usize) -> Self {
        self.bounds.batch = spans.max(1);
        self
    }

    /// Sets how long a span waits until its batch is full.
    ///
    /// The default is 5 s.
    pub fn schedule_delay(mut self, delay: Duration) -> Self {
        self.schedule_delay = delay;
        self
    }

    /// Limits the time of an exporter for one batch, with all attempts.
    ///
    /// The default is 30 s.
    ///
    /// Pauses that the receiver requests do not count. When the time has passed, the batch is
    /// dropped ([`DropReason::ExportTimeout`](super::DropReason::ExportTimeout)).
    pub fn export_timeout(mut self, timeout: Duration) -> Self {
        self.export_timeout = timeout;
        self
    }

    /// Sets a callback for errors of exporters. The default writes a line to stderr.
    ///
    /// It is called with:
    /// - the first error of an outage, and not again until a batch has been exported;
    /// - each error of [`Exporter::flush`] and [`Exporter::shutdown`].
    ///
    /// It runs on the thread of the exporter.
    pub fn on_error(mut self, callback: impl Fn(&ExportError) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(callback));
        self
    }

    /// Reads the `OTEL_*` variables.
    ///
    /// A variable replaces the value set before. An exporter that the variables configure is added.
    ///
    /// These variables are read:
    /// - `OTEL_SDK_DISABLED`;
    /// - `OTEL_SERVICE_NAME`, and `OTEL_RESOURCE_ATTRIBUTES`, whose `service.name` is used if
    ///   `OTEL_SERVICE_NAME` is not set;
    /// - `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`;
    /// - `OTEL_TRACES_EXPORTER` (`otlp`, `none`);
    /// - `OTEL_BSP_SCHEDULE_DELAY`, `_EXPORT_TIMEOUT`, `_MAX_QUEUE_SIZE` and
    ///   `_MAX_EXPORT_BATCH_SIZE`;
    /// - the span limits;
    /// - `OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL`, `_HEADERS`, `_TIMEOUT` and `_INSECURE`, each
    ///   also as `OTEL_EXPORTER_OTLP_TRACES_…`.
    ///
    /// An OTLP exporter is added if `OTEL_TRACES_EXPORTER` names it or an endpoint is set. With
    /// `OTEL_SDK_DISABLED` it is not added, and an invalid endpoint is not an error.
    ///
    /// `_COMPRESSION`, `_CERTIFICATE`, `_CLIENT_KEY` and `_CLIENT_CERTIFICATE` are not supported.
    /// If they are set, a warning is written to stderr.
    ///
    /// `OTEL_PROPAGATORS` is not read here. The layers and the events read it, in
    /// [`Propagator::current_default`](crate::Propagator::current_default), even if no span is
    /// recorded.
    ///
    /// A timeout of 0 means no limit. An empty variable counts as not set. An invalid variable is
    /// ignored, with a warning on stderr.
    pub fn from_env(self) -> Self {
        self.from_variables(&|name| std::env::var(name).ok())
    }

    /// Like [`from_env`](Self::from_env), but reads the variables with `get`.
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
        // A disabled SDK exports nothing, so an invalid endpoint must not be an error.
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

    /// Starts one export thread for each exporter, and returns the guard.
    ///
    /// # Errors
    /// - An exporter can't be set up. The message says what to check.
    /// - The operating system can't start a thread.
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
        config.set_find_descendant(super::layer::find_descendant());
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
        let default = move |error: &ExportError| warn(format_args!("an exporter of {service} failed: {error}"));
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
                // Ends the threads that have started.
                queue.request_end(Instant::now());
                BuildError(format!("an export thread can't start: {e}"))
            })?;
        }
        Ok(TelemetryGuard::new(Telemetry::new(tracer, queue, copied)))
    }
}

/// Like [`Tracer::noop`], but with the resource: errors sent to callers carry the service name.
fn disabled(resource: Arc<Resource>) -> TracerConfig {
    struct DiscardSpans;

    impl Recorder for DiscardSpans {
        fn record(&self, _: SpanRecord) {}

        fn admit(&self) -> bool {
            false
        }
    }

    let mut config = TracerConfig::new(Arc::new(DiscardSpans));
    // This service makes no sampling decision, so the caller's decision is propagated.
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

/// Telemetry can't be set up. The message says what to check.
#[derive(Clone, Debug)]
pub struct BuildError(pub(super) String);

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BuildError {}
