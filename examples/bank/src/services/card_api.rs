//! The API for card networks: checks their requests.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use throughline::{Code, Ctx, Error};

use crate::domain::{Authorization, Decision};
use crate::kit::Peer;

/// The callees of this service.
#[derive(Debug)]
pub struct CardApi {
    /// Decides about payments.
    pub card_processing: Peer,
}

/// The routes of this service.
pub fn router(card_api: CardApi) -> Router {
    Router::new().route("/authorizations", post(authorize)).with_state(Arc::new(card_api))
}

async fn authorize(
    Ctx(ctx): Ctx,
    State(card_api): State<Arc<CardApi>>,
    Json(request): Json<Authorization>,
) -> Result<Json<Decision>, Error> {
    if request.amount == 0 {
        return Err(Error::new(Code::InvalidArgument, "an authorization is for at least a cent"));
    }
    card_api.card_processing.post(&ctx, "/process", &request).await.map(Json)
}
