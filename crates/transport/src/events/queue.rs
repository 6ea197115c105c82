//! The queue of one group: messages that wait, pause, or are being handled.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::{GroupCounters, Message};

/// The number of messages that are not handled yet, over all groups.
#[derive(Default)]
pub(super) struct Pending {
    count: AtomicUsize,
    /// Notified when the count becomes 0.
    became_zero: Notify,
}

impl Pending {
    /// Adds the messages that a publisher is about to push to `count` groups.
    pub(super) fn offer(&self, count: usize) -> Offered<'_> {
        self.count.fetch_add(count, Ordering::SeqCst);
        Offered { remaining: count, pending: self }
    }

    fn subtract(&self, count: usize) {
        if count > 0 && self.count.fetch_sub(count, Ordering::SeqCst) == count {
            self.became_zero.notify_waiters();
        }
    }

    /// Waits until `is_over` returns true. Calls it now, and each time the count becomes 0.
    pub(super) async fn wait_until(&self, mut is_over: impl FnMut() -> bool) {
        loop {
            // Registered before the check, so that no notification is missed.
            let mut became_zero = pin!(self.became_zero.notified());
            became_zero.as_mut().enable();
            if is_over() {
                return;
            }
            became_zero.await;
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }
}

/// Pending messages that no group has taken yet. Dropping this subtracts them from the count.
pub(super) struct Offered<'a> {
    remaining: usize,
    pending: &'a Pending,
}

impl Offered<'_> {
    /// One group has taken its message.
    pub(super) fn record_taken(&mut self) {
        self.remaining -= 1;
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        self.pending.subtract(self.remaining);
    }
}

pub(super) struct Queue {
    state: Mutex<State>,
    /// The free capacity. A message holds a permit until it is handled.
    capacity: Semaphore,
    /// Notified when there is a message to take, or when the queue is closed.
    changed: Notify,
    pending: Arc<Pending>,
    pub(super) counters: GroupCounters,
}

struct State {
    waiting: VecDeque<Waiting>,
    /// Messages that pause, by the time when they may be taken again.
    ///
    /// A sequence number makes the keys unique.
    pausing: BTreeMap<(Instant, u64), Waiting>,
    /// The next sequence number.
    next_number: u64,
    members: usize,
    /// No more messages will arrive.
    is_closed: bool,
}

pub(super) struct Waiting {
    pub(super) message: Message,
    /// The number of the next delivery, from 1.
    pub(super) attempt: u32,
}

impl Queue {
    pub(super) fn new(capacity: usize, is_closed: bool, pending: Arc<Pending>) -> Self {
        let state = State { waiting: VecDeque::new(), pausing: BTreeMap::new(), next_number: 0, members: 0, is_closed };
        Queue {
            state: Mutex::new(state),
            capacity: Semaphore::new(capacity),
            changed: Notify::new(),
            pending,
            counters: GroupCounters::default(),
        }
    }

    /// Adds a member.
    pub(super) fn join(&self) {
        self.lock().members += 1;
    }

    /// Removes a member. Returns whether it was the last one: then all messages are discarded.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.lock();
        state.members -= 1;
        let is_last = state.members == 0;
        let (waiting, pausing) = match is_last {
            true => (std::mem::take(&mut state.waiting), std::mem::take(&mut state.pausing)),
            false => Default::default(),
        };
        drop(state);
        if is_last {
            // Publishers that wait for capacity stop waiting: the group no longer exists.
            self.capacity.close();
        }
        self.discard(waiting.len() + pausing.len());
        is_last
    }

    /// Adds a message that is counted as pending. Waits while the queue is full.
    pub(super) async fn push(&self, message: Message) {
        match self.capacity.acquire().await {
            Ok(permit) => {
                permit.forget();
                self.put(Waiting { message, attempt: 1 }, Duration::ZERO);
            }
            Err(_) => self.discard(1),
        }
    }

    /// Adds a message that may be taken after `pause`.
    fn put(&self, waiting: Waiting, pause: Duration) {
        let mut state = self.lock();
        if state.members == 0 {
            drop(state);
            return self.discard(1);
        }
        if pause.is_zero() {
            state.waiting.push_back(waiting);
        } else {
            let now = Instant::now();
            // If the time is beyond the range of the clock, use about 30 years.
            let until = now.checked_add(pause).unwrap_or(now + Duration::from_secs(30 * 365 * 86_400));
            let number = state.next_number;
            state.next_number += 1;
            state.pausing.insert((until, number), waiting);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Takes the next message. `None`: the queue is empty and closed.
    pub(super) async fn take(&self) -> Option<Waiting> {
        loop {
            let (next, is_more, until) = {
                let mut state = self.lock();
                state.end_pauses();
                let next = state.waiting.pop_front();
                let until = state.pausing.first_key_value().map(|((until, _), _)| *until);
                (next, !state.waiting.is_empty() || state.is_closed, until)
            };
            if is_more {
                // There is more: wake the next waiter.
                self.changed.notify_one();
            }
            match next {
                None if is_more => return None,
                None => match until {
                    Some(until) => tokio::select! {
                        () = self.changed.notified() => {}
                        () = sleep_until(until) => {}
                    },
                    None => self.changed.notified().await,
                },
                next => return next,
            }
        }
    }

    /// Puts a message back. It is delivered again after `pause` at the earliest.
    pub(super) fn put_back(&self, waiting: Waiting, pause: Duration) {
        self.counters.record_redelivered();
        self.put(waiting, pause);
    }

    /// Counts messages that no member will take.
    fn discard(&self, count: usize) {
        self.counters.record_discarded(count);
        self.pending.subtract(count);
    }

    /// Records that a message that was taken is handled.
    pub(super) fn record_handled(&self) {
        self.capacity.add_permits(1);
        self.pending.subtract(1);
    }

    /// No more messages will arrive: `take` returns `None` once the queue is empty.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Moves messages whose pause has passed to the end of the waiting messages.
    fn end_pauses(&mut self) {
        if self.pausing.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(first) = self.pausing.first_entry().filter(|first| first.key().0 <= now) {
            self.waiting.push_back(first.remove());
        }
    }
}
