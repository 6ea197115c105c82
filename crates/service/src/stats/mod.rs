//! What a service counts, by route.

mod histogram;
mod snapshot;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use throughline::middleware::{Finished, HookSpan};
use throughline::{Code, ContextLayer};
use throughline_transport::Transport;

use histogram::Histogram;
pub use snapshot::{DurationStats, ListenerStats, RouteStats, ServiceStats};

/// What a service counts. [`Service::stats`](crate::Service::stats) returns it.
///
/// A clone costs one reference count, and counts together with the original.
///
/// Counting takes no lock: each route has atomic counters, and a histogram with fixed buckets.
#[derive(Clone)]
pub struct Stats(Arc<Inner>);

struct Inner {
    service: Arc<str>,
    /// Copied for each route that is added. A request only reads it.
    routes: ArcSwap<Routes>,
    /// Requests that match no route, and those of routes beyond the limit.
    other: Counters,
    transport: OnceLock<Transport>,
}

/// By path, then by method.
type Routes = HashMap<Box<str>, Vec<(&'static str, Arc<Counters>)>>;

/// The most routes, by path and method. A prober makes new pairs with each method.
const MAX_ROUTES: usize = 512;

/// The causes of [`Cause::name`](throughline::Cause::name), and one for causes of later versions.
const CAUSES: [&str; 10] = [
    "canceled",
    "deadline_exceeded",
    "client_disconnected",
    "abandoned",
    "request_finished",
    "shutdown",
    "panicked",
    "handle_dropped",
    "error",
    "other",
];

struct Counters {
    requests: AtomicU64,
    in_flight: AtomicU64,
    shed: AtomicU64,
    failures: [AtomicU64; Code::ALL.len()],
    cancelled: [AtomicU64; CAUSES.len()],
    durations: Histogram,
}

impl Stats {
    pub(crate) fn new(service: Arc<str>) -> Self {
        let (routes, other) = (ArcSwap::default(), Counters::new());
        Stats(Arc::new(Inner { service, routes, other, transport: OnceLock::new() }))
    }

    /// Returns the counts of this moment.
    ///
    /// Requests may end while it reads, so the sums of two counters may differ by those.
    ///
    /// # Examples
    /// ```
    /// use throughline_service::Service;
    ///
    /// let service: Service = Service::new("cards").route("block", async || "blocked");
    /// let stats = service.stats().snapshot();
    /// assert_eq!(stats.routes["POST /block"].requests, 0);
    /// ```
    pub fn snapshot(&self) -> ServiceStats {
        let routes = self.0.routes.load();
        let routes = routes.iter().flat_map(|(path, methods)| {
            methods.iter().map(move |(method, counters)| (format!("{method} {path}"), counters.snapshot()))
        });
        let other = Some(self.0.other.snapshot()).filter(|other| other.requests > 0);
        let other = other.map(|other| ("(other)".to_owned(), other));
        let listener = self.0.transport.get().and_then(|transport| transport.counters(&self.0.service));
        ServiceStats {
            service: self.0.service.to_string(),
            routes: routes.chain(other).collect(),
            listener: listener
                .map(|counters| ListenerStats { refused: counters.refused, late_responses: counters.late_responses }),
        }
    }

    /// Sets the transport whose listener is part of the snapshot.
    pub(crate) fn listen_on(&self, transport: &Transport) {
        // A service is served once.
        let _ = self.0.transport.set(transport.clone());
    }

    /// Counts a route that has no request yet.
    pub(crate) fn add_route(&self, method: &'static str, path: &str) {
        self.with_counters(Some(path), method, |_| {});
    }

    /// Counts the requests of a layer. Those of routes without a name are not asked for.
    pub(crate) fn count(
        &self,
        layer: ContextLayer,
        is_counted: impl Fn(&str) -> bool + Clone + Send + Sync + 'static,
    ) -> ContextLayer {
        let (at_start, at_end, is_counted_at_end) = (self.clone(), self.clone(), is_counted.clone());
        layer
            .on_start(move |span: &HookSpan<'_>, _| {
                let route = span.route();
                if route.as_deref().is_none_or(&is_counted) {
                    at_start.with_counters(route.as_deref(), span.method(), Counters::start);
                }
            })
            .on_end(move |_, finished| {
                // A hook of the user may have renamed the route since.
                let route = finished.started_route;
                if route.is_none_or(&is_counted_at_end) {
                    at_end.with_counters(route, finished.method, |counters| counters.end(finished));
                }
            })
    }

    fn with_counters(&self, route: Option<&str>, method: &'static str, count: impl FnOnce(&Counters)) {
        let Some(path) = route else { return count(&self.0.other) };
        let find = |routes: &Routes| {
            let found = routes.get(path)?.iter().find(|(known, _)| *known == method);
            found.map(|(_, counters)| Arc::clone(counters))
        };
        let known = find(&self.0.routes.load());
        let counters = known.or_else(|| {
            let added = Arc::new(Counters::new());
            self.0.routes.rcu(|routes| {
                let mut routes = Routes::clone(routes);
                let is_full = routes.values().map(Vec::len).sum::<usize>() >= MAX_ROUTES;
                if !is_full && find(&routes).is_none() {
                    routes.entry(path.into()).or_default().push((method, Arc::clone(&added)));
                }
                routes
            });
            find(&self.0.routes.load())
        });
        count(counters.as_deref().unwrap_or(&self.0.other));
    }
}

impl Counters {
    fn new() -> Self {
        Counters {
            requests: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            failures: Default::default(),
            cancelled: Default::default(),
            durations: Histogram::new(),
        }
    }

    fn start(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self, finished: &Finished<'_>) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.durations.record(finished.duration);
        let of_status = || Code::from_http_status(finished.status?);
        if let Some(code) = finished.code.or_else(of_status) {
            let index = Code::ALL.iter().position(|known| *known == code).expect("`ALL` has each code");
            self.failures[index].fetch_add(1, Ordering::Relaxed);
        }
        if finished.is_shed {
            self.shed.fetch_add(1, Ordering::Relaxed);
        } else if let Some(cause) = finished.cause {
            let index = CAUSES.iter().position(|known| *known == cause.name()).unwrap_or(CAUSES.len() - 1);
            self.cancelled[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn snapshot(&self) -> RouteStats {
        let durations = self.durations.snapshot();
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counted = |names: Vec<&'static str>, counts: &[AtomicU64]| {
            let counts = names.into_iter().zip(counts.iter().map(load));
            counts.filter(|(_, count)| *count > 0).collect()
        };
        RouteStats {
            requests: load(&self.requests),
            in_flight: load(&self.in_flight),
            shed: load(&self.shed),
            failures: counted(Code::ALL.map(Code::as_str).to_vec(), &self.failures),
            cancelled: counted(CAUSES.to_vec(), &self.cancelled),
            duration: DurationStats {
                p50: durations.percentile(50),
                p90: durations.percentile(90),
                p99: durations.percentile(99),
                max: durations.max(),
                mean: durations.mean(),
            },
        }
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stats").field("service", &self.0.service).finish_non_exhaustive()
    }
}
