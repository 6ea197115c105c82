//! Contexts that end when the process is asked to.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use super::{CancelHandle, Cause, Context};

impl Context {
    /// A child that is cancelled with [`Cause::Shutdown`] when the process is asked to end: what a server's requests stand on.
    ///
    /// On Unix that is the first SIGINT or SIGTERM. On Windows it is Ctrl-C, Ctrl-Break, the closing of the console, or the shutdown of
    /// the system; of the last two Windows ends the process by itself a few seconds later.
    ///
    /// From this call on the process no longer ends on these signals, also after the handle is dropped (tokio's rule): the caller ends
    /// the process. Further signals do nothing. The signals are watched by a task on the current runtime; when that runtime ends the
    /// child is cancelled with [`Cause::HandleDropped`].
    ///
    /// Keep the handle. `ctx.on_signal()?.with_timeout(d)` drops it at the end of the statement, and so the context is cancelled at
    /// birth, with [`Cause::HandleDropped`] as well.
    ///
    /// # Errors
    /// The operating system refuses the signal handler.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use throughline_core::Context;
    ///
    /// let base = Context::background().on_signal()?;
    /// assert!(!base.is_done());
    /// # Ok(()) }
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
    pub fn on_signal(&self) -> io::Result<CancelHandle> {
        let mut signals = system::Signals::new()?;
        let cancelled_by_signal = self.with_cancel();
        let handle = cancelled_by_signal.with_cancel();
        let watched = handle.context().clone();
        tokio::spawn(async move {
            let mut done = pin!(watched.done());
            poll_fn(|cx| {
                if signals.poll(cx).is_ready() {
                    cancelled_by_signal.cancel_with(Cause::Shutdown);
                    return Poll::Ready(());
                }
                done.as_mut().poll(cx)
            })
            .await;
        });
        Ok(handle)
    }
}

#[cfg(unix)]
mod system {
    use std::io;
    use std::task::{Context as TaskContext, Poll};

    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// The signals by which a process is asked to end.
    pub(super) struct Signals([Signal; 2]);

    impl Signals {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Signals([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
        }

        /// Ready when one has come.
        pub(super) fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
            let has_come = self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if has_come { Poll::Ready(()) } else { Poll::Pending }
        }
    }
}

#[cfg(windows)]
mod system {
    use std::io;
    use std::task::{Context as TaskContext, Poll};

    use tokio::signal::windows::{
        CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
    };

    /// The signals by which a process is asked to end.
    pub(super) struct Signals {
        interrupt: CtrlC,
        terminate: CtrlBreak,
        close: CtrlClose,
        shutdown: CtrlShutdown,
    }

    impl Signals {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Signals {
                interrupt: ctrl_c()?,
                terminate: ctrl_break()?,
                close: ctrl_close()?,
                shutdown: ctrl_shutdown()?,
            })
        }

        /// Ready when one has come.
        pub(super) fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
            let has_come = self.interrupt.poll_recv(cx).is_ready()
                || self.terminate.poll_recv(cx).is_ready()
                || self.close.poll_recv(cx).is_ready()
                || self.shutdown.poll_recv(cx).is_ready();
            if has_come { Poll::Ready(()) } else { Poll::Pending }
        }
    }
}
