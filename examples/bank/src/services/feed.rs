//! Keeps what customers see, and tells of what is added.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Json, Router};
use throughline::{Context, Error};
use throughline_transport::Events;

use crate::domain::FeedItem;
use crate::kit::publish;

/// What it needs.
#[derive(Debug)]
pub struct Feed {
    /// Where it tells of what is added.
    pub events: Events,
    /// What was added.
    pub items: Mutex<Vec<FeedItem>>,
}

/// Its routes.
pub fn router(feed: Feed) -> Router {
    Router::new().route("/items", post(add)).with_state(Arc::new(feed))
}

async fn add(
    Extension(ctx): Extension<Context>,
    State(feed): State<Arc<Feed>>,
    Json(item): Json<FeedItem>,
) -> Result<Json<()>, Error> {
    feed.items.lock().unwrap_or_else(PoisonError::into_inner).push(item.clone());
    publish(&feed.events, &ctx, "feed.item.created", &item).await?;
    Ok(Json(()))
}
