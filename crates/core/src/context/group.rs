//! Tasks that succeed or fail together: Go's `errgroup`, with a context that every task is given.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll, Waker};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinError, JoinSet, unconstrained};

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
/// Dropping the group cancels its context and aborts its tasks, without waiting for them.
///
/// It may go on as long as its process does, as an accept loop's: of the tasks that have ended it holds those alone that did so since
/// the last [`spawn`](Self::spawn).
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
#[must_use = "dropping a group aborts its tasks: `join` it"]
pub struct Group<E: GroupError> {
    shared: Arc<Shared<E>>,
    tasks: JoinSet<()>,
    first_panic: Option<JoinError>,
    places: Option<Arc<Semaphore>>,
}

struct Shared<E> {
    handle: CancelHandle,
    first_error: OnceLock<E>,
}

impl<E: GroupError> Group<E> {
    /// A group whose context is a child of `ctx`. It does not limit how many tasks run at once.
    pub fn new(ctx: &Context) -> Self {
        Self {
            shared: Arc::new(Shared { handle: ctx.with_cancel(), first_error: OnceLock::new() }),
            tasks: JoinSet::new(),
            first_panic: None,
            places: None,
        }
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
        self.places = Some(Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))));
        self
    }

    /// The group's context: done when the parent is, when a task failed, and when the group was joined or dropped.
    pub fn context(&self) -> &Context {
        self.shared.handle.context()
    }

    /// Spawns `task` and returns at once. The handle yields what the task returned; a task that was stopped, or whose turn never
    /// came, yields the [`ContextError`], and so does one that panicked. Dropping the handle changes nothing.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<T, F, Fut>(&mut self, task: F) -> GroupHandle<T, E>
    where
        T: Send + 'static,
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        while let Some(ended) = self.tasks.try_join_next() {
            self.note(ended);
        }
        let (sender, receiver) = oneshot::channel();
        let ctx = self.context().across_spawn();
        let shared = self.shared.clone();
        let place = self.places.clone().map(queue);
        let given = ctx.clone();
        let work = async move {
            let _place = match place {
                Some(place) => Some(place.await),
                None => None,
            };
            task(given).await
        };
        self.tasks.spawn(ctx.clone().scope(async move {
            let on_panic = CancelOnPanic(&shared.handle);
            let result = ctx.run(work).await.unwrap_or_else(|stopped| Err(stopped.into()));
            drop(on_panic);
            if let Err(error) = &result {
                shared.fail(error);
            }
            let _ = sender.send(result);
        }));
        GroupHandle { receiver, ctx: self.context().clone() }
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
    /// Dropping the future drops the group: its tasks are cancelled and aborted.
    pub async fn join(mut self) -> Result<(), E> {
        while let Some(ended) = self.tasks.join_next().await {
            self.note(ended);
        }
        self.shared.handle.cancel();
        if let Some(error) = self.first_panic.take() {
            panic::resume_unwind(error.into_panic());
        }
        self.shared.first_error.get().cloned().map_or(Ok(()), Err)
    }

    /// Of a task that has ended only the first panic is kept.
    fn note(&mut self, ended: Result<(), JoinError>) {
        let Err(error) = ended else { return };
        if error.is_panic() {
            self.first_panic.get_or_insert(error);
        } else {
            // Nobody aborts it but the group's own drop: its runtime has ended.
            let stopped = self.context().err().unwrap_or(ContextError::Canceled);
            self.shared.fail(&stopped.into());
        }
    }
}

impl<E> Shared<E> {
    fn fail(&self, error: &E)
    where
        E: GroupError,
    {
        if self.first_error.set(error.clone()).is_ok() {
            self.handle.cancel_with(error.clone());
        }
    }
}

impl<E: GroupError> Drop for Group<E> {
    fn drop(&mut self) {
        self.shared.handle.cancel();
    }
}

impl<E: GroupError> fmt::Debug for Group<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("context", self.context())
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

/// A place in the queue, taken now. tokio's semaphore serves in the order of first polls, so the first poll is here and not in the
/// task, whose own order of first polls is the runtime's affair.
fn queue(places: Arc<Semaphore>) -> impl Future<Output = OwnedSemaphorePermit> + Send {
    let mut place = Box::pin(async move { places.acquire_owned().await.expect("the semaphore is never closed") });
    // Before 1.54 it does not even queue for a task whose budget of polls is used up.
    let first = pin!(unconstrained(place.as_mut())).poll(&mut TaskContext::from_waker(Waker::noop()));
    let mut taken = match first {
        Poll::Ready(permit) => Some(permit),
        Poll::Pending => None,
    };
    poll_fn(move |cx| taken.take().map_or_else(|| place.as_mut().poll(cx), Poll::Ready))
}

/// Cancels the siblings of a task that unwinds.
struct CancelOnPanic<'a>(&'a CancelHandle);

impl Drop for CancelOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel_with(Cause::Panicked);
        }
    }
}

/// What one task of a [`Group`] returns, as a future.
#[derive(Debug)]
#[must_use = "a handle yields the task's result"]
pub struct GroupHandle<T, E> {
    receiver: oneshot::Receiver<Result<T, E>>,
    ctx: Context,
}

impl<T, E: From<ContextError>> Future for GroupHandle<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(cx).map(|received| {
            // No result: the task was aborted with its group, or panicked.
            received.unwrap_or_else(|_| Err(self.ctx.err().unwrap_or(ContextError::Canceled).into()))
        })
    }
}

/// Runs two futures within this task, so that they may borrow, as a [`Group`] would: each is given one child context of `ctx`; the
/// first error cancels the other with that error as the cause, and is returned when both have ended.
///
/// # Errors
/// The first error; when `ctx` is done before both are ready, its [`ContextError`].
///
/// # Cancellation safety
/// Dropping the future drops both and cancels the child context.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use throughline_core::{Context, ContextError, try_join};
///
/// let card = String::from("card");
/// let ctx = Context::background();
/// let both = try_join(
///     &ctx,
///     async |_ctx| Ok::<_, ContextError>(card.len()),
///     async |_ctx| Ok(card.is_empty()),
/// );
/// assert_eq!(both.await, Ok((4, false)));
/// # }
/// ```
pub async fn try_join<A, B, FA, FB, E>(
    ctx: &Context,
    a: impl FnOnce(Context) -> FA,
    b: impl FnOnce(Context) -> FB,
) -> Result<(A, B), E>
where
    FA: Future<Output = Result<A, E>>,
    FB: Future<Output = Result<B, E>>,
    E: GroupError,
{
    let shared = Shared { handle: ctx.with_cancel(), first_error: OnceLock::new() };
    let child = shared.handle.context();
    let mut a = pin!(child.scope(stoppable(&shared, a(child.clone()))));
    let mut b = pin!(child.scope(stoppable(&shared, b(child.clone()))));
    let (mut from_a, mut from_b) = (None, None);
    poll_fn(|cx| {
        poll_into(a.as_mut(), &mut from_a, cx);
        if from_b.is_none() {
            poll_into(b.as_mut(), &mut from_b, cx);
            if matches!(from_b, Some(None)) {
                // It has just cancelled `a`, whose waker may have been called during this very poll: look again.
                poll_into(a.as_mut(), &mut from_a, cx);
            }
        }
        if from_a.is_some() && from_b.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    match (from_a.flatten(), from_b.flatten()) {
        (Some(a), Some(b)) => Ok((a, b)),
        _ => Err(shared.first_error.get().cloned().expect("who yields nothing has set the first error")),
    }
}

/// The future's output; `None` after an error or a stop, which is then in `shared`.
async fn stoppable<T, E: GroupError>(shared: &Shared<E>, future: impl Future<Output = Result<T, E>>) -> Option<T> {
    match shared.handle.context().run(future).await {
        Ok(Ok(output)) => Some(output),
        Ok(Err(error)) => {
            shared.fail(&error);
            None
        }
        Err(stopped) => {
            shared.fail(&stopped.into());
            None
        }
    }
}

fn poll_into<T>(future: Pin<&mut impl Future<Output = T>>, output: &mut Option<T>, cx: &mut TaskContext<'_>) {
    if output.is_none()
        && let Poll::Ready(ready) = future.poll(cx)
    {
        *output = Some(ready);
    }
}
