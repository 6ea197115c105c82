//! Puts it on the customer's phone.

use std::sync::{Arc, Mutex, PoisonError};

use throughline::{Context, Error};

use crate::domain::FeedItem;

/// What was sent.
#[derive(Debug, Default)]
pub struct Apns {
    /// The texts of the notifications.
    pub sent: Mutex<Vec<String>>,
}

/// Deals with `feed.item.created`.
///
/// # Errors
/// None: the phone takes it.
pub async fn item_created(apns: Arc<Apns>, ctx: Context, item: FeedItem) -> Result<(), Error> {
    ctx.current_span().set_attribute("bank.notification", item.text.clone());
    apns.sent.lock().unwrap_or_else(PoisonError::into_inner).push(item.text);
    Ok(())
}
