//! The front door: which service a path belongs to.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Json, Router};
use throughline::{Context, Error};

use crate::domain::{Authorization, Decision};
use crate::kit::Peer;

/// What it needs.
#[derive(Debug)]
pub struct Api {
    /// Card payments.
    pub card_api: Peer,
}

/// Its routes.
pub fn router(api: Api) -> Router {
    Router::new().route("/authorizations", post(authorize)).with_state(Arc::new(api))
}

async fn authorize(
    Extension(ctx): Extension<Context>,
    State(api): State<Arc<Api>>,
    Json(request): Json<Authorization>,
) -> Result<Json<Decision>, Error> {
    // The request goes on as it is, so what is wrong with it is wrong with the caller's.
    api.card_api.post(&ctx, "/authorizations", &request).await.map(Json).map_err(Error::preserve_code)
}
