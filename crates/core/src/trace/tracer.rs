use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::attributes::Attributes;
use super::foreign::{self, FindDescendant};
use super::limits::SpanLimits;
use super::record::{Resource, SpanRecord};
use super::sampler::{ParentBased, Sampler};
use crate::Context;
use crate::context::set_derive_for_spawn;

/// Where finished spans go.
pub trait Recorder: Send + Sync {
    /// Takes a finished span. Called on the task that ended it: it must not block and must not panic.
    fn record(&self, span: SpanRecord);

    /// Asked as each sampled span starts. `false`, as after a shutdown, makes it a span that records nothing; the
    /// recorder counts it as dropped. The default is always `true`.
    fn admit(&self) -> bool {
        true
    }
}

/// What makes and collects spans: a recorder, a sampler, a resource and limits, behind one cheap handle.
///
/// Cloning costs one reference count at most. Several live side by side in one process.
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
///         self.0.lock().expect("nobody panics with it").push(span);
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

/// What a [`Tracer`] is made of.
#[derive(Clone)]
#[non_exhaustive]
pub struct TracerConfig {
    /// Where finished spans go.
    pub recorder: Arc<dyn Recorder>,
    /// Which traces are recorded; default: as the caller says, and all that begin here.
    pub sampler: Arc<dyn Sampler>,
    /// What makes the spans; default: nothing known.
    pub resource: Arc<Resource>,
    /// How much one span may hold.
    pub limits: SpanLimits,
    /// Spans of another kind that the same task is in; default: none.
    pub find_descendant: Option<FindDescendant>,
    /// Attributes that recorded spans have from their context; default: none.
    pub from_context: Option<FromContext>,
    /// Whether new traces carry [`TraceFlags::RANDOM`](crate::TraceFlags::RANDOM); default: no.
    /// Receivers of Level 1 of W3C Trace Context may reject flags above `02` and start a new trace.
    /// A trace that is continued keeps the flag of its caller either way.
    pub random_flag: bool,
}

/// Adds the attributes that a span has from the context it starts in to those it was given.
///
/// Called as each recorded span starts, on its task; samplers do not see what it adds.
pub type FromContext = Arc<dyn Fn(&Context, &mut Attributes) + Send + Sync>;

impl TracerConfig {
    /// Spans go to `recorder`; all else has its default.
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
    /// A tracer made of `config`.
    pub fn new(config: TracerConfig) -> Self {
        if config.find_descendant.is_some() {
            set_derive_for_spawn(foreign::for_spawned);
        }
        Self(Some(Arc::new(Inner { config, late_writes: AtomicU64::new(0) })))
    }

    /// A tracer whose spans go nowhere: they carry an identity on the wire, and the caller's sampling decision.
    pub const fn noop() -> Self {
        Self(None)
    }

    /// Whether spans go anywhere.
    pub const fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Makes this tracer the one of every context that names no other, for the life of the process.
    ///
    /// # Errors
    /// There is one already: it stays.
    pub fn set_default(tracer: Tracer) -> Result<(), SetDefaultError> {
        DEFAULT.set(tracer).map_err(|_| SetDefaultError(()))
    }

    /// The process's default tracer; [`noop`](Self::noop) before there is one.
    pub fn current_default() -> &'static Tracer {
        DEFAULT.get().unwrap_or(&NOOP)
    }

    /// What makes the spans; `None` for [`noop`](Self::noop).
    pub fn resource(&self) -> Option<&Arc<Resource>> {
        self.config().map(|config| &config.resource)
    }

    /// Writes that came after their span had ended, and were ignored.
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

/// There is a default tracer already; a process has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetDefaultError(());

impl fmt::Display for SetDefaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process has a default tracer already: name another with `Context::with_tracer` or on a layer")
    }
}

impl std::error::Error for SetDefaultError {}
