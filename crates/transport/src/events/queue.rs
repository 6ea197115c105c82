//! What one group has yet to deal with.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::Message;

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
}

struct State {
    waiting: VecDeque<Waiting>,
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
        let state = State { waiting: VecDeque::new(), members: 0, is_closed };
        Queue { state: Mutex::new(state), room: Semaphore::new(capacity), news: Notify::new(), pending }
    }

    pub(super) fn join(&self) {
        self.lock().members += 1;
    }

    /// Whether that was the last member: its messages go with it.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.lock();
        state.members -= 1;
        let is_last = state.members == 0;
        let left = if is_last { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        drop(state);
        if is_last {
            // Who waits for room waits for a group that is no more.
            self.room.close();
        }
        self.pending.subtract(left.len());
        is_last
    }

    /// Takes a message that is among the pending.
    pub(super) async fn push(&self, message: Message) {
        match self.room.acquire().await {
            Ok(place) => {
                place.forget();
                self.put(Waiting { message, attempt: 1 });
            }
            Err(_) => self.pending.subtract(1),
        }
    }

    fn put(&self, waiting: Waiting) {
        let mut state = self.lock();
        if state.members == 0 {
            drop(state);
            return self.pending.subtract(1);
        }
        state.waiting.push_back(waiting);
        drop(state);
        self.news.notify_one();
    }

    /// `None`: there is nothing, and never will be.
    pub(super) async fn take(&self) -> Option<Waiting> {
        loop {
            let (next, is_more) = {
                let mut state = self.lock();
                let next = state.waiting.pop_front();
                (next, !state.waiting.is_empty() || state.is_closed)
            };
            if is_more {
                // The next one who waits finds something too.
                self.news.notify_one();
            }
            match next {
                None if is_more => return None,
                None => self.news.notified().await,
                next => return next,
            }
        }
    }

    /// Of a message that was taken: `again`, if it is to be delivered again.
    pub(super) fn dealt_with(&self, again: Option<Waiting>) {
        match again {
            Some(waiting) => self.put(waiting),
            None => {
                self.room.add_permits(1);
                self.pending.subtract(1);
            }
        }
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
