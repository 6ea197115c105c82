//! Callbacks for when a context is done.

mod aside;

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use aside::run_on_own_thread;
use tokio::runtime::Handle;

use super::shield::shielded;
use super::timer::Alarm;
use super::tree::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use super::{Context, DoneOwned, clock};

type Callback = Box<dyn FnOnce() + Send>;

impl Context {
    /// Calls `f` once, when the context is done, by a cancellation or its deadline; at once if it is. Nobody else has to wait for it.
    ///
    /// It runs where it may block: on the blocking pool of the runtime that this was called in. Where that pool is busy for 50 ms, the
    /// runtime has ended, or there is none, it runs on a thread of this library, with the runtime entered if there was one. It never runs
    /// on the stack of the caller of [`cancel`](super::CancelHandle::cancel), which does not wait for it. A panic in it ends nothing
    /// else, and a callback that blocks holds up no other one for more than 100 ms. Several registrations on one context are independent.
    ///
    /// Dropping what this returns changes nothing. [`stop`](AfterFunc::stop) takes the callback back. Until then it keeps the context:
    /// one that is never done, because its handle was disarmed, stays. On a context that can never be done nothing is kept.
    ///
    /// # Examples
    /// ```
    /// use std::sync::mpsc;
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().with_cancel();
    /// let (sender, receiver) = mpsc::channel();
    /// request.after_func(move || sender.send("stopped").expect("somebody waits"));
    /// request.cancel();
    /// assert_eq!(receiver.recv(), Ok("stopped"));
    /// ```
    pub fn after_func(&self, f: impl FnOnce() + Send + 'static) -> AfterFunc {
        let hook = Hook::watch(self, Box::new(f), RunOn::Pool(Handle::try_current().ok()));
        AfterFunc { hook }
    }
}

/// A callback that waits for its context: made by [`Context::after_func`]. Dropping it leaves the callback in place.
pub struct AfterFunc {
    hook: Arc<Hook>,
}

impl AfterFunc {
    /// Takes the callback back: `true` exactly when this call has prevented it. It does not wait for one that is running.
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

/// Calls `f` on the stack of whoever ends `ctx`, so it is code of ours, and short.
#[cfg(feature = "tokio-util")]
pub(super) fn call_when_done(ctx: &Context, f: impl FnOnce() + Send + 'static) -> AfterFunc {
    AfterFunc { hook: Hook::watch(ctx, Box::new(f), RunOn::Canceller) }
}

/// Where a callback runs.
enum RunOn {
    /// On the blocking pool of that runtime, or on a thread of the process's own.
    Pool(Option<Handle>),
    /// Where the context is ended.
    #[cfg(feature = "tokio-util")]
    Canceller,
}

/// It waits as a task would, and is the waker of that task. The waiting keeps it alive (a waker is a count), until it fires or is
/// stopped.
struct Hook {
    f: Mutex<Option<Callback>>,
    /// Taken out while it is polled or dropped: neither happens under the lock.
    done: Mutex<Option<Pin<Box<DoneOwned>>>>,
    /// How many times it was woken since the waiting was last seen pending. Who makes it 1 looks, also for those who come then.
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

    /// Polls the waiting; runs the callback if it is over.
    fn on_wake(self: &Arc<Self>) {
        if self.wakes.fetch_add(1, Ordering::AcqRel) != 0 {
            return;
        }
        if is_thread_ending() {
            // Here is no runtime to be entered, nor a virtual clock to be read.
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
                // This may be the last of the context, and a destructor of its values may panic.
                return shielded(|| drop(done));
            }
            *lock(&self.done) = Some(done);
            if lock(&self.f).is_none() {
                // Stopped in between, when there was nothing to release.
                return self.release();
            }
            if self.wakes.fetch_sub(seen, Ordering::AcqRel) == seen {
                return;
            }
        }
    }

    fn poll(self: &Arc<Self>, done: Pin<&mut DoneOwned>) -> Poll<()> {
        let waker = Waker::from(Arc::clone(self));
        // The runtime's clock may be a virtual one.
        let _runtime = match &self.run_on {
            RunOn::Pool(runtime) => runtime.as_ref().map(Handle::enter),
            #[cfg(feature = "tokio-util")]
            RunOn::Canceller => None,
        };
        done.poll(&mut TaskContext::from_waker(&waker))
    }

    fn fire(&self) {
        let Some(f) = lock(&self.f).take() else { return };
        match &self.run_on {
            RunOn::Pool(Some(runtime)) => Job::start(f, runtime),
            RunOn::Pool(None) => run_on_own_thread(f),
            #[cfg(feature = "tokio-util")]
            RunOn::Canceller => f(),
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

/// A callback on its way. Whichever takes it first runs it: the runtime's pool, or a thread of the process's own.
struct Job {
    f: Mutex<Option<Callback>>,
    runtime: Handle,
    /// Wakes the job when it has waited for the runtime's pool for too long. Real time: it is threads that are missing.
    alarm: Mutex<Option<Alarm>>,
}

/// How long a callback waits for a thread of its runtime's pool.
const PATIENCE: Duration = Duration::from_millis(50);
/// Longer on a virtual clock: it stands still only while the callback is in that pool.
const PATIENCE_VIRTUAL: Duration = Duration::from_millis(500);

impl Job {
    fn start(f: Callback, runtime: &Handle) {
        let job = Arc::new(Job { f: Mutex::new(Some(f)), runtime: runtime.clone(), alarm: Mutex::new(None) });
        let queued = Queued(Arc::clone(&job));
        // It panics where no thread can be started.
        let pool = || drop(runtime.spawn_blocking(move || queued.0.run()));
        if catch_unwind(AssertUnwindSafe(pool)).is_err() {
            return job.wake();
        }
        let waker = Waker::from(Arc::clone(&job));
        shielded(|| {
            let entered = runtime.enter();
            let (_, is_virtual) = clock::now_and_kind();
            drop(entered);
            let patience = if is_virtual { PATIENCE_VIRTUAL } else { PATIENCE };
            let alarm = Alarm::new(Instant::now() + patience, false, &mut TaskContext::from_waker(&waker));
            *lock(&job.alarm) = Some(alarm);
        });
        if lock(&job.f).is_none() {
            // It was taken before the alarm could be found.
            job.disarm();
        }
    }

    /// Runs the callback, unless it was taken.
    fn run(&self) {
        let taken = lock(&self.f).take();
        self.disarm();
        if let Some(f) = taken {
            let _entered = self.runtime.enter();
            shielded(f);
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

/// In the queue of the runtime's pool. A runtime that has ended drops it, which takes the callback to the process's own threads.
struct Queued(Arc<Job>);

impl Drop for Queued {
    fn drop(&mut self) {
        Arc::clone(&self.0).wake();
    }
}

/// Whether this thread has given up what tokio keeps of it.
fn is_thread_ending() -> bool {
    Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
