//! What the clones of a [`Shutdown`](super::Shutdown) share.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use throughline_core::{AfterFunc, CancelHandle, Cause, Context, Lifecycle, Work};

pub(super) struct Inner {
    pub(super) grace: Duration,
    pub(super) limits: Mutex<Limits>,
    pub(super) lifecycle: Lifecycle,
    /// Cancelled by the first signal.
    pub(super) requested: CancelHandle,
    /// The context of the process. It is cancelled after the grace.
    pub(super) base: CancelHandle,
    /// Set by the first signal, before `requested` is cancelled.
    pub(super) deadlines: OnceLock<Deadlines>,
    /// They cancel what still runs at the deadlines, also if nothing calls `drain`.
    pub(super) timers: OnceLock<[AfterFunc; 2]>,
    /// The requests and tasks that were cancelled.
    pub(super) cancelled: OnceLock<(usize, usize)>,
    /// The background tasks that were cancelled.
    pub(super) cancelled_background: OnceLock<usize>,
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) background: Duration,
    pub(super) flush: Duration,
}

/// Contexts that are done when a time has passed since the first signal.
pub(super) struct Deadlines {
    pub(super) grace: Context,
    pub(super) background: Context,
}

impl Inner {
    pub(super) fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn deadlines(&self) -> &Deadlines {
        self.deadlines.get().expect("they are set before the shutdown counts as requested")
    }

    /// Cancels what runs below the context of the process.
    pub(super) fn cancel(&self) {
        self.cancelled.get_or_init(|| (self.lifecycle.count(Work::Request), self.lifecycle.count(Work::Task)));
        self.base.cancel_with(Cause::Shutdown);
    }

    pub(super) fn cancel_background(&self) {
        self.cancelled_background.get_or_init(|| self.lifecycle.count(Work::DetachedTask));
        self.lifecycle.cancel_detached();
    }
}
