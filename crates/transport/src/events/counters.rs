//! The counters of a group.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Live counts of the messages of one group. Clones share the counts.
///
/// Get them before you call [`serve`](super::Subscription::serve), which consumes the subscription.
/// They stay readable after the last member of the group has left. If the group is created again,
/// its counts start at 0.
///
/// # Examples
/// ```
/// use throughline::{Code, Context, Error};
/// use throughline_transport::{Consumer, Events, Message};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let (events, ctx) = (Events::in_process(), Context::background());
/// let cards = events.subscribe(&ctx, "card.ordered", "printer").await?;
/// let counters = cards.counters();
/// tokio::spawn(cards.serve(Consumer::new(&ctx), |_ctx, _message| async {
///     Err(Error::new(Code::InvalidArgument, "no such card").with_retryable(false))
/// }));
///
/// events.publish(&ctx, Message::new("card.ordered", "7")).await?;
/// events.drain().await;
/// assert_eq!((counters.acknowledged(), counters.redelivered(), counters.given_up()), (0, 0, 1));
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct GroupCounters(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    acknowledged: AtomicU64,
    redelivered: AtomicU64,
    given_up: AtomicU64,
    discarded: AtomicU64,
    waiting: AtomicU64,
    waiting_bytes: AtomicU64,
}

impl GroupCounters {
    /// Returns the number of acknowledged messages.
    pub fn acknowledged(&self) -> u64 {
        self.0.acknowledged.load(Ordering::Relaxed)
    }

    /// Returns the number of deliveries that were put back, to be delivered again.
    pub fn redelivered(&self) -> u64 {
        self.0.redelivered.load(Ordering::Relaxed)
    }

    /// Returns the number of messages that were given up.
    ///
    /// A message is given up after its last attempt, or if the error is not retryable.
    pub fn given_up(&self) -> u64 {
        self.0.given_up.load(Ordering::Relaxed)
    }

    /// Returns the number of discarded messages: the last member left before they were handled.
    pub fn discarded(&self) -> u64 {
        self.0.discarded.load(Ordering::Relaxed)
    }

    /// Returns the number of messages that wait in this process for a member to take them.
    ///
    /// A message that [pauses](super::Consumer::backoff) before its next attempt waits, too. A
    /// message that is being handled does not.
    pub fn waiting(&self) -> u64 {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Returns the bytes of the [waiting](Self::waiting) messages: payloads and headers.
    pub fn waiting_bytes(&self) -> u64 {
        self.0.waiting_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn record_waiting(&self, bytes: u32) {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        self.0.waiting_bytes.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    pub(super) fn record_taken(&self, bytes: u32) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.waiting_bytes.fetch_sub(bytes.into(), Ordering::Relaxed);
    }

    pub(super) fn record_acknowledged(&self) {
        self.0.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn record_redelivered(&self) {
        self.0.redelivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn record_given_up(&self) {
        self.0.given_up.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn record_discarded(&self, count: usize) {
        self.0.discarded.fetch_add(count as u64, Ordering::Relaxed);
    }
}
