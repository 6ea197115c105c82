//! Two futures that succeed or fail together, within one task.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll};

use super::tree::Wait;
use super::{CancelHandle, Context, GroupError, WithContext};

/// Runs two futures within this task; the first error cancels the other.
///
/// Unlike tasks of a [`Group`](super::Group), the futures may borrow. Both get one child context of
/// `ctx`. The first error cancels that context with the error as the cause. It is returned when
/// both futures have ended.
///
/// If `ctx` is already done, neither closure is called.
///
/// # Errors
/// The first error. If `ctx` is done before both are ready, its
/// [`ContextError`](super::ContextError).
///
/// # Cancellation safety
/// Dropping the future drops both futures and cancels the child context.
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
    let parent = Parent(ctx.with_cancel());
    let child = parent.0.context();
    child.check()?;
    // One wait serves both futures. Two waits would be larger and would wake the task twice.
    let mut wait = pin!(Wait::new(child));
    let mut first = pin!(child.scope(a(child.clone())));
    let mut second = pin!(child.scope(b(child.clone())));
    let (mut from_first, mut from_second) = (None, None);
    poll_fn(|cx| {
        let was_waiting = wait.is_waiting(cx);
        let stopped = if was_waiting && !wait.is_known_done() { None } else { child.err() };
        let mut failed = stopped.map(E::from);
        if failed.is_none() {
            failed = poll_side(first.as_mut(), &mut from_first, cx)
                .or_else(|| poll_side(second.as_mut(), &mut from_second, cx));
        }
        if failed.is_none() {
            if from_first.is_some()
                && from_second.is_some()
                && let Some(both) = from_first.take().zip(from_second.take())
            {
                return Poll::Ready(Ok(both));
            }
            if (!was_waiting || wait.is_alarmed())
                && let Poll::Ready(stopped) = wait.as_mut().register(cx)
            {
                failed = Some(stopped.into());
            }
        }
        let Some(error) = failed else { return Poll::Pending };
        parent.0.cancel_with(error.clone());
        first.as_mut().drop_inner();
        second.as_mut().drop_inner();
        Poll::Ready(Err(error))
    })
    .await
}

/// Polls a future that has not ended, and drops it at its end.
///
/// Returns its error.
fn poll_side<F: Future<Output = Result<T, E>>, T, E>(
    mut side: Pin<&mut WithContext<F>>,
    output: &mut Option<T>,
    cx: &mut TaskContext<'_>,
) -> Option<E> {
    if output.is_some() {
        return None;
    }
    let Poll::Ready(result) = side.as_mut().poll(cx) else { return None };
    side.drop_inner();
    result.map(|ready| *output = Some(ready)).err()
}

/// Cancels the child context when the call ends or is dropped.
struct Parent(CancelHandle);

impl Drop for Parent {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
