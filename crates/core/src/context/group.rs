//! Tasks that succeed or fail together: Go's `errgroup`, with a context for every task.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker, ready};

use pin_project_lite::pin_project;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, unconstrained};

use super::catch::catch_panic;
use super::run::poll_until_done;
use super::tree::{Holder, Wait};
use super::{CancelHandle, Cause, Context, ContextError};

/// The error of a group: cloneable, usable as a cause, and made from a [`ContextError`].
pub trait GroupError: Clone + Into<Cause> + From<ContextError> + Send + Sync + 'static {}

impl<E: Clone + Into<Cause> + From<ContextError> + Send + Sync + 'static> GroupError for E {}

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

/// The state shared by a group and its tasks.
struct Shared<E> {
    handle: CancelHandle,
    first_error: OnceLock<E>,
    first_panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// The number of tasks that have not ended and were not dropped.
    tasks: AtomicUsize,
    /// Whether a task was dropped, with its runtime, before it ended.
    is_task_lost: AtomicBool,
    /// Notified when a task is lost, and when the last one has ended.
    ended: Notify,
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

impl<E: GroupError> Shared<E> {
    fn fail(&self, error: &E) {
        if self.first_error.set(error.clone()).is_ok() {
            self.handle.cancel_with(error.clone());
        }
    }

    /// Stores the first panic for `join`, and cancels the other tasks.
    fn panicked(&self, payload: Box<dyn Any + Send>) {
        self.handle.cancel_with(Cause::Panicked);
        let mut first = self.first_panic.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = if first.is_none() { first.replace(payload) } else { Some(payload) };
        drop(first);
        catch_panic(|| drop(rest));
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

impl<E> Holder for Arc<Shared<E>> {
    fn context(&self) -> &Context {
        self.handle.context()
    }
}

pin_project! {
    /// The future that is spawned for a task. An `async` block would store the task twice.
    struct Task<F, Fut, E: GroupError> {
        // `None` once it has ended.
        #[pin]
        work: Option<Work<F, Fut>>,
        #[pin]
        wait: Wait<Arc<Shared<E>>>,
    }

    impl<F, Fut, E: GroupError> PinnedDrop for Task<F, Fut, E> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let shared = this.wait.holder();
            // Counts the end also if a destructor panics.
            let _ended = CountEnd(shared);
            if this.work.is_some() {
                // The task has not ended, so its runtime drops it.
                shared.is_task_lost.store(true, Ordering::Release);
                shared.ended.notify_waiters();
                this.work.set(None);
            }
        }
    }
}

/// Counts the end of a task when it is dropped.
struct CountEnd<'a, E>(&'a Shared<E>);

impl<E> Drop for CountEnd<'_, E> {
    fn drop(&mut self) {
        if self.0.tasks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

pin_project! {
    /// A task that waits for its permit, or runs.
    #[project = WorkProjection]
    enum Work<F, Fut> {
        Waiting { permit: Option<PermitFuture>, task: Option<(F, Context)> },
        Running { #[pin] future: Fut, permit: Option<OwnedSemaphorePermit> },
    }
}

impl<F, Fut, E: GroupError> Task<F, Fut, E> {
    fn new(work: Work<F, Fut>, shared: &Arc<Shared<E>>) -> Self {
        shared.tasks.fetch_add(1, Ordering::Relaxed);
        Task { work: Some(work), wait: Wait::new(Arc::clone(shared)) }
    }
}

/// Yields `None` if the task panicked.
impl<F, Fut, T, E> Future for Task<F, Fut, E>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: GroupError,
{
    type Output = Option<Result<T, E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let work = this.work.as_mut().as_pin_mut().expect("a task is not polled after its end");
            let result = ready!(poll_until_done(work, this.wait.as_mut(), cx, true));
            this.work.set(None);
            Poll::Ready(result)
        }));
        let shared = this.wait.holder();
        match polled {
            Ok(polled) => {
                let result = ready!(polled).unwrap_or_else(|stopped| Err(stopped.into()));
                if let Err(error) = &result {
                    shared.fail(error);
                }
                Poll::Ready(Some(result))
            }
            Err(payload) => {
                shared.panicked(payload);
                catch_panic(|| this.work.set(None));
                Poll::Ready(None)
            }
        }
    }
}

impl<F, Fut> Future for Work<F, Fut>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future,
{
    type Output = Fut::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Fut::Output> {
        if let WorkProjection::Waiting { permit, task } = self.as_mut().project() {
            let permit = match permit {
                Some(permit) => Some(ready!(permit.as_mut().poll(cx))),
                None => None,
            };
            let (task, ctx) = task.take().expect("the task is taken once, by the poll that starts it");
            self.set(Work::Running { future: task(ctx), permit });
        }
        match self.project() {
            WorkProjection::Running { future, .. } => future.poll(cx),
            WorkProjection::Waiting { .. } => Poll::Pending,
        }
    }
}

/// Waits for a permit, in a group with a limit.
type PermitFuture = Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>;

/// Queues for a permit. tokio's semaphore serves in the order of first polls, so the first poll is
/// made here. In the task it would depend on the order in which the runtime polls tasks.
fn queue_for_permit(permits: Arc<Semaphore>) -> PermitFuture {
    let mut permit = Box::pin(async move { permits.acquire_owned().await.expect("the semaphore is never closed") });
    // Before tokio 1.54 it does not queue for a task that has used up its poll budget.
    let first = pin!(unconstrained(permit.as_mut())).poll(&mut TaskContext::from_waker(Waker::noop()));
    match first {
        Poll::Ready(permit) => Box::pin(std::future::ready(permit)),
        Poll::Pending => permit,
    }
}

/// A future for the result of one task of a [`Group`].
///
/// It yields the result of the task, or the [`ContextError`] if the task was stopped, was never
/// started, or panicked.
///
/// Await it after [`Group::join`]: before, a task that a sibling's error has stopped yields the
/// stop, not that error.
///
/// # Panics
/// When it is polled after it was ready. A panic of the task is not resumed here but by
/// [`Group::join`].
///
/// # Cancellation safety
/// Dropping it loses the result and changes nothing else. The task runs on, and its error still
/// cancels the group.
#[derive(Debug)]
pub struct GroupHandle<T, E> {
    task: JoinHandle<Option<Result<T, E>>>,
    ctx: Context,
}

impl<T, E: From<ContextError>> Future for GroupHandle<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.task).poll(cx).map(|joined| {
            // Without a result, the task was dropped with its runtime or has panicked.
            joined.ok().flatten().unwrap_or_else(|| Err(self.ctx.err().unwrap_or(ContextError::Canceled).into()))
        })
    }
}
