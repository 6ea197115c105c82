//! What several tests share.

pub(crate) mod nats;

use std::pin::Pin;
use std::task::Poll;

use throughline::Context;
use throughline_transport::{Events, Subscription};

/// Polls `future` once, without waiting.
pub(crate) async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

pub(crate) async fn subscribe(events: &Events, subject: &str, group: &str) -> Subscription {
    events.subscribe(&Context::background(), subject, group).await.unwrap()
}
