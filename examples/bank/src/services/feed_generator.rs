//! Writes the text of feed items.

use std::sync::Arc;

use throughline::{Context, Error};

use crate::domain::{FeedItem, Transaction};
use crate::kit::Peer;

/// The callees of this service.
#[derive(Debug)]
pub struct FeedGenerator {
    /// Stores the feeds.
    pub feed: Peer,
}

/// Handles `transaction.enriched`.
///
/// # Errors
/// The call to the feed fails.
pub async fn enriched(generator: Arc<FeedGenerator>, ctx: Context, transaction: Transaction) -> Result<(), Error> {
    let name = transaction.enriched.map_or(transaction.merchant, |merchant| merchant.name);
    let text = format!("{}.{:02} at {name}", transaction.amount / 100, transaction.amount % 100);
    generator.feed.post(&ctx, "/items", &FeedItem { account: transaction.account, text }).await
}
