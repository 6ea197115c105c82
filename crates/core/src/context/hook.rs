//! Callbacks that run when a context is done.
//!
//! Words used in this folder:
//! - *hook*: a registered callback and the future that waits for its context.
//! - *job*: a callback that was queued on the blocking pool of its runtime.
//! - *own thread*: a thread of this library, for callbacks that no pool can run in time.

mod threads;

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use threads::run_on_own_thread;
use tokio::runtime::Handle;

use super::catch::catch_panic;
use super::sync::{AtomicUsize, Mutex, Ordering, lock};
use super::timer::Alarm;
use super::{Context, DoneOwned, clock};

type Callback = Box<dyn FnOnce() + Send>;

impl Context {
    /// Calls `f` once, when the context is done.
    ///
    /// If the context is already done, it calls `f` at once. A cancellation and a deadline both
    /// count. No task or thread has to wait for the context.
    ///
    /// `f` may block. Where it runs:
    /// - On the blocking pool of the runtime in which `after_func` was called.
    /// - On a thread of this library if that pool is busy for 50 ms, if the runtime has ended, or
    ///   if there was no runtime. The runtime is entered there, if there was one.
    /// - Never on the stack of the caller of [`cancel`](super::CancelHandle::cancel), which does
    ///   not wait for `f`.
    ///
    /// A panic in `f` does not affect other code. A callback that blocks delays another one by at
    /// most 100 ms. Several registrations on one context are independent.
    ///
    /// Dropping the returned value does not stop the callback: [`stop`](AfterFunc::stop) does. A
    /// registered callback keeps its context alive. So a context that is never done, because its
    /// handle was disarmed, is never freed. On a context that can never be done, nothing is kept.
    ///
    /// # Examples
    /// ```
    /// use std::sync::mpsc;
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().with_cancel();
    /// let (sender, receiver) = mpsc::channel();
    /// request.after_func(move || sender.send("stopped").expect("the receiver is alive"));
    /// request.cancel();
    /// assert_eq!(receiver.recv(), Ok("stopped"));
    /// ```
    pub fn after_func(&self, f: impl FnOnce() + Send + 'static) -> AfterFunc {
        let hook = Hook::watch(self, Box::new(f), RunOn::Pool(Handle::try_current().ok()));
        AfterFunc { hook }
    }
}

/// A callback that was registered with [`Context::after_func`].
///
/// Dropping it does not stop the callback.
pub struct AfterFunc {
    hook: Arc<Hook>,
}

impl AfterFunc {
    /// Stops the callback. Returns `true` if and only if this call prevented it.
    ///
    /// It does not wait for a callback that is running.
    ///
    /// ```
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().with_cancel();
    /// let registration = request.after_func(|| unreachable!("it was stopped"));
    /// assert!(registration.stop() && !registration.stop());
    /// request.cancel();
    /// ```
    pub fn stop(&self) -> bool {
        let f = lock(&self.hook.f).take();
        if f.is_some() {
            self.hook.release();
        }
        f.is_some()
    }
}

impl fmt::Debug for AfterFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_waiting = lock(&self.hook.f).is_some();
        f.debug_struct("AfterFunc").field("is_waiting", &is_waiting).finish()
    }
}

/// Calls `f` on the stack of the thread that ends `ctx`.
///
/// Only for short code of this library. The current runtime is entered there, if there is one.
pub(super) fn call_when_done(ctx: &Context, f: impl FnOnce() + Send + 'static) -> AfterFunc {
    AfterFunc { hook: Hook::watch(ctx, Box::new(f), RunOn::Inline(Handle::try_current().ok())) }
}

/// Where a callback runs.
enum RunOn {
    /// On the blocking pool of this runtime, or on an own thread.
    Pool(Option<Handle>),
    /// On the stack of the thread that cancels the context or fires its deadline.
    Inline(Option<Handle>),
}

/// A registered callback.
///
/// It polls `done` as a task does, and is the waker of that poll. The registered waker holds a
/// reference to the hook, so the hook lives until it fires or is stopped.
struct Hook {
    f: Mutex<Option<Callback>>,
    /// Taken out while it is polled or dropped, so that neither happens under the lock.
    done: Mutex<Option<Pin<Box<DoneOwned>>>>,
    /// The number of wakes since `done` was last seen pending.
    ///
    /// The thread that increments it from 0 to 1 polls, also on behalf of wakes that come
    /// meanwhile.
    wakes: AtomicUsize,
    run_on: RunOn,
}

impl Hook {
    fn watch(ctx: &Context, f: Callback, run_on: RunOn) -> Arc<Hook> {
        let done = ctx.can_be_done().then(|| Box::pin(ctx.done_owned()));
        let (f, done) = (Mutex::new(Some(f)), Mutex::new(done));
        let hook = Arc::new(Hook { f, done, wakes: AtomicUsize::new(0), run_on });
        hook.on_wake();
        hook
    }

    /// Polls `done`, and runs the callback if it is ready.
    fn on_wake(self: &Arc<Self>) {
        if self.wakes.fetch_add(1, Ordering::AcqRel) != 0 {
            return;
        }
        if is_thread_ending() {
            // On this thread no runtime can be entered and no virtual clock can be read.
            let hook = Arc::clone(self);
            return run_on_own_thread(Box::new(move || hook.poll_until_pending()));
        }
        self.poll_until_pending();
    }

    fn poll_until_pending(self: &Arc<Self>) {
        loop {
            let seen = self.wakes.load(Ordering::Acquire);
            let Some(mut done) = lock(&self.done).take() else { return };
            if self.poll(done.as_mut()).is_ready() {
                self.fire();
                // This may be the last reference to the context, and destructors of its values may
                // panic.
                return catch_panic(|| drop(done));
            }
            *lock(&self.done) = Some(done);
            if lock(&self.f).is_none() {
                // The callback was stopped while `done` was taken out.
                return self.release();
            }
            if self.wakes.fetch_sub(seen, Ordering::AcqRel) == seen {
                return;
            }
        }
    }

    fn poll(self: &Arc<Self>, done: Pin<&mut DoneOwned>) -> Poll<()> {
        let waker = Waker::from(Arc::clone(self));
        // The clock of the runtime may be virtual.
        let (RunOn::Pool(runtime) | RunOn::Inline(runtime)) = &self.run_on;
        let _entered = runtime.as_ref().map(Handle::enter);
        done.poll(&mut TaskContext::from_waker(&waker))
    }

    fn fire(&self) {
        let Some(f) = lock(&self.f).take() else { return };
        match &self.run_on {
            RunOn::Pool(Some(runtime)) => Job::start(f, runtime),
            RunOn::Pool(None) => run_on_own_thread(f),
            RunOn::Inline(runtime) => {
                let _entered = runtime.as_ref().map(Handle::enter);
                f();
            }
        }
    }

    fn release(&self) {
        let done = lock(&self.done).take();
        drop(done);
    }
}

impl Wake for Hook {
    fn wake(self: Arc<Self>) {
        self.on_wake();
    }
}

/// A callback that is ready to run.
///
/// The pool of the runtime or an own thread runs it, whichever takes it first.
struct Job {
    f: Mutex<Option<Callback>>,
    runtime: Handle,
    /// Wakes the job when the pool has not taken it in time.
    ///
    /// It uses real time: what is missing is a thread, not virtual time.
    alarm: Mutex<Option<Alarm>>,
}

/// How long a callback waits for a thread of the pool.
const PATIENCE: Duration = Duration::from_millis(50);
/// The same on a virtual clock.
///
/// tokio stops that clock only while its pool has the callback.
const PATIENCE_VIRTUAL: Duration = Duration::from_millis(500);

impl Job {
    fn start(f: Callback, runtime: &Handle) {
        let job = Arc::new(Job { f: Mutex::new(Some(f)), runtime: runtime.clone(), alarm: Mutex::new(None) });
        let queued = Queued(Arc::clone(&job));
        // `spawn_blocking` panics if no thread can be started.
        let pool = || drop(runtime.spawn_blocking(move || queued.0.run()));
        if catch_unwind(AssertUnwindSafe(pool)).is_err() {
            return job.wake();
        }
        let waker = Waker::from(Arc::clone(&job));
        catch_panic(|| {
            let entered = runtime.enter();
            let (_, is_virtual) = clock::now_and_kind();
            drop(entered);
            let patience = if is_virtual { PATIENCE_VIRTUAL } else { PATIENCE };
            let alarm = Alarm::new(Instant::now() + patience, false, &mut TaskContext::from_waker(&waker));
            *lock(&job.alarm) = Some(alarm);
        });
        if lock(&job.f).is_none() {
            // The callback was taken before the alarm was stored.
            job.disarm();
        }
    }

    /// Runs the callback, unless it was already taken.
    fn run(&self) {
        let taken = lock(&self.f).take();
        self.disarm();
        if let Some(f) = taken {
            let _entered = self.runtime.enter();
            catch_panic(f);
        }
    }

    fn disarm(&self) {
        let alarm = lock(&self.alarm).take();
        drop(alarm);
    }
}

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        if lock(&self.f).is_some() {
            run_on_own_thread(Box::new(move || self.run()));
        }
    }
}

/// An entry in the queue of the pool.
///
/// A runtime that has ended drops it. The drop moves the callback to an own thread.
struct Queued(Arc<Job>);

impl Drop for Queued {
    fn drop(&mut self) {
        Arc::clone(&self.0).wake();
    }
}

/// Whether tokio has destroyed its thread-local state on this thread.
fn is_thread_ending() -> bool {
    Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed())
}
