//! One task of a group, and the handle for its result.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll, Waker, ready};

use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, unconstrained};

use super::error::GroupError;
use super::shared::Shared;
use crate::context::catch::catch_panic;
use crate::context::lifecycle::{RunningWork, count_task};
use crate::context::run::poll_until_done;
use crate::context::tree::Wait;
use crate::context::{Context, ContextError};

pin_project! {
    /// The future that is spawned for a task.
    ///
    /// An `async` block would store the task twice.
    pub(super) struct Task<F, Fut, E: GroupError> {
        // `None` once it has ended.
        #[pin]
        work: Option<Work<F, Fut>>,
        #[pin]
        wait: Wait<Arc<Shared<E>>>,
        // The last field: it is dropped after the work, also if the work's destructor panics.
        counted: Option<RunningWork>,
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
            // Before the end is counted: once the group is joined, the task no longer counts.
            drop(this.counted.take());
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
    pub(super) enum Work<F, Fut> {
        Waiting { permit: Option<PermitFuture>, task: Option<(F, Context)> },
        Running { #[pin] future: Fut, permit: Option<OwnedSemaphorePermit> },
    }
}

impl<F, Fut, E: GroupError> Task<F, Fut, E> {
    pub(super) fn new(work: Work<F, Fut>, shared: &Arc<Shared<E>>) -> Self {
        shared.tasks.fetch_add(1, Ordering::Relaxed);
        let counted = count_task(shared.handle.context());
        Task { work: Some(work), wait: Wait::new(Arc::clone(shared)), counted }
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
pub(super) type PermitFuture = Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>;

/// Waits for a permit.
pub(super) async fn acquire(permits: Arc<Semaphore>) -> OwnedSemaphorePermit {
    permits.acquire_owned().await.expect("the semaphore is never closed")
}

/// A permit that is taken already.
pub(super) fn taken(permit: OwnedSemaphorePermit) -> PermitFuture {
    Box::pin(std::future::ready(permit))
}

/// Queues for a permit.
///
/// tokio's semaphore serves in the order of first polls, so the first poll is made here. In the
/// task it would depend on the order in which the runtime polls tasks.
pub(super) fn queue_for_permit(permits: Arc<Semaphore>) -> PermitFuture {
    let mut permit = Box::pin(acquire(permits));
    // Before tokio 1.54 it does not queue for a task that has used up its poll budget.
    let first = pin!(unconstrained(permit.as_mut())).poll(&mut TaskContext::from_waker(Waker::noop()));
    match first {
        Poll::Ready(permit) => taken(permit),
        Poll::Pending => permit,
    }
}

/// A future for the result of one task of a [`Group`](super::Group).
///
/// It yields the result of the task, or the [`ContextError`] if the task was stopped, was never
/// started, or panicked.
///
/// Await it after [`Group::join`](super::Group::join). Before, a task that a sibling's error has
/// stopped yields the stop, not that error.
///
/// # Panics
/// When it is polled after it was ready. A panic of the task is not resumed here but by
/// [`Group::join`](super::Group::join).
///
/// # Cancellation safety
/// Dropping it loses the result and changes nothing else. The task runs on, and its error is still
/// the group's.
#[derive(Debug)]
pub struct GroupHandle<T, E> {
    pub(super) task: JoinHandle<Option<Result<T, E>>>,
    pub(super) ctx: Context,
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
