//! What a group has done with its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Live counts of one group's messages. Clones share them.
///
/// Take them before [`serve`](super::Subscription::serve), which consumes the subscription. They stay
/// readable after the group's last member has left; a group that is made anew begins at 0.
///
/// # Examples
/// ```
/// use throughline::{Code, Context, Error};
/// use throughline_transport::{Consumer, Events, Message};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let events = Events::in_process();
/// let cards = events.subscribe("card.ordered", "printer");
/// let counters = cards.counters();
/// tokio::spawn(cards.serve(Consumer::new(&Context::background()), |_ctx, _message| async {
///     Err(Error::new(Code::InvalidArgument, "no such card").with_retryable(false))
/// }));
///
/// events.publish(&Context::background(), Message::new("card.ordered", "7")).await?;
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
}

impl GroupCounters {
    /// Messages that were handled.
    pub fn acknowledged(&self) -> u64 {
        self.0.acknowledged.load(Ordering::Relaxed)
    }

    /// Deliveries that went back to the group, to come again.
    pub fn redelivered(&self) -> u64 {
        self.0.redelivered.load(Ordering::Relaxed)
    }

    /// Messages that were given up: after their last attempt, or because the error is not
    /// retryable.
    pub fn given_up(&self) -> u64 {
        self.0.given_up.load(Ordering::Relaxed)
    }

    /// Messages that were lost with the last member of the group, which keeps nothing without one.
    pub fn discarded(&self) -> u64 {
        self.0.discarded.load(Ordering::Relaxed)
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
