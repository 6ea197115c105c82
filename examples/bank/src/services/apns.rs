//! Sends notifications to customers' phones.

use std::sync::{Arc, Mutex, PoisonError};

use throughline::{Context, Error};

use crate::domain::FeedItem;

/// The notifications that were sent.
#[derive(Debug, Default)]
pub struct Apns {
    /// The texts of the notifications.
    pub sent: Mutex<Vec<String>>,
}

/// Handles `feed.item.created`.
///
/// # Errors
/// None.
pub async fn item_created(apns: Arc<Apns>, ctx: Context, item: FeedItem) -> Result<(), Error> {
    ctx.current_span().set_attribute("bank.notification", item.text.clone());
    apns.sent.lock().unwrap_or_else(PoisonError::into_inner).push(item.text);
    Ok(())
}
