//! What one group has yet to deal with.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::Message;

pub(super) struct Queue {
    state: Mutex<State>,
    /// The places that are free. A message keeps its own until it is dealt with.
    room: Semaphore,
    /// Something to take, or nothing ever again.
    news: Notify,
    /// All is dealt with.
    idle: Notify,
}

struct State {
    waiting: VecDeque<Waiting>,
    /// Taken, and neither acknowledged nor given back.
    in_hand: usize,
    members: usize,
    is_draining: bool,
}

pub(super) struct Waiting {
    pub(super) message: Message,
    /// Which delivery it will be, from 1.
    pub(super) attempt: u32,
}

impl Queue {
    pub(super) fn new(capacity: usize, is_draining: bool) -> Self {
        let state = State { waiting: VecDeque::new(), in_hand: 0, members: 0, is_draining };
        Queue { state: Mutex::new(state), room: Semaphore::new(capacity), news: Notify::new(), idle: Notify::new() }
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
            self.idle.notify_waiters();
        }
        drop(left);
        is_last
    }

    pub(super) async fn push(&self, message: Message) {
        let Ok(place) = self.room.acquire().await else { return };
        place.forget();
        self.put(Waiting { message, attempt: 1 });
    }

    fn put(&self, waiting: Waiting) {
        let mut state = self.lock();
        if state.members > 0 {
            state.waiting.push_back(waiting);
            drop(state);
            self.news.notify_one();
        }
    }

    /// `None`: there is nothing, and never will be.
    pub(super) async fn take(&self) -> Option<Waiting> {
        loop {
            let news = self.news.notified();
            let (next, more, is_over) = {
                let mut state = self.lock();
                let next = state.waiting.pop_front();
                state.in_hand += usize::from(next.is_some());
                let is_over = state.is_draining && state.in_hand == 0;
                (next, !state.waiting.is_empty(), is_over)
            };
            if more || (is_over && next.is_none()) {
                self.news.notify_one();
            }
            match next {
                None if is_over => return None,
                None => news.await,
                next => return next,
            }
        }
    }

    /// Of a message that was taken: `again`, if it is to be delivered again.
    pub(super) fn dealt_with(&self, again: Option<Waiting>) {
        let mut state = self.lock();
        state.in_hand -= 1;
        match again.filter(|_| state.members > 0) {
            Some(waiting) => state.waiting.push_back(waiting),
            None => self.room.add_permits(1),
        }
        let is_idle = state.in_hand == 0 && state.waiting.is_empty();
        let is_draining = state.is_draining;
        drop(state);
        if !is_idle || is_draining {
            self.news.notify_one();
        }
        if is_idle {
            self.idle.notify_waiters();
        }
    }

    pub(super) async fn drain(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            {
                let mut state = self.lock();
                state.is_draining = true;
                if (state.waiting.is_empty() && state.in_hand == 0) || state.members == 0 {
                    drop(state);
                    // Subscribers who wait see that it is over.
                    return self.news.notify_one();
                }
            }
            idle.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
