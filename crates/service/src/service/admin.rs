//! The routes of the library: statistics and health.

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use throughline::{ContextLayer, Ctx, Route};

use crate::health::Health;
use crate::json::Json;
use crate::stats::Stats;

const STATS: &str = "/stats";
const LIVE: &str = "/health/live";
const READY: &str = "/health/ready";

pub(super) fn router<S: Clone + Send + Sync + 'static>(stats: Stats, health: Health) -> Router<S> {
    let ready = async move |Ctx(ctx): Ctx| {
        let readiness = health.readiness(&ctx).await;
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(readiness))
    };
    Router::new()
        .route(STATS, get(async move || Json(stats.snapshot())))
        .route(LIVE, get(async || "live"))
        .route(READY, get(ready))
}

pub(super) fn is_admin(route: &str) -> bool {
    [STATS, LIVE, READY].contains(&route)
}

/// Probes come every few seconds. They leave no spans.
pub(super) fn unrecorded(layer: ContextLayer) -> ContextLayer {
    [STATS, LIVE, READY].into_iter().fold(layer, |layer, route| layer.route(route, Route::new().unrecorded()))
}
