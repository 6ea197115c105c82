//! The signals that ask the process to end, and a context that they cancel.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use super::{CancelHandle, Cause, Context};

impl Context {
    /// Derives a child that is cancelled when the process is asked to end.
    ///
    /// The cause is [`Cause::Shutdown`]. A server derives the contexts of its requests from it.
    ///
    /// On Unix that is the first SIGINT or SIGTERM. On Windows it is Ctrl-C, Ctrl-Break, closing
    /// the console, or system shutdown. For the last two, Windows ends the process a few seconds
    /// later.
    ///
    /// From this call on the process no longer ends on these signals, even after the handle is
    /// dropped (this is how tokio handles signals). The caller has to end the process. Further
    /// signals do nothing.
    ///
    /// A task on the current runtime watches the signals. When that runtime ends, the child is
    /// cancelled with [`Cause::HandleDropped`].
    ///
    /// Keep the handle. `ctx.on_signal()?.with_timeout(d)` drops it at the end of the statement, so
    /// the context is done from the start with [`Cause::HandleDropped`].
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
        let mut signals = TerminationSignals::new()?;
        let cancelled_by_signal = self.with_cancel();
        let handle = cancelled_by_signal.with_cancel();
        let watched = handle.context().clone();
        tokio::spawn(async move {
            let mut done = pin!(watched.done());
            poll_fn(|cx| {
                if signals.0.poll(cx).is_ready() {
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

/// Receives the signals that ask the process to end.
///
/// On Unix these are SIGINT and SIGTERM. On Windows they are Ctrl-C, Ctrl-Break, closing the
/// console, and system shutdown.
///
/// From [`new`](Self::new) on the process no longer ends on these signals, even after the value is
/// dropped.
///
/// # Examples
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use throughline_core::TerminationSignals;
///
/// let mut signals = TerminationSignals::new()?;
/// let status = signals.recv().await;
/// std::process::exit(status);
/// # }
/// ```
pub struct TerminationSignals(system::Signals);

impl TerminationSignals {
    /// Starts to receive the signals. Earlier signals do not count.
    ///
    /// # Errors
    /// The operating system refuses the signal handler.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn new() -> io::Result<Self> {
        system::Signals::new().map(TerminationSignals)
    }

    /// Waits for a signal, and returns the exit status that is conventional for it.
    ///
    /// On Unix that is 130 for SIGINT and 143 for SIGTERM. On Windows it is
    /// `STATUS_CONTROL_C_EXIT`. Several signals of one kind that arrive before this call count as
    /// one.
    ///
    /// # Cancellation safety
    /// Dropping the future loses no signal.
    pub async fn recv(&mut self) -> i32 {
        poll_fn(|cx| self.0.poll(cx)).await
    }
}

impl fmt::Debug for TerminationSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TerminationSignals")
    }
}

#[cfg(unix)]
mod system {
    use std::io;
    use std::task::{Context as TaskContext, Poll};

    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// The signals that ask a process to end.
    pub(super) struct Signals([(Signal, i32); 2]);

    impl Signals {
        pub(super) fn new() -> io::Result<Self> {
            let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
            let status = |kind: SignalKind| 128 + kind.as_raw_value();
            Ok(Signals([(signal(interrupt)?, status(interrupt)), (signal(terminate)?, status(terminate))]))
        }

        /// Ready with an exit status when a signal was received.
        pub(super) fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<i32> {
            let received =
                self.0.iter_mut().find_map(|(signal, status)| signal.poll_recv(cx).is_ready().then_some(*status));
            received.map_or(Poll::Pending, Poll::Ready)
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

    const STATUS_CONTROL_C_EXIT: i32 = 0xC000_013A_u32 as i32;

    /// The signals that ask a process to end.
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

        /// Ready with an exit status when a signal was received.
        pub(super) fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<i32> {
            let is_received = self.interrupt.poll_recv(cx).is_ready()
                || self.terminate.poll_recv(cx).is_ready()
                || self.close.poll_recv(cx).is_ready()
                || self.shutdown.poll_recv(cx).is_ready();
            if is_received { Poll::Ready(STATUS_CONTROL_C_EXIT) } else { Poll::Pending }
        }
    }
}
