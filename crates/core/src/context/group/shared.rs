//! What a group and its tasks share.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::error::GroupError;
use crate::context::catch::catch_panic;
use crate::context::tree::Holder;
use crate::context::{CancelHandle, Cause, Context};

/// The state shared by a group and its tasks.
pub(super) struct Shared<E> {
    pub(super) handle: CancelHandle,
    pub(super) first_error: OnceLock<E>,
    pub(super) first_panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// The number of tasks that have not ended and were not dropped.
    pub(super) tasks: AtomicUsize,
    /// Whether a task was dropped, with its runtime, before it ended.
    pub(super) is_task_lost: AtomicBool,
    /// Notified when a task is lost, and when the last one has ended.
    pub(super) ended: Notify,
}

impl<E: GroupError> Shared<E> {
    pub(super) fn fail(&self, error: &E) {
        if self.first_error.set(error.clone()).is_ok() {
            self.handle.cancel_with(error.clone());
        }
    }

    /// Stores the first panic for `join`, and cancels the other tasks.
    pub(super) fn panicked(&self, payload: Box<dyn Any + Send>) {
        self.handle.cancel_with(Cause::Panicked);
        let mut first = self.first_panic.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = if first.is_none() { first.replace(payload) } else { Some(payload) };
        drop(first);
        catch_panic(|| drop(rest));
    }
}

impl<E> Holder for Arc<Shared<E>> {
    fn context(&self) -> &Context {
        self.handle.context()
    }
}
