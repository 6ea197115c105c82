//! Tasks that carry their context.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use super::run::poll_until_done;
use super::tree::Wait;
use super::{Context, ContextError, WithContext};

/// Derives the context of spawned work, on the task that spawns it; `None` leaves the context as it is.
type DeriveForSpawn = fn(&Context) -> Option<Context>;

static DERIVE_FOR_SPAWN: OnceLock<DeriveForSpawn> = OnceLock::new();

/// Sets what spawned work gets from the task that spawns it, beside its context. A process has one such function.
pub(crate) fn set_derive_for_spawn(below: DeriveForSpawn) {
    let _ = DERIVE_FOR_SPAWN.set(below);
}

pub(super) fn derive_for_spawn(ctx: &Context) -> Option<Context> {
    DERIVE_FOR_SPAWN.get()?(ctx)
}

impl Context {
    /// Spawns `future` onto the current tokio runtime with this context: ambient during each of its polls, without the keys that
    /// are declared [`local`](super::Key::local), and stopped once the context is done.
    ///
    /// Once done, the future is dropped at its next await, and the handle yields the [`ContextError`]; it does not run to its end
    /// in the background. A context that is done before the first poll never polls it. What must outlive the context is spawned on
    /// [`detach`](Context::detach). Dropping the handle does not stop the task. The context is ambient as well while the future is
    /// dropped.
    ///
    /// The spans of the work are children of the innermost span at the time of the spawn: the context's span, or a `tracing` span in
    /// it that is entered on the spawning task.
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
    /// assert_eq!(audit.await.expect("it did not panic"), Err(ContextError::Canceled));
    /// # }
    /// ```
    pub fn spawn<F>(&self, future: F) -> JoinHandle<Result<F::Output, ContextError>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.run_in_scope(future))
    }

    /// [`spawn`](Context::spawn) for a future that stays on this thread.
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
    /// let answer = local.run_until(async { Context::background().spawn_local(async move { *shared }).await }).await;
    /// assert_eq!(answer.expect("it did not panic"), Ok(7));
    /// # }
    /// ```
    pub fn spawn_local<F>(&self, future: F) -> JoinHandle<Result<F::Output, ContextError>>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        tokio::task::spawn_local(self.run_in_scope(future))
    }

    /// Runs `f` on the runtime's blocking pool with this context as its argument and as the ambient one.
    ///
    /// Blocking work cannot be stopped from outside: `f` itself looks at the context and returns. It is not called when the context
    /// is done before its turn comes; the handle then yields the [`ContextError`].
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
    /// assert_eq!(scan.await.expect("it did not panic"), Ok(100));
    /// # }
    /// ```
    pub fn spawn_blocking<R: Send + 'static>(
        &self,
        f: impl FnOnce(&Context) -> R + Send + 'static,
    ) -> JoinHandle<Result<R, ContextError>> {
        let job = self.across_spawn().scope(f);
        tokio::task::spawn_blocking(move || {
            job.call(|f, ctx| {
                ctx.check()?;
                Ok(f(ctx))
            })
        })
    }

    /// What is spawned for `future`: in one piece, as an `async` block would hold the future a second time.
    fn run_in_scope<F: Future>(&self, future: F) -> WithContext<RunUntilDone<F>> {
        let ctx = self.across_spawn();
        ctx.scope(RunUntilDone { work: future, wait: Wait::new(ctx.clone()) })
    }
}

pin_project! {
    /// A task's work, until its context is done.
    struct RunUntilDone<F> {
        #[pin]
        work: F,
        #[pin]
        wait: Wait<Context>,
    }
}

impl<F: Future> Future for RunUntilDone<F> {
    type Output = Result<F::Output, ContextError>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.project();
        poll_until_done(this.work, this.wait, cx, true)
    }
}
