//! The requests, responses and events of the services.

use serde::{Deserialize, Serialize};

/// A merchant asks whether a card may be charged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authorization {
    /// The card's number, or a token for it.
    pub card: String,
    /// The merchant's name in the card network.
    pub merchant: String,
    /// The amount in cents.
    pub amount: u64,
}

impl Authorization {
    /// The authorization that the example sends.
    pub fn example() -> Self {
        Authorization { card: "card-7".into(), merchant: "SQ *BLUE BOTTLE 0042".into(), amount: 1_250 }
    }
}

/// The response to the merchant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether the payment goes through.
    pub approved: bool,
    /// The number of the transaction, or 0 if the payment is declined.
    pub transaction: u64,
}

/// Why a payment is declined.
///
/// This is a result, not an error: every service has done its work.
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
    /// The reason for spans. It is the same text as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Decline::UnknownCard => "unknown_card",
            Decline::InactiveCard => "inactive_card",
            Decline::InsufficientFunds => "insufficient_funds",
        }
    }
}

/// The parts of a card that a payment needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Card {
    /// Whether the card may be used.
    pub active: bool,
    /// The account of the card.
    pub account: u64,
}

/// An authorization to book on an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Booking {
    /// The account to charge.
    pub account: u64,
    /// The authorization to book.
    pub authorization: Authorization,
}

/// An amount to reserve on an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reservation {
    /// The account.
    pub account: u64,
    /// The amount in cents.
    pub amount: u64,
}

/// The balance of an account.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Balance {
    /// The amount after the reservation, in cents.
    pub available: u64,
}

/// A booked payment. Also the events `transaction.created` and `transaction.enriched`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transaction {
    /// The number of the transaction.
    pub id: u64,
    /// The account that was charged.
    pub account: u64,
    /// The amount in cents.
    pub amount: u64,
    /// The merchant's name in the card network.
    pub merchant: String,
    /// The merchant, as soon as it is known: in `transaction.enriched`.
    pub enriched: Option<Merchant>,
}

/// A merchant, for display.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Merchant {
    /// The name that customers know.
    pub name: String,
}

/// A line in a customer's feed: the event `feed.item.created`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedItem {
    /// The account of the customer.
    pub account: u64,
    /// The text of the line.
    pub text: String,
}
