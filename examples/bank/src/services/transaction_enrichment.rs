//! Finds out who a payment went to.

use std::sync::Arc;

use throughline::{Context, Error};

use crate::domain::{Merchant, Transaction};
use crate::kit::Peer;

/// What it needs.
#[derive(Debug)]
pub struct Enrichment {
    /// Knows merchants.
    pub merchant: Peer,
    /// Where to write it down.
    pub transactions: Peer,
}

/// Deals with `transaction.created`.
///
/// # Errors
/// The services that it asks fail.
pub async fn created(enrichment: Arc<Enrichment>, ctx: Context, transaction: Transaction) -> Result<(), Error> {
    let merchant: Merchant = enrichment.merchant.post(&ctx, "/lookup", &transaction.merchant).await?;
    let path = format!("/transactions/{}/merchant", transaction.id);
    let _saved: Transaction = enrichment.transactions.post(&ctx, &path, &merchant).await?;
    Ok(())
}
