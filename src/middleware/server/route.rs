//! Options for single routes, and the names of routes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::request::Parts;

/// Options for one route: limits, sheds, disconnects, spans. See
/// [`ContextLayer::route`](super::ContextLayer::route).
///
/// What is not set here is as the layer says.
///
/// | Option | Without it |
/// |---|---|
/// | [`timeout`](Self::timeout): another limit, for the head and each frame | [`max_timeout`] |
/// | [`no_timeout`](Self::no_timeout): no limit | [`max_timeout`] |
/// | [`stall_timeout`](Self::stall_timeout): another limit for each frame only | the limit |
/// | [`min_remaining`](Self::min_remaining): shed requests with less time left | no minimum |
/// | [`on_disconnect`](Self::on_disconnect): what a disconnect does | as the layer says |
/// | [`unrecorded`](Self::unrecorded): no spans, for health checks | spans are recorded |
///
/// No option lengthens the timeout that a caller has sent. It covers the whole exchange.
///
/// [`max_timeout`]: super::ContextLayer::max_timeout
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline::{ContextLayer, OnDisconnect, Route};
///
/// let seconds = Duration::from_secs;
/// let layer = ContextLayer::edge()
///     .route("/healthz", Route::new().unrecorded())
///     .route("/reports/{year}", Route::new().timeout(seconds(300)).min_remaining(seconds(2)))
///     .route("/payments", Route::new().on_disconnect(OnDisconnect::Detach))
///     .route("/bank.Feed/Watch", Route::new().stall_timeout(seconds(30)));
/// # let _ = layer;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Route {
    limit: Limit,
    stall: Option<Duration>,
    pub(super) min_remaining: Option<Duration>,
    pub(super) on_disconnect: Option<OnDisconnect>,
    pub(super) is_unrecorded: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Limit {
    #[default]
    OfLayer,
    None,
    Some(Duration),
}

impl Route {
    /// A route whose options are those of the layer.
    pub fn new() -> Self {
        Route::default()
    }

    /// The limit for the head of the response, then for each frame.
    ///
    /// It replaces the layer's [`max_timeout`](super::ContextLayer::max_timeout) and
    /// [`default_timeout`](super::ContextLayer::default_timeout), and may be longer than they are.
    /// A caller can only ask for less.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limit = Limit::Some(timeout);
        self
    }

    /// Neither a limit for the head nor for the frames.
    ///
    /// Only the timeout that the caller has sent holds. Without one, a request lives until its
    /// client disconnects or the base is done. At a public edge, a client then decides how long a
    /// request lives.
    pub fn no_timeout(mut self) -> Self {
        self.limit = Limit::None;
        self
    }

    /// The limit for each frame of the response's body.
    ///
    /// It does not change the one for the head.
    ///
    /// `Duration::MAX`: no limit, for streams that may be silent for any time.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall = Some(timeout);
        self
    }

    /// The time that the route needs.
    ///
    /// A request whose caller has less time left is shed at once: the response is a 504
    /// (`DEADLINE_EXCEEDED`), and the handler is not called. A request without a timeout of its
    /// caller is not shed.
    ///
    /// [`max_shed_percent`](super::ContextLayer::max_shed_percent) bounds what is shed. Use
    /// [`shed_dry_run`](super::ContextLayer::shed_dry_run) to try a value.
    pub fn min_remaining(mut self, needed: Duration) -> Self {
        self.min_remaining = Some(needed);
        self
    }

    /// What happens to the handler when the client disconnects.
    pub fn on_disconnect(mut self, then: OnDisconnect) -> Self {
        self.on_disconnect = Some(then);
        self
    }

    /// Records no spans: neither the request's nor those below it.
    ///
    /// For health checks. The context has its deadline and its values, and errors are logged.
    pub fn unrecorded(mut self) -> Self {
        self.is_unrecorded = true;
        self
    }

    /// The limit for the head. `of_layer`: without an option.
    pub(super) fn limit(&self, of_layer: Option<Duration>) -> Option<Duration> {
        match self.limit {
            Limit::OfLayer => of_layer,
            Limit::None => None,
            Limit::Some(limit) => Some(limit),
        }
    }

    /// The limit for each frame. `limit`: the one for the head.
    pub(super) fn stall(&self, limit: Option<Duration>) -> Option<Duration> {
        self.stall.or(limit)
    }
}

/// What happens to a handler when its client disconnects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// The handler is dropped, and its context is cancelled.
    #[default]
    Cancel,
    /// The handler continues in a task of its own, until its deadline.
    ///
    /// For work that must not stop half-way.
    Detach,
}

/// The routes with options, and the hook that names routes.
#[derive(Clone, Default)]
pub(super) struct Routes {
    options: HashMap<Box<str>, Route>,
    name: Option<Arc<NameRoute>>,
}

type NameRoute = dyn Fn(&Parts) -> Option<Cow<'static, str>> + Send + Sync;

impl Routes {
    pub(super) fn insert(&mut self, path: Box<str>, route: Route) {
        self.options.insert(path, route);
    }

    pub(super) fn change(&mut self, path: Box<str>, change: impl FnOnce(Route) -> Route) {
        let route = self.options.entry(path).or_default();
        *route = change(*route);
    }

    pub(super) fn set_name(&mut self, name: impl Fn(&Parts) -> Option<Cow<'static, str>> + Send + Sync + 'static) {
        self.name = Some(Arc::new(name));
    }

    /// The name of the route: of the hook, or the one that axum has matched.
    pub(super) fn name<'a>(&self, head: &'a Parts) -> Option<Cow<'a, str>> {
        let named = self.name.as_ref().and_then(|name| name(head));
        named.or_else(|| matched_path(head).map(Cow::Borrowed))
    }

    /// The options for a request, by its route's name, or else its path.
    pub(super) fn options(&self, name: Option<&str>, head: &Parts) -> Route {
        if self.options.is_empty() {
            return Route::default();
        }
        let by_name = name.and_then(|name| self.options.get(name));
        by_name.or_else(|| self.options.get(uri(head).path())).copied().unwrap_or_default()
    }
}

/// The URI that the client has sent. Nested routers see only a part of it.
pub(super) fn uri(head: &Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = head.extensions.get::<axum::extract::OriginalUri>() {
        return original;
    }
    &head.uri
}

#[cfg(feature = "axum")]
fn matched_path(head: &Parts) -> Option<&str> {
    head.extensions.get::<axum::extract::MatchedPath>().map(axum::extract::MatchedPath::as_str)
}

#[cfg(not(feature = "axum"))]
fn matched_path(_: &Parts) -> Option<&str> {
    None
}
