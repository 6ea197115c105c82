//! Adds the merchant to a transaction.

use std::sync::Arc;

use throughline::{Context, Error};

use crate::domain::{Merchant, Transaction};
use crate::kit::Peer;

/// The callees of this service.
#[derive(Debug)]
pub struct Enrichment {
    /// Looks up merchants.
    pub merchant: Peer,
    /// Stores the merchant of a transaction.
    pub transactions: Peer,
}

/// Handles `transaction.created`.
///
/// # Errors
/// A call to one of the services fails.
pub async fn created(enrichment: Arc<Enrichment>, ctx: Context, transaction: Transaction) -> Result<(), Error> {
    let merchant: Merchant = enrichment.merchant.post(&ctx, "/lookup", &transaction.merchant).await?;
    let path = format!("/transactions/{}/merchant", transaction.id);
    let _saved: Transaction =
        enrichment.transactions.post_to(&ctx, "/transactions/{id}/merchant", &path, &merchant).await?;
    Ok(())
}
