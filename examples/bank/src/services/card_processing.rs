//! Decides about payments: checks the card and the balance.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use throughline::{Context, Ctx, Error};

use crate::domain::{Authorization, Booking, Card, Decision, Decline, Transaction};
use crate::kit::Peer;

/// The callees of this service.
#[derive(Debug)]
pub struct CardProcessing {
    /// Looks up cards.
    pub cards: Peer,
    /// Books payments.
    pub transactions: Peer,
}

/// The routes of this service.
pub fn router(processing: CardProcessing) -> Router {
    Router::new().route("/process", post(process)).with_state(Arc::new(processing))
}

async fn process(
    Ctx(ctx): Ctx,
    State(processing): State<Arc<CardProcessing>>,
    Json(request): Json<Authorization>,
) -> Result<Json<Decision>, Error> {
    let transaction = match processing.book(&ctx, request).await? {
        Ok(transaction) => transaction.id,
        Err(decline) => {
            ctx.current_span().add_event("payment.declined", [("bank.decline.reason", decline.as_str())]);
            return Ok(Json(Decision { approved: false, transaction: 0 }));
        }
    };
    Ok(Json(Decision { approved: true, transaction }))
}

impl CardProcessing {
    async fn book(&self, ctx: &Context, request: Authorization) -> Result<Result<Transaction, Decline>, Error> {
        let card: Result<Card, Decline> = self.cards.post(ctx, "/status", &request.card).await?;
        let account = match card {
            Ok(card) if card.active => card.account,
            Ok(_) => return Ok(Err(Decline::InactiveCard)),
            Err(decline) => return Ok(Err(decline)),
        };
        let booking = Booking { account, authorization: request };
        self.transactions.post(ctx, "/transactions", &booking).await
    }
}
