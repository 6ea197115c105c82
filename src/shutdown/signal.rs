use std::io;
use std::thread;
use std::time::Duration;

use throughline_core::TerminationSignals;
use tokio::runtime::Builder;

use super::Shutdown;

impl Shutdown {
    /// Makes a shutdown that starts with the first signal that asks the process to end.
    ///
    /// The signals are SIGINT and SIGTERM. On Windows they are Ctrl-C, Ctrl-Break, closing the
    /// console, and system shutdown. Requests in flight get the time `grace` to end. A second
    /// signal ends the process at once.
    ///
    /// A thread watches the signals. So the second signal ends the process also if all threads of
    /// the runtime are blocked. The thread lives as long as the process. Make one value per
    /// process.
    ///
    /// # Errors
    /// The operating system refuses the signal handler or the thread.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use throughline::Shutdown;
    ///
    /// let shutdown = Shutdown::on_signal(Duration::from_secs(20))?;
    /// assert!(!shutdown.context().is_done());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
    pub fn on_signal(grace: Duration) -> io::Result<Shutdown> {
        let shutdown = Shutdown::new(grace);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut signals = {
            let _entered = runtime.enter();
            TerminationSignals::new()?
        };
        let on_first = shutdown.clone();
        thread::Builder::new().name("throughline-signal".into()).spawn(move || {
            runtime.block_on(async {
                signals.recv().await;
                on_first.request();
                drop(on_first);
                let status = signals.recv().await;
                std::process::exit(status);
            });
        })?;
        Ok(shutdown)
    }
}
