use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use throughline_core::propagation::deadline::ReplyReserve;
use throughline_core::trace::Tracer;
use throughline_core::{Context, Propagator};
use tower_layer::Layer;

use super::ContextService;

/// Gives every request its context: see [the module](super) for when each thing happens.
///
/// Who the callers are is said by name: [`internal`](Self::internal) or [`edge`](Self::edge). Cloning it costs one reference count.
///
/// # Examples
/// ```
/// use axum::{Extension, Router, routing::get};
/// use throughline::{Context, ContextLayer};
///
/// async fn left(Extension(ctx): Extension<Context>) -> String {
///     format!("{:?}", ctx.remaining())
/// }
///
/// let app: Router = Router::new().route("/", get(left)).layer(ContextLayer::internal());
/// # let _ = app;
/// ```
/// A public port, whose requests end with the process and take 10 s at most:
/// ```
/// use std::time::Duration;
/// use throughline::{Context, ContextLayer};
///
/// let process = Context::background().with_cancel();
/// let layer = ContextLayer::edge().base(&process).max_timeout(Duration::from_secs(10));
/// assert_eq!(layer.shed(), 0);
/// ```
#[derive(Clone)]
#[must_use]
pub struct ContextLayer {
    config: Arc<Config>,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) is_edge: bool,
    pub(super) propagator: Propagator,
    pub(super) tracer: Option<Tracer>,
    pub(super) base: Context,
    pub(super) max_timeout: Option<Duration>,
    pub(super) default_timeout: Option<Duration>,
    pub(super) reserve: ReplyReserve,
    pub(super) is_inner: bool,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) shed: Arc<AtomicU64>,
}

/// What becomes of a handler whose client has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It is dropped, and its context cancelled.
    #[default]
    Cancel,
    /// It goes on in a task of its own, until its deadline: for work that may not stop half-way.
    Detach,
}

impl ContextLayer {
    /// For callers that are services of ours: their trace goes on, their sampling decision stands, their deadline holds, and their baggage
    /// goes with the context.
    pub fn internal() -> Self {
        Self::new(false, None)
    }

    /// For strangers, on a public port: a new trace begins and links the caller's; sampling is ours to decide; baggage is not read; a
    /// deadline can only be shorter than [`max_timeout`](Self::max_timeout), which is 60 s if not given; errors go out without origin, path and details.
    pub fn edge() -> Self {
        Self::new(true, Some(Duration::from_secs(60)))
    }

    fn new(is_edge: bool, max_timeout: Option<Duration>) -> Self {
        let config = Config {
            is_edge,
            propagator: Propagator::default(),
            tracer: None,
            base: Context::background(),
            max_timeout,
            default_timeout: None,
            reserve: ReplyReserve::DEFAULT,
            is_inner: false,
            on_disconnect: OnDisconnect::Cancel,
            shed: Arc::default(),
        };
        ContextLayer { config: Arc::new(config) }
    }

    /// Where the spans go, as well as those below; default: where the base's spans go, or the process's default. Its resource's
    /// `service.name` is what errors that leave here have in their path.
    pub fn tracer(self, tracer: Tracer) -> Self {
        self.change(|config| config.tracer = Some(tracer))
    }

    /// The context that requests stand below: when it is cancelled, they are. Default: the background.
    pub fn base(self, base: &Context) -> Self {
        self.change(|config| config.base = base.clone())
    }

    /// The formats in which callers tell of their trace; default: W3C's, and baggage.
    pub fn propagator(self, propagator: Propagator) -> Self {
        self.change(|config| config.propagator = propagator)
    }

    /// The longest that any request may take; a caller can only ask for less.
    pub fn max_timeout(self, timeout: Duration) -> Self {
        self.change(|config| config.max_timeout = Some(timeout))
    }

    /// What a request may take whose caller has sent no deadline; default: the maximum, or no limit.
    pub fn default_timeout(self, timeout: Duration) -> Self {
        self.change(|config| config.default_timeout = Some(timeout))
    }

    /// Layers outside of this one may drop a request, so that a drop does not mean that the client has gone.
    pub fn inner(self) -> Self {
        self.change(|config| config.is_inner = true)
    }

    /// The reserve that callers keep back for the answer's way; a drop with no more time than that left of what the caller *sent* is a
    /// deadline.
    pub fn reserve(self, reserve: ReplyReserve) -> Self {
        self.change(|config| config.reserve = reserve)
    }

    /// What becomes of a handler whose client has gone; default: it is cancelled.
    pub fn on_disconnect(self, then: OnDisconnect) -> Self {
        self.change(|config| config.on_disconnect = then)
    }

    /// How many requests were answered without calling their handler, as no time was left or the base was done. Clones of the layer
    /// count together.
    pub fn shed(&self) -> u64 {
        self.config.shed.load(Ordering::Relaxed)
    }

    fn change(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService::new(inner, Arc::clone(&self.config))
    }
}

impl fmt::Debug for ContextLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.config.is_edge { "ContextLayer::edge" } else { "ContextLayer::internal" })
    }
}
