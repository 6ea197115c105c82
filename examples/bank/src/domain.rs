//! What the services tell each other.

use serde::{Deserialize, Serialize};

/// A merchant asks whether a card may be charged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authorization {
    /// The card's number, or what stands for it.
    pub card: String,
    /// Who asks, as the card network names them.
    pub merchant: String,
    /// In cents.
    pub amount: u64,
}

impl Authorization {
    /// The one that the example sends.
    pub fn example() -> Self {
        Authorization { card: "card-7".into(), merchant: "SQ *BLUE BOTTLE 0042".into(), amount: 1_250 }
    }
}

/// What the merchant is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether the payment goes through.
    pub approved: bool,
    /// The transaction that it has become; 0 when it is declined.
    pub transaction: u64,
}

/// Why a payment is not made. It is an answer, not an error: every service on the way has done its
/// work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decline {
    /// No card has this number.
    UnknownCard,
    /// The card may not be used.
    InactiveCard,
    /// The account has less than the amount.
    InsufficientFunds,
}

impl Decline {
    /// The reason as spans show it, the same text as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Decline::UnknownCard => "unknown_card",
            Decline::InactiveCard => "inactive_card",
            Decline::InsufficientFunds => "insufficient_funds",
        }
    }
}

/// A card, as far as a payment needs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Card {
    /// Whether it may be used.
    pub active: bool,
    /// The account that it draws on.
    pub account: u64,
}

/// An authorization that is to be booked on an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Booking {
    /// The account to draw on.
    pub account: u64,
    /// What for.
    pub authorization: Authorization,
}

/// An amount that is to be set aside on an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reservation {
    /// The account.
    pub account: u64,
    /// In cents.
    pub amount: u64,
}

/// What an account has left, in cents.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Balance {
    /// After the reservation.
    pub available: u64,
}

/// A booked payment: the event `transaction.created`, and with its merchant `transaction.enriched`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transaction {
    /// Its number.
    pub id: u64,
    /// The account that was drawn on.
    pub account: u64,
    /// In cents.
    pub amount: u64,
    /// As the card network names them.
    pub merchant: String,
    /// Who that is, once it is known.
    pub enriched: Option<Merchant>,
}

/// A merchant, as people know them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Merchant {
    /// Their name.
    pub name: String,
}

/// A line in a customer's feed: the event `feed.item.created`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedItem {
    /// Whose feed.
    pub account: u64,
    /// What it says.
    pub text: String,
}
