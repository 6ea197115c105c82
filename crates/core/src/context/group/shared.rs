//! What a group and its tasks share.

use std::any::Any;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::error::GroupError;
use crate::context::catch::catch_panic;
use crate::context::tree::Holder;
use crate::context::{CancelHandle, Cause, Context, ContextError};

/// The state shared by a group and its tasks.
pub(super) struct Shared<E> {
    pub(super) handle: CancelHandle,
    pub(super) first_error: OnceLock<E>,
    pub(super) first_panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether an error of a task leaves the other tasks running.
    pub(super) continues_on_error: AtomicBool,
    /// The number of tasks that have not ended and were not dropped.
    pub(super) tasks: AtomicUsize,
    /// Whether a task was dropped, with its runtime, before it ended.
    pub(super) is_task_lost: AtomicBool,
    /// Notified when a task is lost, and when the last one has ended.
    pub(super) ended: Notify,
}

impl<E: GroupError> Shared<E> {
    /// Keeps the first error, and cancels the other tasks with it.
    pub(super) fn fail(&self, error: &E) {
        let is_first = self.first_error.set(error.clone()).is_ok();
        if is_first && !self.continues_on_error.load(Ordering::Relaxed) {
            self.handle.cancel_with(error.clone());
        }
    }

    /// Waits until every task has ended.
    pub(super) async fn all_ended(&self) {
        loop {
            // Registered before the count is read, so that no end in between is missed.
            let ended = self.ended.notified();
            let is_last = self.tasks.load(Ordering::Acquire) == 0;
            if self.is_task_lost.load(Ordering::Acquire) {
                let stopped = self.handle.err().unwrap_or(ContextError::Canceled);
                self.fail(&stopped.into());
            }
            if is_last {
                break;
            }
            ended.await;
        }
    }

    /// Returns the first error, or resumes the first panic.
    pub(super) fn outcome(&self) -> Result<(), E> {
        let first_panic = self.first_panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = first_panic {
            // A later call must not report success.
            let _ = self.first_error.set(ContextError::Canceled.into());
            panic::resume_unwind(payload);
        }
        self.first_error.get().cloned().map_or(Ok(()), Err)
    }

    /// Stores the first panic for `outcome`, and cancels the other tasks.
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
