//! The limit for each frame of a response's body.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use throughline_core::{Context, DoneOwned};
use tokio::time::Instant;

/// Measures how long a body waits for its handler's next frame.
///
/// The time in which the client takes no frame does not count: the body is not polled then.
pub(super) struct Stall {
    limit: Duration,
    /// When the wait for the next frame began. `None`: no frame is waited for.
    since: Option<Instant>,
    /// Set for an earlier wait, or for this one.
    ///
    /// So a body of many frames seldom sets an alarm.
    alarm: Option<Pin<Box<DoneOwned>>>,
}

impl Stall {
    pub(super) fn new(limit: Duration) -> Self {
        Stall { limit, since: None, alarm: None }
    }

    /// Records that a frame has come.
    pub(super) fn frame(&mut self) {
        self.since = None;
    }

    /// Ready if the body has waited for as long as the limit.
    ///
    /// Call it when the body is pending.
    pub(super) fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let Some(at) = self.since.get_or_insert(now).checked_add(self.limit) else { return Poll::Pending };
            if now >= at {
                return Poll::Ready(());
            }
            let new = || Box::pin(Context::background().with_deadline(at.into_std()).done_owned());
            ready!(self.alarm.get_or_insert_with(new).as_mut().poll(cx));
            self.alarm = None;
        }
    }
}
