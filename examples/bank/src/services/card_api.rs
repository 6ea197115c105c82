//! What card networks talk to: it checks what they send.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Json, Router};
use throughline::{Code, Context, Error};

use crate::domain::{Authorization, Decision};
use crate::kit::Peer;

/// What it needs.
#[derive(Debug)]
pub struct CardApi {
    /// Who decides.
    pub card_processing: Peer,
}

/// Its routes.
pub fn router(card_api: CardApi) -> Router {
    Router::new().route("/authorizations", post(authorize)).with_state(Arc::new(card_api))
}

async fn authorize(
    Extension(ctx): Extension<Context>,
    State(card_api): State<Arc<CardApi>>,
    Json(request): Json<Authorization>,
) -> Result<Json<Decision>, Error> {
    if request.amount == 0 {
        return Err(Error::new(Code::InvalidArgument, "an authorization is for at least a cent"));
    }
    card_api.card_processing.post(&ctx, "/process", &request).await.map(Json)
}
