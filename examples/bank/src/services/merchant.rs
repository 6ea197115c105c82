//! Looks up merchants by their names in card networks.

use axum::routing::post;
use axum::{Json, Router};

use crate::domain::Merchant;

/// The routes of this service.
pub fn router() -> Router {
    Router::new().route("/lookup", post(lookup))
}

async fn lookup(Json(descriptor): Json<String>) -> Json<Merchant> {
    // `SQ *BLUE BOTTLE 0042` is Blue Bottle.
    let name = descriptor.trim_start_matches("SQ *").trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ');
    let words = name.split_whitespace().map(|word| {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        format!("{first}{}", rest.to_lowercase())
    });
    Json(Merchant { name: words.collect::<Vec<_>>().join(" ") })
}
