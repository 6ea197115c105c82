//! The ambient context: what [`Context::current`] returns while a future is polled or a closure
//! runs.

use std::cell::Cell;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use futures_core::Stream;
use futures_sink::Sink;
use pin_project_lite::pin_project;

use super::Context;

thread_local! {
    static CURRENT: Cell<Context> = const { Cell::new(Context::background()) };
}

impl Context {
    /// Returns the ambient context of this thread.
    ///
    /// It is the context of the innermost [`scope`](Context::scope) being polled or
    /// [`enter`](Context::enter) running on this thread. Without one it is
    /// [`background`](Context::background).
    ///
    /// Use it in code that gets no context as an argument. If there is an explicit context, use
    /// that one. Deriving from the ambient context does not change the ambient context:
    ///
    /// ```
    /// use throughline_core::{Context, Key};
    ///
    /// static TENANT: Key<&str> = Key::new("tenant");
    ///
    /// let ctx = Context::background().with_value(&TENANT, "acme");
    /// ctx.enter(|| {
    ///     let ctx = Context::current().with_value(&TENANT, "other");
    ///     assert_eq!(ctx.value(&TENANT), Some(&"other"));
    ///     assert_eq!(Context::current().value(&TENANT), Some(&"acme"));
    /// });
    /// assert_eq!(Context::current().value(&TENANT), None);
    /// ```
    pub fn current() -> Context {
        CURRENT
            .try_with(|current| {
                let ctx = current.replace(Context::background());
                let copy = ctx.clone();
                current.set(ctx);
                copy
            })
            .unwrap_or(Context::background())
    }

    /// Makes this the ambient context while `f` runs.
    ///
    /// When `f` returns or panics, the previous ambient context is restored.
    ///
    /// It takes a closure, so the ambient context cannot be left set by mistake, restored in the
    /// wrong order, or held across an await.
    ///
    /// Tasks and threads that `f` starts do not inherit it: [`spawn`](Context::spawn) does that. A
    /// future that `f` returns does not inherit it either: `ctx.enter(|| query()).await` compiles,
    /// but `query` sees the context that is ambient around the await, not `ctx`. Use
    /// [`scope`](Context::scope) for futures:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use std::time::Duration;
    /// use throughline_core::Context;
    ///
    /// async fn query() -> bool {
    ///     Context::current().deadline().is_some()
    /// }
    ///
    /// let ctx = Context::background().with_timeout(Duration::from_secs(1));
    /// assert!(ctx.scope(query()).await);
    /// assert!(!ctx.enter(|| query()).await);
    /// # }
    /// ```
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::Context;
    ///
    /// let ctx = Context::background().with_timeout(Duration::from_secs(1));
    /// ctx.enter(|| assert!(Context::current().deadline().is_some()));
    /// assert!(Context::current().deadline().is_none());
    /// ```
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        with_current(&mut self.clone(), f)
    }

    /// Makes this the ambient context during each poll of `inner`.
    ///
    /// `inner` is a future, a stream or a sink. It may be polled on any thread.
    ///
    /// The context is also ambient while `inner` is dropped, so spans that a destructor makes have
    /// their parent. The scope does not end `inner` when the context is done: [`run`](Context::run)
    /// does that.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::{Context, Key};
    ///
    /// static TENANT: Key<&str> = Key::new("tenant");
    /// let ctx = Context::background().with_value(&TENANT, "acme");
    /// let seen = ctx.scope(async { Context::current().value(&TENANT).copied() }).await;
    /// assert_eq!(seen, Some("acme"));
    /// # }
    /// ```
    pub fn scope<F>(&self, inner: F) -> WithContext<F> {
        WithContext { inner: Some(inner), ctx: self.clone() }
    }
}

/// Sets the ambient context of a future.
pub trait FutureExt: Future + Sized {
    /// Makes `ctx` the ambient context during each poll of this future.
    ///
    /// [`Context::scope`] does the same for streams and sinks.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::{Context, FutureExt};
    ///
    /// let handle = Context::background().with_cancel();
    /// handle.cancel();
    /// let done = async { Context::current().is_done() }.with_context(&handle).await;
    /// assert!(done && !Context::current().is_done());
    /// # }
    /// ```
    fn with_context(self, ctx: &Context) -> WithContext<Self> {
        ctx.scope(self)
    }
}

impl<F: Future> FutureExt for F {}

pin_project! {
    /// A future, stream or sink with an ambient context.
    ///
    /// Made by [`Context::scope`] and [`FutureExt::with_context`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct WithContext<F> {
        // `None` once it was dropped, within the context.
        #[pin]
        inner: Option<F>,
        // During a poll of `inner` it holds the previous ambient context.
        ctx: Context,
    }

    impl<F> PinnedDrop for WithContext<F> {
        fn drop(this: Pin<&mut Self>) {
            this.drop_inner();
        }
    }
}

impl<F> WithContext<F> {
    /// Runs `f` on `inner`, with the context as the ambient one.
    #[inline]
    fn with_current<R>(self: Pin<&mut Self>, f: impl FnOnce(Pin<&mut F>) -> R) -> R {
        let this = self.project();
        let inner = this.inner.as_pin_mut().expect("inner is present until it is dropped");
        with_current(this.ctx, || f(inner))
    }

    /// Drops `inner`, with the context as the ambient one. It must not be used afterwards.
    pub(super) fn drop_inner(self: Pin<&mut Self>) {
        let mut this = self.project();
        if this.inner.is_some() {
            with_current(this.ctx, || this.inner.set(None));
        }
    }

    /// Calls `f` on `inner` and the context, with the context as the ambient one.
    pub(super) fn call<R>(mut self, f: impl FnOnce(F, &Context) -> R) -> R {
        let inner = self.inner.take().expect("inner is present until it is dropped");
        let ctx = self.ctx.clone();
        with_current(&mut self.ctx, || f(inner, &ctx))
    }
}

impl<F: Future> Future for WithContext<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        self.with_current(|inner| inner.poll(cx))
    }
}

impl<S: Stream> Stream for WithContext<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<S::Item>> {
        self.with_current(|inner| inner.poll_next(cx))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.as_ref().map_or((0, Some(0)), Stream::size_hint)
    }
}

impl<I, S: Sink<I>> Sink<I> for WithContext<S> {
    type Error = S::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.with_current(|inner| inner.poll_ready(cx))
    }

    fn start_send(self: Pin<&mut Self>, item: I) -> Result<(), S::Error> {
        self.with_current(|inner| inner.start_send(item))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.with_current(|inner| inner.poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.with_current(|inner| inner.poll_close(cx))
    }
}

/// Runs `f` with `ctx` and the ambient context swapped.
///
/// On a thread that is ending and has lost its ambient context, `f` runs without one.
#[inline]
fn with_current<R>(ctx: &mut Context, f: impl FnOnce() -> R) -> R {
    let mut f = Some(f);
    let mut call = || f.take().map(|f| f());
    let ran = CURRENT.try_with(|current| {
        let _restore = Swapped::new(current, ctx);
        call()
    });
    ran.unwrap_or_else(|_| call()).expect("f is called once")
}

/// Swaps back when it is dropped, also during a panic.
struct Swapped<'a> {
    current: &'a Cell<Context>,
    ctx: &'a mut Context,
}

impl<'a> Swapped<'a> {
    #[inline]
    fn new(current: &'a Cell<Context>, ctx: &'a mut Context) -> Self {
        let mut swapped = Swapped { current, ctx };
        swapped.swap();
        swapped
    }

    #[inline]
    fn swap(&mut self) {
        let ctx = mem::replace(self.ctx, Context::background());
        *self.ctx = self.current.replace(ctx);
    }
}

impl Drop for Swapped<'_> {
    #[inline]
    fn drop(&mut self) {
        self.swap();
    }
}
