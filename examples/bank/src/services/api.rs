//! The public API: routes requests to the service of a path.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use throughline::{Ctx, Error};

use crate::domain::{Authorization, Decision};
use crate::kit::Peer;

/// The callees of this service.
#[derive(Debug)]
pub struct Api {
    /// Handles card payments.
    pub card_api: Peer,
}

/// The routes of this service.
pub fn router(api: Api) -> Router {
    Router::new().route("/authorizations", post(authorize)).with_state(Arc::new(api))
}

async fn authorize(
    Ctx(ctx): Ctx,
    State(api): State<Arc<Api>>,
    Json(request): Json<Authorization>,
) -> Result<Json<Decision>, Error> {
    // The request is forwarded unchanged. If it is invalid, it is the caller's error.
    api.card_api.post(&ctx, "/authorizations", &request).await.map(Json).map_err(Error::preserve_code)
}
