//! Tasks that succeed or fail together: Go's `errgroup`, with a context for every task.

mod error;
mod shared;
mod task;

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

pub use error::{GroupError, SharedError};
use shared::Shared;
pub use task::GroupHandle;
use task::{PermitFuture, Task, Work, acquire, queue_for_permit, taken};
use tokio::sync::{Notify, Semaphore};

use super::Context;

/// Runs tasks under one child context; the first error cancels the others.
///
/// That error is the cause of the cancellation.
/// [`continue_on_error`](Self::continue_on_error) lets the others continue.
///
/// Each task is spawned onto the current tokio runtime. It gets the group's context as an argument
/// and as the ambient context. It stops as a task of [`Context::spawn`] does: once the group's
/// context is done, it is dropped at its next await. A task that panics cancels the others with
/// [`Cause::Panicked`](super::Cause::Panicked).
///
/// How a task starts in a group that has reached its [limit](Self::with_limit):
/// - [`spawn`](Self::spawn) enqueues it. The queue has no limit.
/// - [`spawn_when_free`](Self::spawn_when_free) waits until a task has ended.
/// - [`try_spawn`](Self::try_spawn) returns it.
///
/// How to wait for the tasks:
/// - [`join`](Self::join) waits for all tasks and ends the group.
/// - [`wait`](Self::wait) waits for all tasks. More can be spawned after it.
/// - A [`GroupHandle`] waits for one task, and yields its result.
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
            continues_on_error: AtomicBool::new(false),
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

    /// Lets the other tasks continue after an error.
    ///
    /// [`join`](Self::join) still returns the first error, after all tasks have ended. The handles
    /// yield the errors of all tasks. A panic still cancels the others.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::{Context, Group, SharedError};
    ///
    /// let mut group: Group<SharedError> = Group::new(&Context::background()).continue_on_error();
    /// drop(group.spawn(async |_| Err::<(), _>("disk full".into())));
    /// let second = group.spawn(async |ctx| Ok(ctx.is_done()));
    /// let error = group.join().await.expect_err("the first task failed");
    /// assert_eq!(error.to_string(), "disk full");
    /// assert!(!second.await.expect("it was not stopped"));
    /// # }
    /// ```
    pub fn continue_on_error(self) -> Self {
        self.shared.continues_on_error.store(true, Ordering::Relaxed);
        self
    }

    /// Returns the context of the group.
    ///
    /// It is done when the parent is done, when a task has failed, and when the group was joined or
    /// dropped. With [`continue_on_error`](Self::continue_on_error), an error does not end it.
    pub fn context(&self) -> &Context {
        self.shared.handle.context()
    }

    /// Spawns `task` and returns at once.
    ///
    /// The handle yields the result of the task. For a task that was stopped, was never started, or
    /// panicked, it yields the [`ContextError`](super::ContextError). Dropping the handle does not
    /// affect the task.
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
        let permit = self.permits.clone().map(queue_for_permit);
        self.spawn_with(permit, task)
    }

    /// Spawns `task` if fewer tasks run than the [limit](Self::with_limit).
    ///
    /// A group without a limit always spawns it.
    ///
    /// # Errors
    /// Returns `task`, which was not called, if the limit is reached or tasks are enqueued.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::{Context, ContextError, Group};
    ///
    /// let mut group: Group<ContextError> = Group::new(&Context::background()).with_limit(1);
    /// let first = group.try_spawn(async |_| Ok(1));
    /// let second = group.try_spawn(async |_| Ok(2));
    /// assert!(first.is_ok() && second.is_err());
    /// # }
    /// ```
    pub fn try_spawn<T, F, Fut>(&mut self, task: F) -> Result<GroupHandle<T, E>, F>
    where
        T: Send + 'static,
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let permit = match self.permits.clone().map(Semaphore::try_acquire_owned) {
            Some(Ok(permit)) => Some(taken(permit)),
            Some(Err(_)) => return Err(task),
            None => None,
        };
        Ok(self.spawn_with(permit, task))
    }

    /// Spawns `task` as soon as fewer tasks run than the [limit](Self::with_limit).
    ///
    /// A loop that spawns in this way is as fast as its tasks, and holds no queue of them. Enqueued
    /// tasks come first. In a group without a limit it does not wait.
    ///
    /// If the group's context is done, it does not wait either. The task then never starts, and the
    /// handle yields the [`ContextError`](super::ContextError).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancellation safety
    /// Dropping the future before it is ready drops `task`, which was not called.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::{Context, ContextError, Group};
    ///
    /// let mut group: Group<ContextError> = Group::new(&Context::background()).with_limit(2);
    /// for row in 0..100 {
    ///     // At most two rows are in memory.
    ///     drop(group.spawn_when_free(async move |_| Ok(row)).await);
    /// }
    /// assert_eq!(group.join().await, Ok(()));
    /// # }
    /// ```
    pub async fn spawn_when_free<T, F, Fut>(&mut self, task: F) -> GroupHandle<T, E>
    where
        T: Send + 'static,
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let permit = match self.permits.clone() {
            // Without a permit the context is done, so the task never starts.
            Some(permits) => self.context().run(acquire(permits)).await.ok().map(taken),
            None => None,
        };
        self.spawn_with(permit, task)
    }

    fn spawn_with<T, F, Fut>(&mut self, permit: Option<PermitFuture>, task: F) -> GroupHandle<T, E>
    where
        T: Send + 'static,
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let ctx = self.context().across_spawn();
        let work = Work::Waiting { permit, task: Some((task, ctx.clone())) };
        let task = tokio::spawn(ctx.scope(Task::new(work, &self.shared)));
        GroupHandle { task, ctx: self.context().clone() }
    }

    /// Waits until every task has ended, and returns the first error.
    ///
    /// Unlike [`join`](Self::join), it does not end the group: the context stays live, and more
    /// tasks can be spawned. So work in stages uses one group. After an error, tasks spawned later
    /// never start, unless the group [continues on errors](Self::continue_on_error).
    ///
    /// # Errors
    /// As for `join`. It is the first error since the group was made, not since the last wait.
    ///
    /// # Panics
    /// Resumes the first panic of a task, after all tasks have ended.
    ///
    /// # Cancellation safety
    /// Dropping the future changes nothing: the tasks continue, and another wait finds them.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), throughline_core::ContextError> {
    /// use throughline_core::{Context, ContextError, Group};
    ///
    /// let mut group: Group<ContextError> = Group::new(&Context::background());
    /// let halves = [group.spawn(async |_| Ok(20)), group.spawn(async |_| Ok(22))];
    /// group.wait().await?;
    /// let [left, right] = halves;
    /// let sum = left.await? + right.await?;
    /// let stored = group.spawn(async move |_| Ok(sum));
    /// group.join().await?;
    /// assert_eq!(stored.await, Ok(42));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait(&mut self) -> Result<(), E> {
        self.shared.all_ended().await;
        self.shared.outcome()
    }

    /// Waits until every task has ended, cancels the context, and returns the first error.
    ///
    /// # Errors
    /// The first error that a task returned. If the parent stopped a task, that
    /// [`ContextError`](super::ContextError). A task that was dropped with its runtime counts as
    /// stopped; if the context is live, its error is [`Canceled`](super::ContextError::Canceled).
    ///
    /// # Panics
    /// Resumes the first panic of a task, after all tasks have ended.
    ///
    /// # Cancellation safety
    /// Dropping the future drops the group, which stops its tasks.
    pub async fn join(self) -> Result<(), E> {
        self.shared.all_ended().await;
        self.shared.handle.cancel();
        self.shared.outcome()
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
