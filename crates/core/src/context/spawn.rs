//! Spawning tasks that run in their context.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use super::lifecycle::{RunningWork, count_task};
use super::run::poll_until_done;
use super::tree::{Ref, Wait};
use super::{Context, ContextError, WithContext};

/// Derives the context of spawned work.
///
/// It runs on the task that spawns. `None` keeps the context.
type DeriveForSpawn = fn(&Context) -> Option<Context>;

static DERIVE_FOR_SPAWN: OnceLock<DeriveForSpawn> = OnceLock::new();

/// Sets the function that derives the context of spawned work.
///
/// A process has one; the first call wins.
pub(crate) fn set_derive_for_spawn(derive: DeriveForSpawn) {
    let _ = DERIVE_FOR_SPAWN.set(derive);
}

fn derive_for_spawn(ctx: &Context) -> Option<Context> {
    DERIVE_FOR_SPAWN.get()?(ctx)
}

impl Context {
    /// Spawns `future` onto the current tokio runtime with this context.
    ///
    /// The context is ambient during each poll of the future, and while the future is dropped.
    /// Values of keys that are declared [`local`](super::Key::local) do not cross.
    ///
    /// Once the context is done, the future is dropped at its next await, and the handle yields the
    /// [`ContextError`]. The future does not continue in the background. If the context is done
    /// before the first poll, the future is never polled.
    ///
    /// Dropping the handle does not stop the task. Spawn work that must outlive the context on
    /// [`detach`](Context::detach).
    ///
    /// The spans of the task are children of the innermost span at the time of the spawn. That is
    /// the span of the context, or a `tracing` span below it that is entered on the spawning task.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::{Context, ContextError};
    ///
    /// let request = Context::background().with_cancel();
    /// let audit = request.spawn(std::future::pending::<()>());
    /// request.cancel();
    /// assert_eq!(audit.await.expect("the task did not panic"), Err(ContextError::Canceled));
    /// # }
    /// ```
    pub fn spawn<F>(&self, future: F) -> JoinHandle<Result<F::Output, ContextError>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.run_in_scope(future))
    }

    /// As [`spawn`](Context::spawn), for a future that stays on this thread.
    ///
    /// # Panics
    /// Outside a tokio `LocalSet` or local runtime.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use std::rc::Rc;
    /// use throughline_core::Context;
    ///
    /// let shared = Rc::new(7);
    /// let local = tokio::task::LocalSet::new();
    /// let ctx = Context::background();
    /// let result = local.run_until(async { ctx.spawn_local(async move { *shared }).await }).await;
    /// assert_eq!(result.expect("the task did not panic"), Ok(7));
    /// # }
    /// ```
    pub fn spawn_local<F>(&self, future: F) -> JoinHandle<Result<F::Output, ContextError>>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        tokio::task::spawn_local(self.run_in_scope(future))
    }

    /// Runs `f` on the runtime's blocking pool with this context.
    ///
    /// The context is the argument of `f` and the ambient context.
    ///
    /// Blocking work cannot be stopped from outside: `f` has to check the context itself and
    /// return. If the context is done before the pool starts `f`, `f` is not called and the handle
    /// yields the [`ContextError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().with_cancel();
    /// let scan = request.spawn_blocking(|ctx| {
    ///     let mut rows = 0;
    ///     while rows < 100 && ctx.check().is_ok() {
    ///         rows += 1;
    ///     }
    ///     rows
    /// });
    /// assert_eq!(scan.await.expect("the task did not panic"), Ok(100));
    /// # }
    /// ```
    pub fn spawn_blocking<R: Send + 'static>(
        &self,
        f: impl FnOnce(&Context) -> R + Send + 'static,
    ) -> JoinHandle<Result<R, ContextError>> {
        let job = self.across_spawn().scope(f);
        let counted = count_task(self);
        tokio::task::spawn_blocking(move || {
            let _counted = counted;
            job.call(|f, ctx| {
                ctx.check()?;
                Ok(f(ctx))
            })
        })
    }

    /// The context of work that is spawned under this one.
    pub(super) fn across_spawn(&self) -> Context {
        let derived = derive_for_spawn(self);
        let ctx = derived.as_ref().unwrap_or(self);
        Context(ctx.0.as_ref().map(Ref::across_spawn))
    }

    /// Runs `future` in this context until the context is done.
    ///
    /// It is not an `async` block: a block would store the future twice.
    fn run_in_scope<F: Future>(&self, future: F) -> WithContext<RunUntilDone<F>> {
        let ctx = self.across_spawn();
        ctx.scope(RunUntilDone { work: future, wait: Wait::new(ctx.clone()), _counted: count_task(&ctx) })
    }
}

pin_project! {
    /// Runs `work` until its context is done.
    struct RunUntilDone<F> {
        #[pin]
        work: F,
        #[pin]
        wait: Wait<Context>,
        // The last field: it is dropped after the work.
        _counted: Option<RunningWork>,
    }
}

impl<F: Future> Future for RunUntilDone<F> {
    type Output = Result<F::Output, ContextError>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.project();
        poll_until_done(this.work, this.wait, cx, true)
    }
}
