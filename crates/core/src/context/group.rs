//! Tasks that succeed or fail together: Go's `errgroup`, with a context that every task is given.

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

use super::run::poll_until_done;
use super::shield::shielded;
use super::tree::{Holder, Wait};
use super::{CancelHandle, Cause, Context, ContextError};

/// What a task of a group may fail with: cheap to clone, usable as a cause, and able to say that a task was stopped.
pub trait GroupError: Clone + Into<Cause> + From<ContextError> + Send + Sync + 'static {}

impl<E: Clone + Into<Cause> + From<ContextError> + Send + Sync + 'static> GroupError for E {}

/// Tasks under one child context: the first error cancels the rest, with that error as the cause.
///
/// Each task is spawned onto the current tokio runtime, is given the group's context, has it as its ambient one, and is stopped as
/// [`Context::spawn`]'s are: once the group's context is done it is dropped at its next await. A task that panics cancels the
/// others with [`Cause::Panicked`].
///
/// Dropping the group cancels its context, which stops its tasks, without waiting for them.
///
/// It may go on as long as its process does, as an accept loop's: it holds nothing of the tasks that have ended.
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

/// What a group and its tasks have in common.
struct Shared<E> {
    handle: CancelHandle,
    first_error: OnceLock<E>,
    first_panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Tasks that have not ended, or are not dropped yet.
    tasks: AtomicUsize,
    /// Whether a task was dropped before its end, with its runtime.
    is_task_lost: AtomicBool,
    /// Notified when a task is lost, and when the last one has ended.
    ended: Notify,
}

impl<E: GroupError> Group<E> {
    /// A group whose context is a child of `ctx`. It does not limit how many tasks run at once.
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

    /// At most `limit` of the tasks spawned from now on run at once; the others wait and start in the order they were spawned in.
    /// A limit of zero is one.
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

    /// The group's context: done when the parent is, when a task failed, and when the group was joined or dropped.
    pub fn context(&self) -> &Context {
        self.shared.handle.context()
    }

    /// Spawns `task` and returns at once. The handle yields what the task returned; a task that was stopped, or whose turn never
    /// came, yields the [`ContextError`], and so does one that panicked. Dropping the handle changes nothing.
    ///
    /// The spans of the task are children of the innermost span at the time of this call, as those of [`Context::spawn`].
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

    /// Waits until every task has ended, cancels the group's context, and returns the first error.
    ///
    /// # Errors
    /// The first error that a task returned; when the parent's end stopped a task, that [`ContextError`]. A task that was dropped with
    /// the runtime it was spawned onto was stopped, too, by [`Canceled`](ContextError::Canceled) where the context was live.
    ///
    /// # Panics
    /// Resumes the first panic of a task, after all have ended.
    ///
    /// # Cancellation safety
    /// Dropping the future drops the group, which stops its tasks.
    pub async fn join(self) -> Result<(), E> {
        let shared = &*self.shared;
        loop {
            // Before the count, so that an end in between is not missed.
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

    /// Keeps the first panic for `join`, and cancels the other tasks.
    fn panicked(&self, payload: Box<dyn Any + Send>) {
        self.handle.cancel_with(Cause::Panicked);
        let mut first = self.first_panic.lock().unwrap_or_else(PoisonError::into_inner);
        let later = if first.is_none() { first.replace(payload) } else { Some(payload) };
        drop(first);
        shielded(|| drop(later));
    }
}

// A panic of a task is caught in it, and what a group shares with its tasks is whole at all times.
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
    /// What is spawned for a task: in one piece, as an `async` block would hold the task's future a second time.
    struct Task<F, Fut, E: GroupError> {
        // There until it has ended.
        #[pin]
        work: Option<Work<F, Fut>>,
        #[pin]
        wait: Wait<Arc<Shared<E>>>,
    }

    impl<F, Fut, E: GroupError> PinnedDrop for Task<F, Fut, E> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let shared = this.wait.holder();
            // Also when a destructor panics.
            let _ended = CountEnd(shared);
            if this.work.is_some() {
                // Its runtime has ended.
                shared.is_task_lost.store(true, Ordering::Release);
                shared.ended.notify_waiters();
                this.work.set(None);
            }
        }
    }
}

/// Counts a task that has ended when it is dropped.
struct CountEnd<'a, E>(&'a Shared<E>);

impl<E> Drop for CountEnd<'_, E> {
    fn drop(&mut self) {
        if self.0.tasks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

pin_project! {
    /// A task that waits for its permit in the queue, or runs.
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

/// `None`: it panicked.
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
                shielded(|| this.work.set(None));
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

/// A permit in the queue of a group with a limit.
type PermitFuture = Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>;

/// A permit in the queue, taken now. tokio's semaphore serves in the order of first polls, so the first poll is here and not in the
/// task, whose own order of first polls is the runtime's affair.
fn queue_for_permit(permits: Arc<Semaphore>) -> PermitFuture {
    let mut permit = Box::pin(async move { permits.acquire_owned().await.expect("the semaphore is never closed") });
    // Before 1.54 it does not even queue for a task whose budget of polls is used up.
    let first = pin!(unconstrained(permit.as_mut())).poll(&mut TaskContext::from_waker(Waker::noop()));
    match first {
        Poll::Ready(permit) => Box::pin(std::future::ready(permit)),
        Poll::Pending => permit,
    }
}

/// What one task of a [`Group`] returns, as a future.
///
/// It yields the task's result, or the [`ContextError`] of a task that was stopped, never started, or panicked.
///
/// # Panics
/// When it is polled after it was ready. A panic of the task does not pass through it: [`Group::join`] resumes that.
///
/// # Cancellation safety
/// Dropping it loses the result and changes nothing else: the task runs on, and its error still cancels the group.
#[derive(Debug)]
#[must_use = "a handle yields the task's result"]
pub struct GroupHandle<T, E> {
    task: JoinHandle<Option<Result<T, E>>>,
    ctx: Context,
}

impl<T, E: From<ContextError>> Future for GroupHandle<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.task).poll(cx).map(|joined| {
            // No result: the task was dropped with its runtime, or panicked.
            joined.ok().flatten().unwrap_or_else(|| Err(self.ctx.err().unwrap_or(ContextError::Canceled).into()))
        })
    }
}
