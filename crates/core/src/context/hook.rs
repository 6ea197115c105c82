//! Callbacks for when a context is done.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, PoisonError, mpsc};
use std::task::{Context as TaskContext, Poll, Wake, Waker};

use tokio::runtime::Handle;

use super::shield::shielded;
use super::tree::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use super::{Context, DoneOwned};

type Callback = Box<dyn FnOnce() + Send>;

impl Context {
    /// Calls `f` once, when the context is done, by a cancellation or its deadline; at once if it is. Nobody else has to wait for it.
    ///
    /// It runs where it may block: on the blocking pool of the runtime that this was called in, or on one thread for all where there
    /// is no runtime or it has ended; never on the stack of who cancels, and [`cancel`](super::CancelHandle::cancel) does not wait for it.
    /// A panic in it ends nothing else. Several registrations on one context are independent of each other.
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
        let hook = Hook::watch(self, Box::new(f), Place::Aside(Handle::try_current().ok()));
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
            self.hook.forget();
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
    AfterFunc { hook: Hook::watch(ctx, Box::new(f), Place::Here) }
}

/// Where a callback runs.
enum Place {
    /// On the blocking pool of that runtime, or on the hook thread.
    Aside(Option<Handle>),
    /// Where the context is ended.
    #[cfg(feature = "tokio-util")]
    Here,
}

/// It waits as a task would, and is the waker of that task. The waiting keeps it alive (a waker is a count), until it fires or is
/// stopped.
struct Hook {
    f: Mutex<Option<Callback>>,
    /// Taken out while it is polled or dropped: neither happens under the lock.
    done: Mutex<Option<Pin<Box<DoneOwned>>>>,
    /// How many times it was woken since the waiting was last seen pending. Who makes it 1 looks, also for those who come then.
    wakes: AtomicUsize,
    place: Place,
}

impl Hook {
    fn watch(ctx: &Context, f: Callback, place: Place) -> Arc<Hook> {
        let done = ctx.can_be_done().then(|| Box::pin(ctx.done_owned()));
        let (f, done) = (Mutex::new(Some(f)), Mutex::new(done));
        let hook = Arc::new(Hook { f, done, wakes: AtomicUsize::new(0), place });
        hook.look();
        hook
    }

    /// Polls the waiting; runs the callback if it is over.
    fn look(self: &Arc<Self>) {
        if self.wakes.fetch_add(1, Ordering::AcqRel) != 0 {
            return;
        }
        loop {
            let seen = self.wakes.load(Ordering::Acquire);
            let Some(mut done) = lock(&self.done).take() else { return };
            if self.poll(done.as_mut()).is_ready() {
                drop(done);
                return self.fire();
            }
            *lock(&self.done) = Some(done);
            if lock(&self.f).is_none() {
                // Stopped in between, when there was nothing to forget.
                return self.forget();
            }
            if self.wakes.fetch_sub(seen, Ordering::AcqRel) == seen {
                return;
            }
        }
    }

    fn poll(self: &Arc<Self>, done: Pin<&mut DoneOwned>) -> Poll<()> {
        let waker = Waker::from(Arc::clone(self));
        // The runtime's clock may be a virtual one.
        let _runtime = match &self.place {
            Place::Aside(runtime) => runtime.as_ref().map(Handle::enter),
            #[cfg(feature = "tokio-util")]
            Place::Here => None,
        };
        done.poll(&mut TaskContext::from_waker(&waker))
    }

    fn fire(&self) {
        let Some(f) = lock(&self.f).take() else { return };
        match &self.place {
            // A runtime that has ended drops the job uncalled, which takes it to the hook thread.
            Place::Aside(Some(runtime)) => {
                let job = Job(Some(f));
                drop(runtime.spawn_blocking(move || job.run()));
            }
            Place::Aside(None) => drop(Job(Some(f))),
            #[cfg(feature = "tokio-util")]
            Place::Here => f(),
        }
    }

    fn forget(&self) {
        let done = lock(&self.done).take();
        drop(done);
    }
}

impl Wake for Hook {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

/// A callback on its way: dropped before its turn, it runs on the hook thread.
struct Job(Option<Callback>);

impl Job {
    fn run(mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let Some(f) = self.0.take() else { return };
        // The thread never ends, so its channel never closes.
        let _ = hook_thread().send(f);
    }
}

fn hook_thread() -> &'static mpsc::Sender<Callback> {
    static THREAD: OnceLock<mpsc::Sender<Callback>> = OnceLock::new();
    THREAD.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Callback>();
        let run = move || receiver.into_iter().for_each(shielded);
        let spawned = std::thread::Builder::new().name("throughline-hooks".into()).spawn(run);
        spawned.expect("a process that can't start a thread can't run a callback off its own stack");
        sender
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
