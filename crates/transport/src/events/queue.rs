//! What one group has yet to deal with.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::{GroupCounters, Message};

/// How many messages of all groups are not dealt with.
#[derive(Default)]
pub(super) struct Pending {
    count: AtomicUsize,
    /// The count is 0.
    none: Notify,
}

impl Pending {
    /// Adds those that a publisher is about to give to so many groups.
    pub(super) fn offer(&self, count: usize) -> Offered<'_> {
        self.count.fetch_add(count, Ordering::SeqCst);
        Offered { left: count, pending: self }
    }

    fn subtract(&self, count: usize) {
        if count > 0 && self.count.fetch_sub(count, Ordering::SeqCst) == count {
            self.none.notify_waiters();
        }
    }

    /// Waits until `is_over` says so; it is asked whenever there are none.
    pub(super) async fn none(&self, mut is_over: impl FnMut() -> bool) {
        loop {
            let mut none = pin!(self.none.notified());
            none.as_mut().enable();
            if is_over() {
                return;
            }
            none.await;
        }
    }

    pub(super) fn is_none(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }
}

/// Pending messages that no group has yet; dropped, they are none.
pub(super) struct Offered<'a> {
    left: usize,
    pending: &'a Pending,
}

impl Offered<'_> {
    pub(super) fn taken(&mut self) {
        self.left -= 1;
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        self.pending.subtract(self.left);
    }
}

pub(super) struct Queue {
    state: Mutex<State>,
    /// The places that are free. A message keeps its own until it is dealt with.
    room: Semaphore,
    /// Something to take, or nothing ever again.
    news: Notify,
    pending: Arc<Pending>,
    pub(super) counters: GroupCounters,
}

struct State {
    waiting: VecDeque<Waiting>,
    /// Messages that pause, by the time they may be taken again and a number of their own.
    pausing: BTreeMap<(Instant, u64), Waiting>,
    /// How many messages have paused.
    pauses: u64,
    members: usize,
    /// Nothing will ever come.
    is_closed: bool,
}

pub(super) struct Waiting {
    pub(super) message: Message,
    /// Which delivery it will be, from 1.
    pub(super) attempt: u32,
}

impl Queue {
    pub(super) fn new(capacity: usize, is_closed: bool, pending: Arc<Pending>) -> Self {
        let state = State { waiting: VecDeque::new(), pausing: BTreeMap::new(), pauses: 0, members: 0, is_closed };
        Queue {
            state: Mutex::new(state),
            room: Semaphore::new(capacity),
            news: Notify::new(),
            pending,
            counters: GroupCounters::default(),
        }
    }

    pub(super) fn join(&self) {
        self.lock().members += 1;
    }

    /// Whether that was the last member: its messages go with it.
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
            // Who waits for room waits for a group that is no more.
            self.room.close();
        }
        self.discard(waiting.len() + pausing.len());
        is_last
    }

    /// Takes a message that is among the pending.
    pub(super) async fn push(&self, message: Message) {
        match self.room.acquire().await {
            Ok(place) => {
                place.forget();
                self.put(Waiting { message, attempt: 1 }, Duration::ZERO);
            }
            Err(_) => self.discard(1),
        }
    }

    /// `waiting` may be taken once `pause` has passed.
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
            // What lies beyond the clock's range is a long time away.
            let until = now.checked_add(pause).unwrap_or(now + Duration::from_secs(30 * 365 * 86_400));
            let number = state.pauses;
            state.pauses += 1;
            state.pausing.insert((until, number), waiting);
        }
        drop(state);
        self.news.notify_one();
    }

    /// `None`: there is nothing, and never will be.
    pub(super) async fn take(&self) -> Option<Waiting> {
        loop {
            let (next, is_more, until) = {
                let mut state = self.lock();
                state.wake();
                let next = state.waiting.pop_front();
                let until = state.pausing.first_key_value().map(|((until, _), _)| *until);
                (next, !state.waiting.is_empty() || state.is_closed, until)
            };
            if is_more {
                // The next one who waits finds something too.
                self.news.notify_one();
            }
            match next {
                None if is_more => return None,
                None => match until {
                    Some(until) => tokio::select! {
                        () = self.news.notified() => {}
                        () = sleep_until(until) => {}
                    },
                    None => self.news.notified().await,
                },
                next => return next,
            }
        }
    }

    /// A message that was taken is to be delivered again, no earlier than after `pause`.
    pub(super) fn again(&self, waiting: Waiting, pause: Duration) {
        self.counters.record_redelivered();
        self.put(waiting, pause);
    }

    /// Messages that nobody will take.
    fn discard(&self, count: usize) {
        self.counters.record_discarded(count);
        self.pending.subtract(count);
    }

    /// A message that was taken is done with.
    pub(super) fn settle(&self) {
        self.room.add_permits(1);
        self.pending.subtract(1);
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Messages whose pause has passed are waiting, behind those that wait already.
    fn wake(&mut self) {
        if self.pausing.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(first) = self.pausing.first_entry().filter(|first| first.key().0 <= now) {
            self.waiting.push_back(first.remove());
        }
    }
}
