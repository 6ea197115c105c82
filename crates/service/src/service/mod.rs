//! A service: its routes, and what is around them.

mod admin;
mod errors;
mod limit;
mod serve;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::extract::Request;
use axum::handler::Handler;
use axum::response::IntoResponse;
use axum::routing::{self, MethodRouter};
use throughline::{Context, ContextLayer, Error, Route};
use tower::Layer;

pub use errors::layer_error;
pub use serve::Services;

use crate::config::{ServiceSettings, Watched};
use crate::health::Health;
use crate::stats::Stats;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A named service: its routes, their handlers, and the layers around them.
///
/// # Routes
/// Handlers, extractors and routing are axum's. `route("reserve", reserve)` is `POST /reserve`.
///
/// | Method | Adds |
/// |---|---|
/// | [`route`](Self::route) | a handler for POST, which is what `Client` sends |
/// | [`get`](Self::get) | a handler for GET |
/// | [`method_routes`](Self::method_routes) | handlers by method |
/// | [`merge`](Self::merge) | all routes of an axum router |
/// | [`route_options`](Self::route_options) | a timeout and other options of one route |
///
/// A request for another route gets `NOT_FOUND`. One with another method gets `UNIMPLEMENTED`, with
/// the status 405. Both errors name the service and the route.
///
/// # Layers
/// From the outside:
/// 1. A [`ContextLayer`]: deadline, cancellation, spans, errors. Default:
///    [`ContextLayer::internal`]. [`context_layer`](Self::context_layer) replaces it.
/// 2. The limit of requests in flight of the [`settings`](Self::settings), if any.
/// 3. The layers of [`layer`](Self::layer), the one added last first.
/// 4. Those of one route: `reserve.layer(…)` of [`Handler`].
///
/// The transport limits the sizes of bodies and the number of requests. axum's own limit of 2 MB
/// is off. A handler that panics fails its own request only, with `INTERNAL`.
///
/// # Routes of the library
/// | Route | Response |
/// |---|---|
/// | `GET /stats` | [`ServiceStats`](crate::ServiceStats) as JSON |
/// | `GET /health/live` | 200 |
/// | `GET /health/ready` | [`Readiness`](crate::Readiness) as JSON: 200, or 503 when not ready |
///
/// They have no spans and are not counted. [`without_admin_routes`](Self::without_admin_routes)
/// leaves them out. [`admin_router`](Self::admin_router) is the same for a port of its own.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicI64, Ordering};
/// use std::time::Duration;
///
/// use serde::{Deserialize, Serialize};
/// use throughline::{Code, Ctx, Error, Route, Shutdown};
/// use throughline_service::axum::extract::State;
/// use throughline_service::{Json, Service};
/// use throughline_transport::Transport;
///
/// #[derive(Deserialize)]
/// struct Reservation { amount: i64 }
///
/// #[derive(Serialize)]
/// struct Balance { left: i64 }
///
/// type Ledger = Arc<AtomicI64>;
///
/// async fn reserve(
///     Ctx(_ctx): Ctx,
///     State(ledger): State<Ledger>,
///     Json(body): Json<Reservation>,
/// ) -> Result<Json<Balance>, Error> {
///     if body.amount > ledger.load(Ordering::SeqCst) {
///         return Err(Error::new(Code::FailedPrecondition, "the balance is too low"));
///     }
///     Ok(Json(Balance { left: ledger.fetch_sub(body.amount, Ordering::SeqCst) - body.amount }))
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let transport = Transport::in_process();
/// let shutdown = Shutdown::new(Duration::from_secs(20)); // a service uses `Shutdown::on_signal`
/// # shutdown.request();
/// Service::new("balance")
///     .route("reserve", reserve)
///     .route_options("reserve", Route::new().timeout(Duration::from_millis(250)))
///     .with_state(Ledger::new(AtomicI64::new(100)))
///     .serve(&transport, &shutdown)
///     .await?;
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Error>(())
/// ```
#[must_use = "a service does nothing until it is served"]
pub struct Service<S = ()> {
    name: Arc<str>,
    router: Router<S>,
    layers: Vec<Box<ApplyLayer>>,
    context_layer: ContextLayer,
    route_options: Vec<(String, Route)>,
    settings: Watched<ServiceSettings>,
    has_admin_routes: bool,
    stats: Stats,
    health: Health,
}

type ApplyLayer = dyn FnOnce(Router) -> Router + Send;

impl<S: Clone + Send + Sync + 'static> Service<S> {
    /// Makes a service without routes.
    ///
    /// `name` is the name that callers use. The transport checks it: 1 to 63 ASCII letters, digits,
    /// `-` and `_`. It is also the name in the path of errors, unless the tracer has a
    /// `service.name`.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Service {
            router: Router::new(),
            layers: Vec::new(),
            context_layer: ContextLayer::internal(),
            route_options: Vec::new(),
            settings: Watched::fixed(ServiceSettings::default()),
            has_admin_routes: true,
            stats: Stats::new(Arc::clone(&name)),
            health: Health::new(),
            name,
        }
    }

    /// Adds a handler for `POST /name`.
    ///
    /// `name` may have several segments and parameters: `accounts/{id}/reserve`.
    ///
    /// # Panics
    /// If the name is not valid for axum, or the service has the route already.
    #[track_caller]
    pub fn route<H, T>(self, name: &str, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.stats.add_route("POST", &path(name));
        self.method_routes(name, routing::post(handler))
    }

    /// Adds a handler for `GET /name`.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[track_caller]
    pub fn get<H, T>(self, name: &str, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.stats.add_route("GET", &path(name));
        self.method_routes(name, routing::get(handler))
    }

    /// Adds handlers for `/name`, by their methods.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    ///
    /// # Examples
    /// ```
    /// use throughline_service::Service;
    /// use throughline_service::axum::routing::{delete, put};
    ///
    /// let cards: Service = Service::new("cards")
    ///     .method_routes("cards/{id}", put(async || "stored").delete(async || "removed"));
    /// # let _ = cards;
    /// ```
    #[track_caller]
    pub fn method_routes(mut self, name: &str, routes: MethodRouter<S>) -> Self {
        self.router = self.router.route(&path(name), routes);
        self
    }

    /// Adds the routes of an axum router.
    ///
    /// Its fallback is replaced: a route that the service does not have is `NOT_FOUND`.
    ///
    /// # Panics
    /// If a route is there already.
    #[track_caller]
    pub fn merge(mut self, router: Router<S>) -> Self {
        self.router = self.router.merge(router.reset_fallback());
        self
    }

    /// Sets the timeout and other options of one route.
    ///
    /// It does not lengthen the timeout that a caller has sent. A later call for the same route
    /// replaces the options. The name may be that of a merged route: `/cards/{id}`.
    pub fn route_options(mut self, name: &str, options: Route) -> Self {
        self.route_options.push((path(name), options));
        self
    }

    /// Gives the handlers their state, which `State` extracts.
    ///
    /// A service whose handlers have no state does not need it.
    pub fn with_state<S2>(self, state: S) -> Service<S2> {
        Service {
            name: self.name,
            router: self.router.with_state(state),
            layers: self.layers,
            context_layer: self.context_layer,
            route_options: self.route_options,
            settings: self.settings,
            has_admin_routes: self.has_admin_routes,
            stats: self.stats,
            health: self.health,
        }
    }

    /// Puts a tower layer around all routes, also around those that are added later.
    ///
    /// The routes of the library (`/stats`, `/health/…`) are outside.
    /// - It is inside the [`ContextLayer`], and sees the context as an extension of the request.
    /// - As with axum, each route gets a layer of its own. A limit for all routes together needs a
    ///   layer that shares it, such as tower's `GlobalConcurrencyLimitLayer`.
    /// - A layer that waits until the next one is ready, such as `LoadShedLayer`, needs it in the
    ///   same call: `layer((LoadShedLayer::new(), limit))`. The first is the outer one.
    /// - An error of the layer becomes a response: see [`layer_error`].
    ///
    /// For one route use `handler.layer(…)`, which [`Handler`] has.
    ///
    /// # Examples
    /// ```
    /// use throughline_service::Service;
    /// use tower::limit::GlobalConcurrencyLimitLayer;
    /// use tower::load_shed::LoadShedLayer;
    ///
    /// let service: Service = Service::new("cards")
    ///     .layer((LoadShedLayer::new(), GlobalConcurrencyLimitLayer::new(64)))
    ///     .route("block", async || "blocked");
    /// # let _ = service;
    /// ```
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<routing::Route> + Clone + Send + Sync + 'static,
        L::Service: tower::Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as tower::Service<Request>>::Response: IntoResponse + Send + 'static,
        <L::Service as tower::Service<Request>>::Error: Into<BoxError> + Send + 'static,
        <L::Service as tower::Service<Request>>::Future: Send + 'static,
    {
        let catch = HandleErrorLayer::new(layer_error::<<L::Service as tower::Service<Request>>::Error>);
        self.layers.push(Box::new(|router| router.layer((catch, layer))));
        self
    }

    /// Replaces the layer that gives requests their contexts. Default: `ContextLayer::internal()`.
    ///
    /// Its [`base`](ContextLayer::base) is replaced when the service is served. Its hooks are
    /// called. The options of [`route_options`](Self::route_options) are added to its own.
    pub fn context_layer(mut self, layer: ContextLayer) -> Self {
        self.context_layer = layer;
        self
    }

    /// Follows settings while the service runs: timeouts, limits, options of routes.
    ///
    /// A change holds for the requests that start after it. Requests in flight keep the settings
    /// that they have started with. A setting that is absent is as the code says. More than
    /// `max_in_flight` requests at a time get `RESOURCE_EXHAUSTED`; `/stats` and `/health/…` are
    /// not among them.
    ///
    /// # Examples
    /// ```
    /// use throughline_service::Service;
    /// use throughline_service::config::{ServiceSettings, Watched};
    ///
    /// // A program takes them from its `Config`.
    /// let settings = Watched::fixed(ServiceSettings { max_in_flight: Some(64), ..Default::default() });
    /// let service: Service = Service::new("cards").settings(settings);
    /// # let _ = service;
    /// ```
    pub fn settings(mut self, settings: impl Into<Watched<ServiceSettings>>) -> Self {
        self.settings = settings.into();
        self
    }

    /// Adds a check that must succeed for the service to be ready.
    ///
    /// It runs for each request of `/health/ready`, at the same time as the other checks. Its
    /// context ends after the [timeout](Self::ready_timeout). A check that fails or takes longer
    /// makes the service not ready.
    ///
    /// # Examples
    /// ```
    /// use throughline::{Code, Error};
    /// use throughline_service::Service;
    ///
    /// let service: Service = Service::new("cards").ready_check("storage", async |ctx| {
    ///     ctx.check()?; // ask the storage with this context
    ///     Ok(())
    /// });
    /// # let _ = service;
    /// ```
    pub fn ready_check<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        self.health.add_check(name, move |ctx| Box::pin(check(ctx)));
        self
    }

    /// Sets how long a [`ready_check`](Self::ready_check) may take; default: 1 s.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.health.set_timeout(timeout);
        self
    }

    /// Leaves out `/stats` and `/health/…`, for services that have such routes of their own.
    pub fn without_admin_routes(mut self) -> Self {
        self.has_admin_routes = false;
        self
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a handle to what the service counts. It stays valid while the service runs.
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Returns a handle that says whether the service is ready. It stays valid while it runs.
    ///
    /// Add the checks before: those that are added later do not belong to this handle.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Returns `/stats` and `/health/…` as an axum router.
    ///
    /// For a port of their own: probes of an orchestrator speak HTTP/1, and a listener that drains
    /// refuses new requests. Add the checks before.
    ///
    /// # Examples
    /// ```no_run
    /// use throughline_service::Service;
    ///
    /// # async fn serve(service: Service) -> std::io::Result<()> {
    /// let listener = tokio::net::TcpListener::bind("0.0.0.0:9000").await?;
    /// let app = service.admin_router();
    /// tokio::spawn(async move { axum::serve(listener, app).await });
    /// # Ok(()) }
    /// ```
    pub fn admin_router<S2: Clone + Send + Sync + 'static>(&self) -> Router<S2> {
        admin::router(self.stats.clone(), self.health.clone())
    }
}

/// The path of a route.
fn path(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/{name}") }
}

impl<S> fmt::Debug for Service<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name).finish_non_exhaustive()
    }
}
