//! Knows which card draws on which account, and whether it may.

use axum::routing::post;
use axum::{Json, Router};
use throughline::{Code, Error};

use crate::domain::Card;

/// Its routes.
pub fn router() -> Router {
    Router::new().route("/status", post(status))
}

async fn status(Json(card): Json<String>) -> Result<Json<Card>, Error> {
    let number = card.strip_prefix("card-").and_then(|number| number.parse().ok());
    let account = number.ok_or_else(|| Error::new(Code::NotFound, "no such card"))?;
    Ok(Json(Card { active: true, account }))
}
