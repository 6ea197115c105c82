//! Looks up the account and the status of a card.

use axum::routing::post;
use axum::{Json, Router};

use crate::domain::{Card, Decline};

/// The routes of this service.
pub fn router() -> Router {
    Router::new().route("/status", post(status))
}

async fn status(Json(card): Json<String>) -> Json<Result<Card, Decline>> {
    let number = card.strip_prefix("card-").and_then(|number| number.parse().ok());
    Json(number.map(|account| Card { active: true, account }).ok_or(Decline::UnknownCard))
}
