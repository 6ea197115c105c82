//! A service that listens: its start, its end, and several services in one process.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use futures_util::future::join_all;
use throughline::{Code, Context, ContextLayer, Error, Shutdown};
use throughline_transport::{Listener, Transport};

use super::{Service, admin, errors, limit};

impl Service {
    /// Listens on `transport`, and handles requests until the shutdown has started.
    ///
    /// | When | What |
    /// |---|---|
    /// | the call | it listens; then the service is ready |
    /// | [`Shutdown::requested`] | not ready; no new requests; those in flight go on |
    /// | no request is in flight, or the grace has passed | those left get a retryable `UNAVAILABLE` |
    /// | then | it returns |
    ///
    /// The grace of `shutdown` replaces the drain time of the transport. It starts no shutdown
    /// itself. Call [`Shutdown::finish`] when it has returned.
    ///
    /// # Errors
    /// The errors of [`Transport::listen`].
    ///
    /// # Cancellation safety
    /// If the future is dropped, so are the listener and the requests in flight.
    pub async fn serve(self, transport: &Transport, shutdown: &Shutdown) -> Result<(), Error> {
        serve_all(vec![self], transport, shutdown).await
    }

    /// Listens on `transport`, and handles requests until `ctx` is done.
    ///
    /// For tests, and for programs without a [`Shutdown`]. When `ctx` is done, requests in flight
    /// go on for the drain time of the transport. They have the values of `ctx`.
    ///
    /// # Errors
    /// The errors of [`Transport::listen`].
    ///
    /// # Cancellation safety
    /// If the future is dropped, so are the listener and the requests in flight.
    pub async fn serve_until(self, transport: &Transport, ctx: &Context) -> Result<(), Error> {
        let listening = Listening::start(self, transport).await?;
        let base = ctx.detach();
        listening.run(&base, ctx.done(), async |name| transport.stop_listening(name).await).await;
        Ok(())
    }

    /// The layer of the requests, below `base`.
    fn context_layer_below(&self, base: &Context) -> ContextLayer {
        let mut layer = self.context_layer.clone().service_name(Arc::clone(&self.name)).base(base);
        if self.has_admin_routes {
            layer = admin::unrecorded(layer);
        }
        for (route, options) in &self.route_options {
            layer = layer.route(route.as_str(), *options);
        }
        let has_admin_routes = self.has_admin_routes;
        self.stats.count(layer, move |route| !(has_admin_routes && admin::is_admin(route)))
    }

    /// The routes with all layers, as a service of requests without contexts.
    fn into_router(self, base: &Context) -> Router {
        let layer = self.context_layer_below(base);
        // Made again for each change of the settings.
        let layer = self.settings.map(move |settings| settings.apply(layer.clone()));
        let (unknown, wrong) = (Arc::clone(&self.name), Arc::clone(&self.name));
        let mut router = self
            .router
            .fallback(move |method, uri| errors::unknown_route(unknown, method, uri))
            .method_not_allowed_fallback(move |method, uri| errors::wrong_method(wrong, method, uri));
        for apply in self.layers {
            router = apply(router);
        }
        router = limit::limit(router, self.name, self.settings);
        if self.has_admin_routes {
            router = router.merge(admin::router(self.stats, self.health));
        }
        // The transport limits bodies.
        router.layer(DefaultBodyLimit::disable()).layer(layer)
    }
}

/// A service that listens and does not handle requests yet.
struct Listening {
    service: Service,
    listener: Listener,
}

impl Listening {
    async fn start(service: Service, transport: &Transport) -> Result<Self, Error> {
        let listener = transport.listen(&service.name).await?;
        service.stats.listen_on(transport);
        Ok(Listening { service, listener })
    }

    /// Handles requests until `requested` is ready, and then drains with `stop`.
    async fn run(self, base: &Context, requested: impl Future<Output = ()>, stop: impl AsyncFnOnce(&str) -> bool) {
        let Listening { service, listener } = self;
        let (name, health) = (Arc::clone(&service.name), service.health.clone());
        let serving = pin!(listener.serve_with(base, |requests| service.into_router(requests)));
        health.started();
        let stopped = {
            let health = health.clone();
            async move {
                requested.await;
                health.draining();
                stop(&name).await;
            }
        };
        let _stopping = StopsReady(health);
        let (mut serving, stopped) = (serving, pin!(stopped));
        tokio::select! {
            () = &mut serving => return,
            () = stopped => {}
        }
        serving.await;
    }
}

/// Makes a service not ready when it is no longer served, also if the future is dropped.
struct StopsReady(crate::health::Health);

impl Drop for StopsReady {
    fn drop(&mut self) {
        self.0.draining();
    }
}

async fn serve_all(services: Vec<Service>, transport: &Transport, shutdown: &Shutdown) -> Result<(), Error> {
    let start = async {
        let mut listening = Vec::with_capacity(services.len());
        for service in services {
            listening.push(Listening::start(service, transport).await?);
        }
        Ok::<_, Error>(listening)
    };
    // A medium that cannot be reached may hold up the start.
    let listening = tokio::select! {
        biased;
        started = start => started?,
        () = shutdown.requested() => return Ok(()),
    };
    let base = shutdown.context();
    let serving = listening.into_iter().map(|listening| {
        let stop = async |name: &str| transport.stop_listening_until(base, name).await;
        listening.run(base, shutdown.requested(), stop)
    });
    let serving = async {
        join_all(serving).await;
        Ok::<(), Infallible>(())
    };
    // It also ends with a handler that blocks.
    let Ok(()) = shutdown.serve(serving).await;
    Ok(())
}

/// Several services of one process: all of them, or those that are named.
///
/// So one program can be deployed as one service or as many.
///
/// # Examples
/// ```
/// use throughline::{Error, Shutdown};
/// use throughline_service::{Service, Services};
/// use throughline_transport::Transport;
///
/// fn services() -> Services {
///     Services::new()
///         .add(Service::new("cards").route("block", async || "blocked"))
///         .add(Service::new("balance").route("reserve", async || "reserved"))
/// }
///
/// /// `names` are the arguments of the program: `bank cards`, or `bank` for all.
/// async fn run(names: &[String], transport: &Transport, shutdown: &Shutdown) -> Result<(), Error> {
///     services().only(names)?.serve(transport, shutdown).await
/// }
///
/// assert_eq!(services().only(["cards"])?.names().collect::<Vec<_>>(), ["cards"]);
/// assert_eq!(services().only([""; 0])?.names().count(), 2);
/// assert!(services().only(["crads"]).is_err());
/// # let _ = run;
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "services do nothing until they are served"]
pub struct Services(Vec<Service>);

impl Services {
    /// No services.
    pub fn new() -> Self {
        Services::default()
    }

    /// Adds a service.
    #[expect(clippy::should_implement_trait, reason = "it builds, as the methods of `Service` do")]
    pub fn add(mut self, service: Service) -> Self {
        self.0.push(service);
        self
    }

    /// Keeps the services with these names. No names: all services.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: no service has the name. The message lists the names that there are.
    pub fn only(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, Error> {
        let names: Vec<_> = names.into_iter().collect();
        if let Some(unknown) = names.iter().find(|name| self.names().all(|known| known != name.as_ref())) {
            let known = self.names().collect::<Vec<_>>().join(", ");
            let message = format!("no service is called {}; there are: {known}", unknown.as_ref());
            return Err(Error::new(Code::InvalidArgument, message));
        }
        if !names.is_empty() {
            self.0.retain(|service| names.iter().any(|name| name.as_ref() == service.name()));
        }
        Ok(self)
    }

    /// Returns the names, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Service::name)
    }

    /// Serves all services until the shutdown has started: see [`Service::serve`].
    ///
    /// All of them listen before the first request is handled.
    ///
    /// # Errors
    /// The first error of [`Transport::listen`]. No service is served then.
    ///
    /// # Cancellation safety
    /// If the future is dropped, so are the listeners and the requests in flight.
    pub async fn serve(self, transport: &Transport, shutdown: &Shutdown) -> Result<(), Error> {
        serve_all(self.0, transport, shutdown).await
    }
}
