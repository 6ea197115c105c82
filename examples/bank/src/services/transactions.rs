//! Books payments, and publishes events about them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Json, Router};
use throughline::{Code, Ctx, Error};
use throughline_transport::Events;

use crate::domain::{Balance, Booking, Decline, Merchant, Reservation, Transaction};
use crate::kit::{Peer, publish};

/// The state and the callees of this service.
#[derive(Debug)]
pub struct Transactions {
    /// Reserves money.
    pub balance: Peer,
    /// Where events about payments are published.
    pub events: Events,
    /// The payments, by number.
    pub booked: Mutex<HashMap<u64, Transaction>>,
}

/// The routes of this service.
pub fn router(transactions: Transactions) -> Router {
    Router::new()
        .route("/transactions", post(create))
        .route("/transactions/{id}/merchant", post(save_merchant))
        .with_state(Arc::new(transactions))
}

async fn create(
    Ctx(ctx): Ctx,
    State(transactions): State<Arc<Transactions>>,
    Json(booking): Json<Booking>,
) -> Result<Json<Result<Transaction, Decline>>, Error> {
    let Booking { account, authorization } = booking;
    let reservation = Reservation { account, amount: authorization.amount };
    let left: Result<Balance, Decline> = transactions.balance.post(&ctx, "/reserve", &reservation).await?;
    if let Err(decline) = left {
        return Ok(Json(Err(decline)));
    }
    let transaction = transactions.book(|id| Transaction {
        id,
        account,
        amount: authorization.amount,
        merchant: authorization.merchant,
        enriched: None,
    });
    publish(&transactions.events, &ctx, "transaction.created", &transaction).await?;
    Ok(Json(Ok(transaction)))
}

async fn save_merchant(
    Ctx(ctx): Ctx,
    State(transactions): State<Arc<Transactions>>,
    Path(id): Path<u64>,
    Json(merchant): Json<Merchant>,
) -> Result<Json<Transaction>, Error> {
    let enriched = transactions.enrich(id, merchant)?;
    publish(&transactions.events, &ctx, "transaction.enriched", &enriched).await?;
    Ok(Json(enriched))
}

impl Transactions {
    fn book(&self, make: impl FnOnce(u64) -> Transaction) -> Transaction {
        let mut booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = make(booked.len() as u64 + 1);
        booked.insert(transaction.id, transaction.clone());
        transaction
    }

    fn enrich(&self, id: u64, merchant: Merchant) -> Result<Transaction, Error> {
        let mut booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = booked.get_mut(&id).ok_or_else(|| Error::new(Code::NotFound, "no such transaction"))?;
        transaction.enriched = Some(merchant);
        Ok(transaction.clone())
    }
}
