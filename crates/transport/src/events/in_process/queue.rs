//! The queue of one group: messages that wait, pause, or are being handled.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::super::counters::GroupCounters;
use super::super::message::Message;
use super::GroupLimits;
use super::pending::Pending;

pub(super) struct Queue {
    state: Mutex<State>,
    /// The free capacity in messages. A message holds one permit until it is handled.
    capacity: Semaphore,
    /// The free capacity in bytes. A message holds its size in permits until it is handled.
    bytes: Semaphore,
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
    /// The size of the message as it was published, in bytes.
    pub(super) permits: u32,
}

impl Queue {
    pub(super) fn new(limits: GroupLimits, is_closed: bool, pending: Arc<Pending>) -> Self {
        let state = State { waiting: VecDeque::new(), pausing: BTreeMap::new(), next_number: 0, members: 0, is_closed };
        Queue {
            state: Mutex::new(state),
            capacity: Semaphore::new(limits.messages.clamp(1, Semaphore::MAX_PERMITS)),
            bytes: Semaphore::new(limits.bytes.min(u32::MAX as usize)),
            changed: Notify::new(),
            pending,
            counters: GroupCounters::default(),
        }
    }

    /// Adds a member.
    pub(super) fn join(&self) {
        self.lock().members += 1;
    }

    /// Removes a member. The last member gets the messages of the group, for [`Self::discard`].
    pub(super) fn leave(&self) -> Option<Vec<Waiting>> {
        let mut state = self.lock();
        state.members -= 1;
        if state.members > 0 {
            return None;
        }
        let (waiting, pausing) = (std::mem::take(&mut state.waiting), std::mem::take(&mut state.pausing));
        drop(state);
        // Publishers that wait for capacity stop waiting: the group no longer exists.
        self.capacity.close();
        self.bytes.close();
        Some(waiting.into_iter().chain(pausing.into_values()).collect())
    }

    /// Counts messages that no member will take. Calls destructors of their payloads.
    pub(super) fn discard(&self, messages: Vec<Waiting>) {
        for message in &messages {
            self.counters.record_taken(message.permits);
        }
        self.counters.record_discarded(messages.len());
        self.pending.subtract(messages.len());
    }

    /// Adds a message that is counted as pending. Waits while the queue is full.
    ///
    /// A large message is not overtaken by small ones: both semaphores are fair.
    pub(super) async fn push(&self, message: Message, permits: u32) {
        let waiting = Waiting { message, attempt: 1, permits };
        let Ok(one) = self.capacity.acquire().await else { return self.discard_one() };
        let Ok(size) = self.bytes.acquire_many(permits).await else { return self.discard_one() };
        one.forget();
        size.forget();
        self.put(waiting, Duration::ZERO);
    }

    /// Adds a message that may be taken after `pause`.
    pub(super) fn put(&self, waiting: Waiting, pause: Duration) {
        let mut state = self.lock();
        if state.members == 0 {
            drop(state);
            return self.discard_one();
        }
        self.counters.record_waiting(waiting.permits);
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
                Some(next) => {
                    self.counters.record_taken(next.permits);
                    return Some(next);
                }
            }
        }
    }

    fn discard_one(&self) {
        self.counters.record_discarded(1);
        self.pending.subtract(1);
    }

    /// Records that a message that was taken is handled.
    pub(super) fn record_handled(&self, permits: u32) {
        self.capacity.add_permits(1);
        self.bytes.add_permits(permits as usize);
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
