//! Counting the work of a process, so that the process can end after its work.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::{CancelHandle, Cause, Context, Key};

static SCOPE: Key<Scope> = Key::new("lifecycle");

/// The place of a context in a lifecycle.
struct Scope {
    lifecycle: Lifecycle,
    is_detached: bool,
}

/// Counts the running work of a process, by its [kind](Work).
///
/// Below a context with a lifecycle:
/// - Tasks of [`Context::spawn`], [`spawn_local`](Context::spawn_local),
///   [`spawn_blocking`](Context::spawn_blocking) and [`Group`](super::Group) are counted.
/// - A [detached](Context::detach) context is done when
///   [`cancel_detached`](Self::cancel_detached) is called. It is not done earlier: neither with its
///   request nor with the context that has the lifecycle.
///
/// Servers count their requests with [`start`](Self::start). Other contexts pay nothing.
///
/// Applications use `throughline::Shutdown`, which is built on it.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use throughline_core::{Context, Lifecycle, Work};
///
/// let lifecycle = Lifecycle::new();
/// let base = Context::background().with_lifecycle(&lifecycle);
/// let audit = base.with_cancel().detach().spawn(tokio::task::yield_now());
/// assert_eq!(lifecycle.count(Work::DetachedTask), 1);
/// lifecycle.idle().await;
/// assert!(audit.is_finished());
/// # }
/// ```
#[derive(Clone)]
pub struct Lifecycle(Arc<Shared>);

struct Shared {
    /// How much work runs, by kind.
    running: [AtomicUsize; Work::ALL.len()],
    /// Notified when the last work of a kind ends.
    ended: Notify,
    /// Ends detached contexts.
    detached: CancelHandle,
}

/// A kind of work that a [`Lifecycle`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Work {
    /// A request or a message that a service handles.
    Request,
    /// A task on a context that is not detached, such as that of a request.
    Task,
    /// A task on a detached context.
    DetachedTask,
}

impl Work {
    /// Work may start other work of its own kind, and of the kinds after it.
    const ALL: [Work; 3] = [Work::Request, Work::Task, Work::DetachedTask];
}

/// Counts as running work until it is dropped; made by [`Lifecycle::start`].
#[must_use = "the work counts as ended when this is dropped"]
pub struct RunningWork {
    lifecycle: Lifecycle,
    work: Work,
}

impl Lifecycle {
    /// Makes a lifecycle in which no work runs.
    pub fn new() -> Self {
        let detached = Context::background().with_cancel();
        Lifecycle(Arc::new(Shared { running: Default::default(), ended: Notify::new(), detached }))
    }

    /// Returns the lifecycle of a context: its own or that of an ancestor.
    ///
    /// ```
    /// use throughline_core::{Context, Lifecycle};
    ///
    /// let base = Context::background().with_lifecycle(&Lifecycle::new());
    /// assert!(Lifecycle::of(&base.with_cancel()).is_some());
    /// assert!(Lifecycle::of(&Context::background()).is_none());
    /// ```
    pub fn of(ctx: &Context) -> Option<&Lifecycle> {
        ctx.value(&SCOPE).map(|scope| &scope.lifecycle)
    }

    /// Counts work as running until the returned value is dropped.
    ///
    /// ```
    /// use throughline_core::{Lifecycle, Work};
    ///
    /// let lifecycle = Lifecycle::new();
    /// let request = lifecycle.start(Work::Request);
    /// assert_eq!(lifecycle.count(Work::Request), 1);
    /// drop(request);
    /// assert_eq!(lifecycle.count(Work::Request), 0);
    /// ```
    pub fn start(&self, work: Work) -> RunningWork {
        self.0.running[work as usize].fetch_add(1, Ordering::Relaxed);
        RunningWork { lifecycle: self.clone(), work }
    }

    /// Returns how much work of this kind runs now.
    pub fn count(&self, work: Work) -> usize {
        self.0.running[work as usize].load(Ordering::Acquire)
    }

    /// Waits until no work runs.
    ///
    /// It does not keep new work from starting.
    ///
    /// # Cancellation safety
    /// It may be dropped at any time and called again.
    pub async fn idle(&self) {
        loop {
            // Registered before the counts are read, so that no end in between is missed.
            let ended = self.0.ended.notified();
            // In this order: work that has ended has already counted the work that it started.
            if Work::ALL.iter().all(|work| self.count(*work) == 0) {
                return;
            }
            ended.await;
        }
    }

    /// Cancels all detached contexts below this lifecycle, with [`Cause::Shutdown`].
    ///
    /// Contexts that are detached later are done from the start.
    ///
    /// ```
    /// use throughline_core::{Cause, Context, Lifecycle};
    ///
    /// let lifecycle = Lifecycle::new();
    /// let audit = Context::background().with_lifecycle(&lifecycle).detach();
    /// lifecycle.cancel_detached();
    /// assert!(matches!(audit.cause(), Some(Cause::Shutdown)));
    /// ```
    pub fn cancel_detached(&self) {
        self.0.detached.cancel_with(Cause::Shutdown);
    }
}

impl Context {
    /// Derives a child whose work is counted by `lifecycle`.
    ///
    /// So is the work of all contexts below it.
    /// [`Lifecycle`] says which work that is, and has an example.
    pub fn with_lifecycle(&self, lifecycle: &Lifecycle) -> Context {
        self.with_value(&SCOPE, Scope { lifecycle: lifecycle.clone(), is_detached: false })
    }
}

/// Counts a task that is spawned on `ctx`, if there is a lifecycle.
pub(super) fn count_task(ctx: &Context) -> Option<RunningWork> {
    let scope = ctx.value(&SCOPE)?;
    Some(scope.lifecycle.start(if scope.is_detached { Work::DetachedTask } else { Work::Task }))
}

/// Makes a detached context end with its lifecycle, if there is one.
pub(super) fn end_detached(ctx: Context) -> Context {
    let Some(scope) = ctx.value(&SCOPE) else { return ctx };
    let lifecycle = scope.lifecycle.clone();
    let ctx = Context::merge(&ctx, lifecycle.0.detached.context());
    ctx.with_value(&SCOPE, Scope { lifecycle, is_detached: true })
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle::new()
    }
}

impl Drop for RunningWork {
    fn drop(&mut self) {
        if self.lifecycle.0.running[self.work as usize].fetch_sub(1, Ordering::AcqRel) == 1 {
            self.lifecycle.0.ended.notify_waiters();
        }
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = Work::ALL.map(|work| (work, self.count(work)));
        f.debug_map().entries(running).finish()
    }
}

impl fmt::Debug for RunningWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RunningWork").field(&self.work).finish()
    }
}
