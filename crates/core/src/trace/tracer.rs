use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::attributes::Attributes;
use super::limits::SpanLimits;
use super::record::{Resource, SpanRecord};
use super::sampler::{ParentBased, Sampler};
use super::span_context::SpanContext;
use crate::Context;

/// Takes finished spans, for example to export them.
pub trait Recorder: Send + Sync {
    /// Takes a finished span.
    ///
    /// It is called on the task that ended the span. It must not block and must not panic.
    fn record(&self, span: SpanRecord);

    /// Whether a sampled span that starts now is recorded. The default is always `true`.
    ///
    /// A recorder returns `false` after its shutdown: the span then records nothing, and the
    /// recorder counts it as dropped.
    fn admit(&self) -> bool {
        true
    }
}

/// Creates spans and collects them: a recorder, a sampler, a resource and limits.
///
/// It is a cheap handle: a clone costs at most one reference count. A process may have several.
///
/// # Examples
/// ```
/// use std::sync::{Arc, Mutex};
/// use throughline_core::SpanRecord;
/// use throughline_core::trace::{Recorder, Tracer, TracerConfig};
///
/// #[derive(Default)]
/// struct Memory(Mutex<Vec<SpanRecord>>);
///
/// impl Recorder for Memory {
///     fn record(&self, span: SpanRecord) {
///         self.0.lock().expect("no panic while locked").push(span);
///     }
/// }
///
/// let tracer = Tracer::new(TracerConfig::new(Arc::new(Memory::default())));
/// assert!(tracer.is_enabled() && !Tracer::noop().is_enabled());
/// ```
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

struct Inner {
    config: TracerConfig,
    late_writes: AtomicU64,
}

/// The parts of a [`Tracer`].
#[derive(Clone)]
#[non_exhaustive]
pub struct TracerConfig {
    /// Takes the finished spans.
    pub recorder: Arc<dyn Recorder>,
    /// Decides which traces are recorded.
    ///
    /// Default: the caller's decision, and all traces that start in this process.
    pub sampler: Arc<dyn Sampler>,
    /// Describes the process that creates the spans. Default: no attributes.
    pub resource: Arc<Resource>,
    /// Limits what one span holds.
    pub limits: SpanLimits,
    pub(super) find_descendant: Option<FindDescendant>,
    /// Adds attributes from the context to recorded spans. Default: none.
    pub from_context: Option<FromContext>,
    /// Whether new traces have [`TraceFlags::RANDOM`](crate::TraceFlags::RANDOM). Default: no.
    ///
    /// Receivers of Level 1 of W3C Trace Context may reject flags above `02` and start a new trace.
    /// A trace that is continued keeps its caller's flag in either case.
    pub random_flag: bool,
}

/// Adds attributes from the context in which a span starts to those of the span.
///
/// It is called when a recorded span starts, on the task that starts it. Samplers do not see the
/// added attributes.
pub type FromContext = Arc<dyn Fn(&Context, &mut Attributes) + Send + Sync>;

/// Finds the innermost foreign span that descends from the given context's span.
///
/// A foreign span is a span of another tracing system in this process. If the context has only a
/// remote parent, the span must descend from that. A new span is then a child of the span found.
/// `None` means that there is no such span.
///
/// It is called on the task that starts a span, once for each recorded span. It must return a
/// descendant only, never the span of another request that happens to be in a thread-local. A span
/// of another trace is ignored.
pub type FindDescendant = Arc<dyn Fn(&Context) -> Option<SpanContext> + Send + Sync>;

impl TracerConfig {
    /// Spans go to `recorder`; everything else has its default.
    pub fn new(recorder: Arc<dyn Recorder>) -> Self {
        Self {
            recorder,
            sampler: Arc::new(ParentBased::default()),
            resource: Arc::default(),
            limits: SpanLimits::default(),
            find_descendant: None,
            from_context: None,
            random_flag: false,
        }
    }
}

static DEFAULT: OnceLock<Tracer> = OnceLock::new();
static NOOP: Tracer = Tracer::noop();

impl Tracer {
    /// Returns a tracer with this configuration.
    pub fn new(config: TracerConfig) -> Self {
        Self(Some(Arc::new(Inner { config, late_writes: AtomicU64::new(0) })))
    }

    /// Returns a tracer that records nothing.
    ///
    /// Its spans still have an identity, which is propagated with the caller's sampling decision.
    pub const fn noop() -> Self {
        Self(None)
    }

    /// Whether the tracer has a recorder.
    pub const fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Makes `tracer` the default of every context that names no other, until the process ends.
    ///
    /// # Errors
    /// There is a default already. It stays.
    pub fn set_default(tracer: Tracer) -> Result<(), SetDefaultError> {
        DEFAULT.set(tracer).map_err(|_| SetDefaultError(()))
    }

    /// Returns the process's default tracer, or [`noop`](Self::noop) if none is set.
    pub fn current_default() -> &'static Tracer {
        DEFAULT.get().unwrap_or(&NOOP)
    }

    /// Returns the resource; `None` for [`noop`](Self::noop).
    pub fn resource(&self) -> Option<&Arc<Resource>> {
        self.config().map(|config| &config.resource)
    }

    /// Returns how many writes were ignored because their span had ended.
    pub fn late_writes(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.late_writes.load(Ordering::Relaxed))
    }

    /// Whether both are clones of one tracer.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.as_ref().map(Arc::as_ptr) == other.0.as_ref().map(Arc::as_ptr)
    }

    #[inline]
    pub(super) fn config(&self) -> Option<&TracerConfig> {
        self.0.as_ref().map(|inner| &inner.config)
    }

    #[cold]
    pub(super) fn count_late_write(&self) {
        if let Some(inner) = &self.0 {
            inner.late_writes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.config() {
            Some(config) => {
                f.debug_struct("Tracer").field("service", &config.resource.service_name()).finish_non_exhaustive()
            }
            None => f.write_str("Tracer::noop"),
        }
    }
}

/// The process already has a default tracer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetDefaultError(());

impl fmt::Display for SetDefaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process has a default tracer already: name another with `Context::with_tracer` or on a layer")
    }
}

impl std::error::Error for SetDefaultError {}
