//! The options for single routes, and for requests with too little time.

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;
use throughline_core::propagation::Dropped;

use super::ContextLayer;
use crate::middleware::server::route::Route;
use crate::middleware::server::shed::Governor;

impl ContextLayer {
    /// Sets the options of one route. A later call for the same route replaces them.
    ///
    /// `path` is the name of the route, such as `/cards/{id}`: the one that axum has matched, or
    /// that [`route_fn`](Self::route_fn) returns. If no route has that name, it is the exact path
    /// of the request's URI, such as `/healthz`, or `/bank.Feed/Watch` for a method of gRPC.
    ///
    /// With axum, the layer sees the matched route if it is added by `Router::layer`. Around a
    /// whole router it sees only the path.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use axum::{Router, routing::get};
    /// use throughline::{ContextLayer, Ctx, Route};
    ///
    /// async fn report(Ctx(ctx): Ctx) -> String {
    ///     format!("{:?}", ctx.remaining())
    /// }
    ///
    /// let slow = Route::new().timeout(Duration::from_secs(300));
    /// let layer = ContextLayer::edge().route("/reports/{year}", slow);
    /// let app: Router = Router::new().route("/reports/{year}", get(report)).layer(layer);
    /// # let _ = app;
    /// ```
    pub fn route(self, path: impl Into<Box<str>>, route: Route) -> Self {
        self.change(|config| {
            config.routes.insert(path.into(), route);
        })
    }

    /// Changes the options of one route, and keeps those that `change` does not set.
    ///
    /// `change` gets the options of earlier calls for the same route, or those of [`Route::new`].
    /// For settings that come from a file, on top of those in the code.
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline::{ContextLayer, Route};
    ///
    /// let layer = ContextLayer::internal().route("/healthz", Route::new().unrecorded());
    /// let layer = layer.change_route("/healthz", |route| route.timeout(Duration::from_secs(1)));
    /// # let _ = layer;
    /// ```
    pub fn change_route(self, path: impl Into<Box<str>>, change: impl FnOnce(Route) -> Route) -> Self {
        self.change(|config| config.routes.change(path.into(), change))
    }

    /// Names the route of a request, for routers other than axum's.
    ///
    /// The name is the span's `http.route`, and part of the name of the span. It selects the
    /// options of [`route`](Self::route). Return the template (`/cards/{id}`), not the path: there
    /// must be few names. `None`: the route that axum has matched, if any.
    ///
    /// It is called once per request, before the span starts.
    ///
    /// ```
    /// use throughline::ContextLayer;
    ///
    /// let layer = ContextLayer::internal().route_fn(|head| {
    ///     let path = head.uri.path();
    ///     path.starts_with("/cards/").then_some("/cards/{id}".into())
    /// });
    /// # let _ = layer;
    /// ```
    pub fn route_fn(self, name: impl Fn(&Parts) -> Option<Cow<'static, str>> + Send + Sync + 'static) -> Self {
        self.change(|config| config.routes.set_name(name))
    }

    /// Sheds at most this part of the requests, in percent. Default: no bound.
    ///
    /// A request is shed because of its timeout: it has expired, or it is shorter than the
    /// [`min_remaining`](Route::min_remaining) of its route. Callers that send wrong
    /// timeouts can then not keep a server from working. The bound is for the last ten seconds, in
    /// steps of a second, and for the layer with its clones.
    ///
    /// Beyond it, the handler is called:
    /// - An expired timeout is ignored. The limits of the layer hold.
    /// - A timeout that is too short holds: the handler has that time.
    ///
    /// Requests are always refused when the base is done.
    ///
    /// ```
    /// use throughline::ContextLayer;
    ///
    /// let layer = ContextLayer::internal().max_shed_percent(20);
    /// assert_eq!((layer.shed_count(), layer.spared_count()), (0, 0));
    /// ```
    pub fn max_shed_percent(self, percent: u8) -> Self {
        self.change(|config| config.governor = Some(Arc::new(Governor::new(percent.min(100), false))))
    }

    /// Sheds no request because of its timeout, and only counts in
    /// [`spared_count`](Self::spared_count).
    ///
    /// To see the effect of a [`min_remaining`](Route::min_remaining) before it is used. The
    /// handler is called as it is beyond [`max_shed_percent`](Self::max_shed_percent), which this
    /// replaces.
    pub fn shed_dry_run(self) -> Self {
        self.change(|config| config.governor = Some(Arc::new(Governor::new(0, true))))
    }

    /// Returns how many requests were handled although they were short of time.
    ///
    /// They were beyond [`max_shed_percent`](Self::max_shed_percent), or
    /// [`shed_dry_run`](Self::shed_dry_run) is set. Clones of the layer count together.
    pub fn spared_count(&self) -> u64 {
        self.config.governor.as_ref().map_or(0, |governor| governor.spared())
    }

    /// Returns how many requests got a response without a call of their handler.
    ///
    /// No time was left for them, or the base was done. Clones of the layer count together.
    pub fn shed_count(&self) -> u64 {
        self.config.counts.shed()
    }

    /// Returns how much of the context that callers sent was dropped.
    ///
    /// It was malformed, or beyond a limit. The requests were handled without it, and nothing was
    /// logged. Clones of the layer count together.
    ///
    /// If a layer made by [`internal`](Self::internal) counts any, an internal service sends it, or
    /// an untrusted client reaches an internal port.
    pub fn dropped_context(&self) -> Dropped {
        self.config.counts.dropped()
    }
}
