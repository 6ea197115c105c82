//! Decides: is the card good, and does the account have the money?

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Json, Router};
use throughline::{Context, Error};

use crate::domain::{Authorization, Booking, Card, Decision, Transaction};
use crate::kit::Peer;

/// What it needs.
#[derive(Debug)]
pub struct CardProcessing {
    /// Knows the cards.
    pub cards: Peer,
    /// Books payments.
    pub transactions: Peer,
}

/// Its routes.
pub fn router(processing: CardProcessing) -> Router {
    Router::new().route("/process", post(process)).with_state(Arc::new(processing))
}

async fn process(
    Extension(ctx): Extension<Context>,
    State(processing): State<Arc<CardProcessing>>,
    Json(request): Json<Authorization>,
) -> Result<Json<Decision>, Error> {
    let card: Card = processing.cards.post(&ctx, "/status", &request.card).await?;
    if !card.active {
        return Ok(Json(Decision { approved: false, transaction: 0 }));
    }
    let booking = Booking { account: card.account, authorization: request };
    let transaction: Transaction = processing.transactions.post(&ctx, "/transactions", &booking).await?;
    Ok(Json(Decision { approved: true, transaction: transaction.id }))
}
