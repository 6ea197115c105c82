//! The `Context`: deadline, cancellation, error and typed values of one request.
//!
//! Words used in this folder:
//! - *derive*: make a child of a context. The parent does not change.
//! - *done*: cancelled, or past the deadline. It is final.
//! - *live*: not done.
//! - *error*: which of the two made the context done. *cause*: why.
//! - *latch*: store the error in the node, so that it never changes.
//! - *ambient*: the context that `Context::current` returns.
//! - *hook*: a callback that runs when a context is done.
//! - *virtual clock*: a tokio clock that is paused, or that was paused and moved by hand.
//!
//! Read the files in this order:
//! - this file, `deadline`: what a context is, and how to derive one
//! - `observe`, `identity`: deadline, error, cause, values and equality of contexts
//! - `handle`, `cause`, `error`: cancelling
//! - `done`, `run`, `blocking`: waiting
//! - `key`: typed values
//! - `scope`: the ambient context
//! - `spawn`, `group`, `try_join`: tasks
//! - `hook`, `signal`, `interop`: callbacks, process signals, tokens of `tokio_util`
//! - `shield`: contexts that stay live for a time after their parent is done
//! - `lifecycle`: counting the work of a process
//! - `debug`: how a context prints
//! - `tree`, `timer`, `clock`, `sync`, `catch`: what the files above are built on

mod blocking;
mod catch;
mod cause;
mod clock;
mod deadline;
mod debug;
mod done;
mod error;
mod group;
mod handle;
mod hook;
mod identity;
#[cfg(feature = "tokio-util")]
mod interop;
mod key;
mod lifecycle;
#[cfg(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan)))]
mod models;
mod observe;
mod run;
mod scope;
mod shield;
#[cfg(all(feature = "signal", any(unix, windows)))]
mod signal;
mod spawn;
mod sync;
// A model runs no timer thread. Its alarms fire when the model moves its clock.
#[cfg_attr(all(test, any(throughline_loom, throughline_shuttle, throughline_tsan)), path = "models/timer.rs")]
mod timer;
mod tree;
mod try_join;

pub use cause::Cause;
pub use done::{Done, DoneOwned};
pub use error::ContextError;
pub use group::{Group, GroupError, GroupHandle, SharedError};
pub use handle::CancelHandle;
pub use hook::AfterFunc;
pub use key::{Codec, Key};
pub use lifecycle::{Lifecycle, RunningWork, Work};
pub use run::Run;
pub use scope::{FutureExt, WithContext};
#[cfg(all(feature = "signal", any(unix, windows)))]
pub use signal::TerminationSignals;
pub(crate) use spawn::set_derive_for_spawn;
use tree::Ref;
pub(crate) use tree::WireKind;
pub use try_join::try_join;

/// Carries the deadline, cancellation and values of one request through its code.
///
/// Pass it as the first argument, as `&Context`. A [`CancelHandle`] or a span derefs to one. A
/// clone is cheap: it increments one reference count.
///
/// A context never changes. [`with_cancel`](Context::with_cancel),
/// [`with_timeout`](Context::with_timeout) and [`with_value`](Context::with_value) *derive* a child
/// from it. Cancelling a context cancels all contexts derived from it. It never cancels its parent.
///
/// Many threads and tasks may use one context at a time. *Done* means cancelled or past its
/// deadline, and it is final. No operation recurses, however long the chain of derived contexts is.
///
/// Instants are on tokio's clock:
/// - Under a paused clock deadlines are virtual.
/// - A context never moves a paused clock: only code that waits sets a timer.
/// - A context with a deadline belongs to the clock it was made under.
/// - Outside a runtime everything works, except waiting for a deadline of a paused clock.
/// - Several runtimes may wait for one context. When one of them ends, the others still see the
///   deadline.
///
/// Deadlines and callbacks need threads of the process. After `fork` without `exec` the child
/// process has no such threads, and nothing is guaranteed.
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
/// let short = request.with_timeout(Duration::from_secs(1));
/// assert_eq!(reserve(&short).await, Err(ContextError::DeadlineExceeded));
/// assert!(!request.is_done());
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "deriving returns a new context and does not change this one"]
pub struct Context(Option<Ref>);

impl Context {
    /// The root of all contexts: never done, without deadline or values.
    ///
    /// It allocates nothing. [`Default`] returns it too.
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

    /// Derives a child and returns the handle that cancels it.
    ///
    /// Dropping the handle also cancels the child.
    ///
    /// Cancelling or dropping the child does not affect this context. This context keeps nothing of
    /// a child that is gone.
    ///
    /// Keep the handle while the work runs, and derive from the handle: it derefs to its context.
    /// `ctx.with_cancel().with_timeout(d)` drops the handle at the end of the statement. The
    /// context is then done from the start, with [`Cause::HandleDropped`]:
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
    /// A context borrowed from such a temporary handle does not compile:
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

    /// Derives a child with `value` under `key`, which shadows an earlier value.
    ///
    /// Use values for request data that passes through code that does not use it, not for optional
    /// arguments. A value can still be read after the context is done. It is dropped with the last
    /// context derived from this one.
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

    /// Derives a child without a value under `key`, even if an ancestor has one.
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

    /// Derives a child that keeps the values, but not the deadline or cancellation.
    ///
    /// It keeps the trace, which is a value. It does not inherit error or cause. Use it for work
    /// that must continue after the request has ended. Contexts derived from the child form a tree
    /// of their own.
    ///
    /// Below a [`Lifecycle`], as in a process with a `throughline::Shutdown`, the child is done
    /// when the process ends.
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
        lifecycle::end_detached(Context(self.0.as_ref().map(Ref::without_cancel)))
    }

    /// [`without_cancel`](Self::without_cancel) under a more common name.
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

    /// Returns a context that is done when `a` or `b` is done.
    ///
    /// - It has the error and cause of the one that was done first. If both are done at the same
    ///   instant, those of `a`.
    /// - Its deadline is the earlier one.
    /// - It has the values of `a`, and those of `b` under keys that `a` has no value for.
    ///
    /// It uses no task. A cancellation of `a` or `b` reaches it before
    /// [`cancel`](CancelHandle::cancel) returns.
    ///
    /// ```
    /// use throughline_core::{Cause, Context};
    ///
    /// let request = Context::background().with_cancel();
    /// let server = Context::background().with_cancel();
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
}
