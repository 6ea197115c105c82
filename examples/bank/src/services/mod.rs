//! The eleven services. Each serves requests, handles events, or both.

pub mod api;
pub mod apns;
pub mod balance;
pub mod card_api;
pub mod card_processing;
pub mod cards;
pub mod feed;
pub mod feed_generator;
pub mod merchant;
pub mod transaction_enrichment;
pub mod transactions;
