//! When a connection has been without a request for too long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a connection may take to close after its last response.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// The requests in flight of one connection.
pub(super) struct Activity(Mutex<ActivityState>);

struct ActivityState {
    active: usize,
    /// When the connection expires, if there is no request.
    expires_at: Instant,
    is_closing: bool,
}

impl Activity {
    pub(super) fn new(first: Duration) -> Self {
        Activity(Mutex::new(ActivityState { active: 0, expires_at: Instant::now() + first, is_closing: false }))
    }

    /// When the connection expires. `None`: a request is in flight.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        let state = self.lock();
        (state.active == 0).then_some(state.expires_at)
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closing = true;
        state.expires_at = Instant::now() + LINGER;
    }

    fn lock(&self) -> MutexGuard<'_, ActivityState> {
        // Nothing panics under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight, until it is dropped.
pub(super) struct Active {
    activity: Arc<Activity>,
    idle_timeout: Duration,
}

impl Active {
    pub(super) fn start(activity: &Arc<Activity>, idle_timeout: Duration) -> Self {
        activity.lock().active += 1;
        Active { activity: Arc::clone(activity), idle_timeout }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.active -= 1;
        state.expires_at = Instant::now() + if state.is_closing { LINGER } else { self.idle_timeout };
    }
}
