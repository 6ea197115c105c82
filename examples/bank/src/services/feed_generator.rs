//! Says in words what has happened.

use std::sync::Arc;

use throughline::{Context, Error};

use crate::domain::{FeedItem, Transaction};
use crate::kit::Peer;

/// What it needs.
#[derive(Debug)]
pub struct FeedGenerator {
    /// Keeps the feeds.
    pub feed: Peer,
}

/// Deals with `transaction.enriched`.
///
/// # Errors
/// The feed can't take it.
pub async fn enriched(generator: Arc<FeedGenerator>, ctx: Context, transaction: Transaction) -> Result<(), Error> {
    let name = transaction.enriched.map_or(transaction.merchant, |merchant| merchant.name);
    let text = format!("{}.{:02} at {name}", transaction.amount / 100, transaction.amount % 100);
    generator.feed.post(&ctx, "/items", &FeedItem { account: transaction.account, text }).await
}
