//! The rules of `Context`. Each test is named after the number of its rule.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use throughline_core::{Cause, Context, ContextError};

mod blocking;
mod cancel;
mod causes;
mod clocks;
mod construct;
mod debug;
mod depth;
mod done_first;
mod group_errors;
mod group_limits;
mod group_stages;
mod groups;
mod hooks;
mod identity;
#[cfg(feature = "tokio-util")]
mod interop;
mod lifecycle;
mod random;
mod registrations;
mod run;
mod scopes;
mod shield;
mod spawns;
mod stress;
mod try_join;
mod user_code;
mod values;
mod virtual_clock;
mod wait;

const SECOND: Duration = Duration::from_secs(1);

/// An error with a name, so that tests can recognize it as a cause.
#[derive(Clone, Debug, PartialEq)]
struct Named(&'static str);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Named {}

/// Error and cause in short form, for example `C/P`, `D/slow` or `-/-`.
fn verdict(ctx: &Context) -> String {
    let err = match ctx.err() {
        None => "-",
        Some(ContextError::Canceled) => "C",
        Some(ContextError::DeadlineExceeded) => "D",
    };
    format!("{err}/{}", named(ctx.cause()))
}

fn named(cause: Option<Cause>) -> String {
    match cause {
        None => "-".into(),
        Some(Cause::Canceled) => "C".into(),
        Some(Cause::DeadlineExceeded) => "D".into(),
        Some(Cause::Error(error)) => error.to_string(),
        Some(other) => other.name().into(),
    }
}

/// A waker that counts its wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn new() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (wakes.clone(), wakes.into())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Reports its drop to the receiver that it was made with.
struct ReportsDrop(Sender<()>);

impl ReportsDrop {
    fn new() -> (ReportsDrop, Receiver<()>) {
        let (sender, dropped) = channel();
        (ReportsDrop(sender), dropped)
    }
}

impl Drop for ReportsDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// A waker that counts and then panics.
struct PanickingWaker(Arc<Wakes>);

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        self.0.clone().wake();
        panic!("a waker that panics");
    }
}

fn poll_with<F: Future>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut TaskContext::from_waker(waker))
}

/// Polls once, with a waker that does nothing.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

/// Whether a new `done()` is ready on its first poll.
fn is_ready(ctx: &Context) -> bool {
    poll_once(pin!(ctx.done())).is_ready()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, without a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match poll_with(future.as_mut(), &waker) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
