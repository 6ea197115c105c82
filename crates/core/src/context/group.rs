//! Tasks that succeed or fail together: Go's `errgroup`, with a context for every task.

mod error;
mod shared;
mod task;

use std::fmt;
use std::future::Future;
use std::panic::{self, RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use error::GroupError;
use shared::Shared;
pub use task::GroupHandle;
use task::{Task, Work, queue_for_permit};
use tokio::sync::{Notify, Semaphore};

use super::{Context, ContextError};

/// Runs tasks under one child context; the first error cancels the others.
///
/// That error is the cause of the cancellation.
///
/// Each task is spawned onto the current tokio runtime. It gets the group's context as an argument
/// and as the ambient context. It stops as a task of [`Context::spawn`] does: once the group's
/// context is done, it is dropped at its next await. A task that panics cancels the others with
/// [`Cause::Panicked`].
///
/// Dropping the group cancels its context, which stops its tasks. It does not wait for them.
///
/// A group may live as long as the process, for example in an accept loop: it keeps nothing of
/// tasks that have ended.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use throughline_core::{Context, ContextError, Group};
///
/// let mut group: Group<ContextError> = Group::new(&Context::background());
/// let limit = group.spawn(async |_ctx| Ok(300));
/// let score = group.spawn(async |_ctx| Ok(0.25));
/// group.join().await.expect("both succeed");
/// assert_eq!((limit.await, score.await), (Ok(300), Ok(0.25)));
/// # }
/// ```
#[must_use = "dropping a group stops its tasks: `join` it"]
pub struct Group<E: GroupError> {
    shared: Arc<Shared<E>>,
    permits: Option<Arc<Semaphore>>,
}

impl<E: GroupError> Group<E> {
    /// Makes a group whose context is a child of `ctx`.
    ///
    /// It does not limit how many tasks run at once.
    pub fn new(ctx: &Context) -> Self {
        let shared = Shared {
            handle: ctx.with_cancel(),
            first_error: OnceLock::new(),
            first_panic: Mutex::new(None),
            tasks: AtomicUsize::new(0),
            is_task_lost: AtomicBool::new(false),
            ended: Notify::new(),
        };
        Self { shared: Arc::new(shared), permits: None }
    }

    /// Runs at most `limit` of the tasks spawned from now on at once.
    ///
    /// The others wait and start in the order in which they were spawned. A limit of zero is one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::{Context, ContextError, Group};
    ///
    /// let mut group: Group<ContextError> = Group::new(&Context::background()).with_limit(1);
    /// let first = group.spawn(async |_| Ok(1));
    /// let second = group.spawn(async |_| Ok(2));
    /// group.join().await.expect("both succeed");
    /// assert_eq!((first.await, second.await), (Ok(1), Ok(2)));
    /// # }
    /// ```
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.permits = Some(Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))));
        self
    }

    /// Returns the context of the group.
    ///
    /// It is done when the parent is done, when a task has failed, and when the group was joined or
    /// dropped.
    pub fn context(&self) -> &Context {
        self.shared.handle.context()
    }

    /// Spawns `task` and returns at once.
    ///
    /// The handle yields the result of the task. For a task that was stopped, was never started, or
    /// panicked, it yields the [`ContextError`]. Dropping the handle does not affect the task.
    ///
    /// The spans of the task are children of the innermost span at the time of this call, as for
    /// [`Context::spawn`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<T, F, Fut>(&mut self, task: F) -> GroupHandle<T, E>
    where
        T: Send + 'static,
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let ctx = self.context().across_spawn();
        let work =
            Work::Waiting { permit: self.permits.clone().map(queue_for_permit), task: Some((task, ctx.clone())) };
        let task = tokio::spawn(ctx.scope(Task::new(work, &self.shared)));
        GroupHandle { task, ctx: self.context().clone() }
    }

    /// Waits until every task has ended, cancels the context, and returns the first error.
    ///
    /// # Errors
    /// The first error that a task returned. If the parent stopped a task, that [`ContextError`]. A
    /// task that was dropped with its runtime counts as stopped; if the context is live, its error
    /// is [`Canceled`](ContextError::Canceled).
    ///
    /// # Panics
    /// Resumes the first panic of a task, after all tasks have ended.
    ///
    /// # Cancellation safety
    /// Dropping the future drops the group, which stops its tasks.
    pub async fn join(self) -> Result<(), E> {
        let shared = &*self.shared;
        loop {
            // Registered before the count is read, so that no end in between is missed.
            let ended = shared.ended.notified();
            let is_last = shared.tasks.load(Ordering::Acquire) == 0;
            if shared.is_task_lost.load(Ordering::Acquire) {
                let stopped = shared.handle.err().unwrap_or(ContextError::Canceled);
                shared.fail(&stopped.into());
            }
            if is_last {
                break;
            }
            ended.await;
        }
        shared.handle.cancel();
        let first_panic = shared.first_panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = first_panic {
            panic::resume_unwind(payload);
        }
        shared.first_error.get().cloned().map_or(Ok(()), Err)
    }
}

// Panics of tasks are caught inside the task. The shared state is consistent at all times.
impl<E: GroupError> UnwindSafe for Group<E> {}
impl<E: GroupError> RefUnwindSafe for Group<E> {}

impl<E: GroupError> Drop for Group<E> {
    fn drop(&mut self) {
        self.shared.handle.cancel();
    }
}

impl<E: GroupError> fmt::Debug for Group<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("context", self.context())
            .field("tasks", &self.shared.tasks.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
