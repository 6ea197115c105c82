//! The `Context`: deadline, Done signal, errors and typed values of one request.
//!
//! Read it in this order: this file (what a context is, how one is made), `observe` (what it answers), `handle` and `cause` and
//! `error` (cancelling), `done` and `run` (waiting), `key` (values), `scope` (the ambient context), `spawn`, `group` and `try_join` (tasks),
//! `hook` (callbacks), `interop`. What they stand on is `tree`, `timer` and `clock`.

mod cause;
mod clock;
mod debug;
mod done;
mod error;
mod group;
mod handle;
mod hook;
#[cfg(feature = "tokio-util")]
mod interop;
mod key;
#[cfg(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan)))]
mod models;
mod observe;
mod run;
mod scope;
mod shield;
#[cfg(all(feature = "signal", any(unix, windows)))]
mod signal;
mod spawn;
// A model has no threads but its own: there an alarm goes off when the model's clock is moved.
#[cfg_attr(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan)), path = "models/timer.rs")]
mod timer;
mod tree;
mod try_join;

use std::time::{Duration, Instant};

pub use cause::Cause;
pub use done::{Done, DoneOwned};
pub use error::ContextError;
pub use group::{Group, GroupError, GroupHandle};
pub use handle::CancelHandle;
pub use hook::AfterFunc;
pub(crate) use key::WireKind;
pub use key::{Codec, Key};
pub use run::Run;
pub use scope::{FutureExt, WithContext};
pub(crate) use spawn::set_derive_for_spawn;
use tree::{Ref, WireValue};
pub use try_join::try_join;

/// What a request carries through all the code that works for it: a deadline, a Done signal, the reason it was ended, and typed values.
///
/// A context is passed as the first argument, as `&Context` (a [`CancelHandle`] or a span may stand in), and is cheap to clone: one
/// reference count. It never changes; [`with_cancel`](Context::with_cancel), [`with_timeout`](Context::with_timeout) and
/// [`with_value`](Context::with_value) *derive* another one from it. Cancelling a context cancels all that are derived from it, and never
/// the one it is derived from.
///
/// It may be used by many threads and tasks at a time. *Done* means cancelled or past its deadline, and is for ever. However deep contexts
/// are derived from each other, nothing recurses.
///
/// Instants are on tokio's clock, so under a paused one deadlines are virtual, and nothing here moves it: only who waits sets a timer. A
/// context with a deadline belongs to the clock it was made under. Outside a runtime everything works but waiting for a deadline under
/// a paused clock. It may be waited for in several runtimes; one that ends takes no deadline of the others with it.
///
/// Deadlines and callbacks need threads of the process. After `fork` without `exec` the child has none of them, and nothing is promised.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use std::time::Duration;
/// use throughline_core::{Context, ContextError};
///
/// async fn reserve(ctx: &Context) -> Result<&'static str, ContextError> {
///     ctx.run(async {
///         tokio::time::sleep(Duration::from_secs(5)).await;
///         "reserved"
///     })
///     .await
/// }
///
/// let request = Context::background().with_timeout(Duration::from_secs(10));
/// assert_eq!(reserve(&request).await, Ok("reserved"));
/// let hasty = request.with_timeout(Duration::from_secs(1));
/// assert_eq!(reserve(&hasty).await, Err(ContextError::DeadlineExceeded));
/// assert!(!request.is_done());
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "deriving a context changes nothing but the one it returns"]
pub struct Context(Option<Ref>);

impl Context {
    /// The root of all contexts: never done, without deadline and values. It allocates nothing. [`Default`] is the same.
    ///
    /// ```
    /// use throughline_core::Context;
    ///
    /// static ROOT: Context = Context::background();
    /// assert!(ROOT.err().is_none() && ROOT.deadline().is_none());
    /// ```
    pub const fn background() -> Context {
        Context(None)
    }

    /// A child that can be cancelled, and the right to do so: it is cancelled when the returned handle is dropped.
    ///
    /// Neither its end nor its death touches this context, which keeps no trace of a child that is gone.
    ///
    /// Keep the handle as long as the work runs, and derive from it: it derefs to its context. `ctx.with_cancel().with_timeout(d)` drops
    /// the handle at the end of the statement, so the context is cancelled at birth with [`Cause::HandleDropped`]:
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::{Cause, Context};
    ///
    /// let wrong = Context::background().with_cancel().with_timeout(Duration::from_secs(1));
    /// assert!(matches!(wrong.cause(), Some(Cause::HandleDropped)));
    ///
    /// let handle = Context::background().with_cancel();
    /// let right = handle.with_timeout(Duration::from_secs(1));
    /// assert!(!right.is_done());
    /// ```
    ///
    /// A context that is borrowed from such a handle does not compile:
    ///
    /// ```compile_fail,E0716
    /// use throughline_core::Context;
    ///
    /// let ctx = Context::background().with_cancel().context();
    /// assert!(!ctx.is_done());
    /// ```
    ///
    /// # Examples
    /// ```
    /// use throughline_core::{Cause, Context, ContextError};
    ///
    /// let request = Context::background().with_cancel();
    /// let query = request.with_cancel();
    /// request.cancel_with(Cause::ClientDisconnected);
    /// assert_eq!(query.err(), Some(ContextError::Canceled));
    /// assert!(matches!(query.cause(), Some(Cause::ClientDisconnected)));
    /// ```
    #[inline]
    pub fn with_cancel(&self) -> CancelHandle {
        CancelHandle::new(Context(Some(Ref::with_cancel(self.0.as_ref()))))
    }

    /// A child that is done at `at`, or when this context is, whichever comes first.
    ///
    /// An `at` that has passed gives a child that is done at birth, without any timer: [`run`](Self::run), [`spawn`](Self::spawn) and a
    /// [`Group`] never poll work under it. If this context is done already, its error and cause win. Nothing has to be released. No timer is set until somebody waits.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use throughline_core::{Context, ContextError};
    ///
    /// let now = Instant::now();
    /// let ctx = Context::background().with_deadline(now + Duration::from_secs(60));
    /// assert_eq!(ctx.with_deadline(now + Duration::from_secs(90)).deadline(), ctx.deadline());
    /// assert_eq!(ctx.with_deadline(now).err(), Some(ContextError::DeadlineExceeded));
    /// ```
    #[inline]
    pub fn with_deadline(&self, at: Instant) -> Context {
        self.deadline_child(None, Some(at))
    }

    /// A child that is done `timeout` from now, or when this context is, whichever comes first: as
    /// [`with_deadline`](Self::with_deadline). A timeout longer than an `Instant` can express is none.
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::Context;
    ///
    /// let ctx = Context::background().with_timeout(Duration::from_secs(1));
    /// assert!(ctx.remaining() <= Some(Duration::from_secs(1)));
    /// assert_eq!(Context::background().with_timeout(Duration::MAX).deadline(), None);
    /// ```
    #[inline]
    pub fn with_timeout(&self, timeout: Duration) -> Context {
        if timeout.is_zero() {
            return self.expired_child(None);
        }
        let now = clock::now();
        self.deadline_child(Some(now), now.checked_add(timeout))
    }

    /// As [`with_deadline`](Self::with_deadline), with the cause to report when this very deadline ends the context.
    ///
    /// It is not used when a parent's earlier deadline or a cancellation ends it.
    ///
    /// ```
    /// use std::time::Instant;
    /// use throughline_core::{Cause, Context, ContextError};
    ///
    /// let closing = Context::background().with_deadline_cause(Instant::now(), Cause::Shutdown);
    /// assert_eq!(closing.err(), Some(ContextError::DeadlineExceeded));
    /// assert!(matches!(closing.cause(), Some(Cause::Shutdown)));
    /// ```
    pub fn with_deadline_cause(&self, at: Instant, cause: impl Into<Cause>) -> Context {
        self.deadline_child_with_cause(None, Some(at), cause.into())
    }

    /// As [`with_timeout`](Self::with_timeout), with the cause to report when this very timeout ends the context.
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::{Cause, Context};
    ///
    /// let ctx = Context::background().with_timeout_cause(Duration::ZERO, std::io::Error::other("slow disk"));
    /// assert_eq!(ctx.cause().map(|cause| cause.to_string()).as_deref(), Some("slow disk"));
    /// ```
    pub fn with_timeout_cause(&self, timeout: Duration, cause: impl Into<Cause>) -> Context {
        if timeout.is_zero() {
            return self.expired_child(Some(cause.into()));
        }
        let now = clock::now();
        self.deadline_child_with_cause(Some(now), now.checked_add(timeout), cause.into())
    }

    /// `now`: where the clock was read already. An `at` beyond what an instant can express is no deadline.
    #[inline]
    fn deadline_child(&self, now: Option<Instant>, at: Option<Instant>) -> Context {
        match self.child_if_earlier(now, at) {
            Some(node) => Context(Some(node)),
            None => self.clone_as_child(),
        }
    }

    fn deadline_child_with_cause(&self, now: Option<Instant>, at: Option<Instant>, cause: Cause) -> Context {
        let Some(node) = self.child_if_earlier(now, at) else { return self.clone_as_child() };
        node.set_deadline_cause(cause);
        Context(Some(node))
    }

    /// A parent's deadline that is not later ends the child at the same time and for a cause of its own: then there is no node.
    #[inline]
    fn child_if_earlier(&self, now: Option<Instant>, at: Option<Instant>) -> Option<Ref> {
        let at = at.filter(|at| self.deadline().is_none_or(|current| *at < current))?;
        Some(Ref::with_deadline(self.0.as_ref(), at, now))
    }

    /// A child whose deadline is now.
    #[cold]
    fn expired_child(&self, cause: Option<Cause>) -> Context {
        let now = clock::now();
        let ctx = match cause {
            Some(cause) => self.deadline_child_with_cause(Some(now), Some(now), cause),
            None => self.deadline_child(Some(now), Some(now)),
        };
        ctx.latch_at(now);
        ctx
    }

    /// A clone that stands for a child with a later deadline. If this context's own has passed, the child is done at birth.
    #[cold]
    fn clone_as_child(&self) -> Context {
        if self.deadline().is_some() {
            self.latch_at(clock::now());
        }
        self.clone()
    }

    /// Latches the answer of this context as of `now`.
    fn latch_at(&self, now: Instant) {
        if let Some(node) = &self.0 {
            node.error_at(now);
        }
    }

    /// A child with `value` under `key`, which hides an earlier one. Values can still be read after the context is done.
    ///
    /// They are for what belongs to the request and crosses the code between those who set it and those who read it, not for
    /// optional arguments. A value is dropped with the last context derived from this one.
    ///
    /// ```
    /// use throughline_core::{Context, Key};
    ///
    /// static USER: Key<u64> = Key::new("user");
    ///
    /// let ctx = Context::background().with_value(&USER, 7);
    /// assert_eq!(ctx.value(&USER), Some(&7));
    /// assert_eq!(ctx.with_value(&USER, 8).value(&USER), Some(&8));
    /// ```
    #[inline]
    pub fn with_value<T: Send + Sync + 'static>(&self, key: &'static Key<T>, value: T) -> Context {
        Context(Some(Ref::with_value(self.0.as_ref(), key, value)))
    }

    /// A child with nothing under `key`, whatever is there above.
    ///
    /// ```
    /// use throughline_core::{Context, Key};
    ///
    /// static USER: Key<u64> = Key::new("user");
    ///
    /// let ctx = Context::background().with_value(&USER, 7);
    /// assert_eq!(ctx.without_value(&USER).value(&USER), None);
    /// ```
    pub fn without_value<T: Send + Sync + 'static>(&self, key: &'static Key<T>) -> Context {
        Context(self.0.as_ref().map(|parent| Ref::without_value(parent, key.meta())))
    }

    /// A child that keeps the values, and so the trace, and neither deadline nor cancellation, error or cause: for what must go on when
    /// the request has ended. What is derived from it is a tree of its own.
    ///
    /// ```
    /// use throughline_core::{Context, Key};
    ///
    /// static USER: Key<u64> = Key::new("user");
    ///
    /// let request = Context::background().with_value(&USER, 7).with_cancel();
    /// let audit = request.without_cancel();
    /// request.cancel();
    /// assert!(!audit.is_done() && audit.value(&USER) == Some(&7));
    /// ```
    pub fn without_cancel(&self) -> Context {
        Context(self.0.as_ref().map(Ref::without_cancel))
    }

    /// [`without_cancel`](Self::without_cancel), under the name that people look for.
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().with_timeout(Duration::ZERO);
    /// assert!(request.is_done() && !request.detach().is_done());
    /// ```
    pub fn detach(&self) -> Context {
        self.without_cancel()
    }

    /// A context that is done when `a` or `b` is, with that one's error and cause, whose deadline is the earlier one, and which has the
    /// values of `a` and those of `b` that `a` has none for. Where both come at one instant it is `a`'s.
    ///
    /// It costs no task. A cancellation of `b` reaches it before [`cancel`](CancelHandle::cancel) returns.
    ///
    /// ```
    /// use throughline_core::{Cause, Context};
    ///
    /// let (request, server) = (Context::background().with_cancel(), Context::background().with_cancel());
    /// let both = Context::merge(&request, &server);
    /// server.cancel_with(Cause::Shutdown);
    /// assert!(matches!(both.cause(), Some(Cause::Shutdown)) && !request.is_done());
    /// ```
    pub fn merge(a: &Context, b: &Context) -> Context {
        match (&a.0, &b.0) {
            (Some(first), Some(second)) if !first.same(second) => Context(Some(Ref::merge(first, second))),
            (Some(_), _) => a.clone(),
            (None, _) => b.clone(),
        }
    }

    /// What leaves the process of all the values in scope.
    pub(crate) fn wire_values(&self) -> impl Iterator<Item = WireValue<'_>> {
        self.0.iter().flat_map(Ref::wire_values)
    }

    /// The context that was given the value under `key`: this one, or the one above that has brought it.
    pub(crate) fn origin<T: Send + Sync + 'static>(&self, key: &'static Key<T>) -> Option<Context> {
        self.0.as_ref()?.origin(key).map(|origin| Context(Some(origin)))
    }

    /// The context that work spawned under this one has.
    fn across_spawn(&self) -> Context {
        let below = spawn::derive_for_spawn(self);
        let ctx = below.as_ref().unwrap_or(self);
        Context(ctx.0.as_ref().map(Ref::across_spawn))
    }
}
