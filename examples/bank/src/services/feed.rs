//! Stores the feeds of customers, and publishes new items.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use throughline::{Ctx, Error};
use throughline_transport::Events;

use crate::domain::FeedItem;
use crate::kit::publish;

/// The state of this service.
#[derive(Debug)]
pub struct Feed {
    /// Where new items are published.
    pub events: Events,
    /// The items of all feeds.
    pub items: Mutex<Vec<FeedItem>>,
}

/// The routes of this service.
pub fn router(feed: Feed) -> Router {
    Router::new().route("/items", post(add)).with_state(Arc::new(feed))
}

async fn add(Ctx(ctx): Ctx, State(feed): State<Arc<Feed>>, Json(item): Json<FeedItem>) -> Result<Json<()>, Error> {
    feed.items.lock().unwrap_or_else(PoisonError::into_inner).push(item.clone());
    publish(&feed.events, &ctx, "feed.item.created", &item).await?;
    Ok(Json(()))
}
