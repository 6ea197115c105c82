//! The end of a process: no request is cut off, and no span is lost.

mod report;
#[cfg(all(feature = "signal", any(unix, windows)))]
mod signal;
mod state;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use throughline_core::{Cause, Context, ContextError, DoneOwned, Lifecycle, Work};
use tokio::task::JoinHandle;

use crate::telemetry::TelemetryGuard;

use state::{Deadlines, Inner, Limits};

pub use report::{Drained, ShutdownReport};

/// Ends a process without cutting off its requests, its background work or its spans.
///
/// Make one in `main`, by `on_signal` or [`new`](Self::new). A clone costs one reference count.
///
/// # When each thing happens
///
/// | When | What |
/// |---|---|
/// | SIGINT, SIGTERM or [`request`] | [`requested`] is ready: servers stop accepting |
/// | no request and no task runs any more | the contexts are cancelled; the flush starts |
/// | the grace has passed | requests in flight are cancelled: a retryable 503, `UNAVAILABLE` |
/// | then the [`background_limit`] has passed | background work is cancelled; [`serve`] returns |
/// | at most 100 ms later | the telemetry is flushed, for at most the [`flush_limit`] |
/// | a second signal, at any time | the process ends at once |
///
/// Requests in flight go on until the grace has passed. The cause of all cancellations is
/// [`Cause::Shutdown`]. The second signal's status is 130 for SIGINT, 143 for SIGTERM, and
/// `STATUS_CONTROL_C_EXIT` on Windows.
///
/// [`request`]: Self::request
/// [`requested`]: Self::requested
/// [`background_limit`]: Self::background_limit
/// [`serve`]: Self::serve
/// [`flush_limit`]: Self::flush_limit
///
/// So the process ends at most grace + `background_limit` + 100 ms + `flush_limit` after the
/// signal, and as soon as its work has ended.
///
/// # What counts as what
///
/// | Work | Kind |
/// |---|---|
/// | a request of a [`ContextLayer`](crate::ContextLayer), until its body has ended | request |
/// | a message that a consumer of `throughline-transport` handles | request |
/// | a task of [`Context::spawn`] or a [`Group`](crate::Group) on such a context | ends with its request; waited for |
/// | [`Shutdown::spawn`](Self::spawn), and tasks on [`detach`](Context::detach)ed contexts | background work |
/// | `tokio::spawn` | not known: neither waited for nor cancelled |
///
/// All of this holds below [`context`](Self::context). Requests without a layer with this base are
/// not known.
///
/// # What it does not do
/// - It does not stop blocking work, such as a `spawn_blocking` that never returns. The report
///   counts it as still running. A tokio runtime waits for such work when it is dropped, so end
///   `main` with [`std::process::exit`] if there may be some.
/// - It does not delay the end of accepting. A load balancer that still sends requests after the
///   signal needs a pause before the signal, such as a `preStop` hook.
///
/// # Examples
/// With axum. A signal takes the place of `request` in a service:
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use throughline::telemetry::{self, MemoryExporter};
/// use throughline::{ContextLayer, Shutdown};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let telemetry = telemetry::builder("cards").exporter(MemoryExporter::default()).build()?;
/// let shutdown = Shutdown::new(Duration::from_secs(20));
///
/// let app = Router::new().route("/", get(|| async { "seven" }));
/// let app = app.layer(ContextLayer::internal().base(shutdown.context()));
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.requested());
/// # shutdown.request();
/// shutdown.serve(server).await?;
/// let report = shutdown.finish(telemetry).await;
/// assert!(report.is_clean(), "{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// With tonic:
/// ```
/// # use std::time::Duration;
/// # use throughline::{ContextLayer, Shutdown};
/// use tonic::transport::server::{Router, Server, TcpIncoming};
///
/// # async fn serve(shutdown: Shutdown, routes: tonic::service::Routes) -> Result<(), Box<dyn std::error::Error>> {
/// let layer = ContextLayer::internal().base(shutdown.context());
/// let server = Server::builder().layer(layer).add_routes(routes);
/// shutdown.serve(server.serve_with_shutdown("0.0.0.0:50051".parse()?, shutdown.requested())).await?;
/// # Ok(()) }
/// ```
/// With hyper-util, which has a graceful shutdown for each connection:
/// ```
/// # use std::time::Duration;
/// # use throughline::{ContextLayer, Shutdown};
/// use hyper_util::rt::{TokioExecutor, TokioIo};
/// use hyper_util::server::{conn::auto::Builder, graceful::GracefulShutdown};
/// use hyper_util::service::TowerToHyperService;
///
/// # async fn serve(shutdown: Shutdown, listener: tokio::net::TcpListener, app: axum::Router) -> std::io::Result<()> {
/// let app = app.layer(ContextLayer::internal().base(shutdown.context()));
/// let server = async {
///     let (connections, builder) = (GracefulShutdown::new(), Builder::new(TokioExecutor::new()));
///     let mut requested = std::pin::pin!(shutdown.requested());
///     loop {
///         let stream = tokio::select! {
///             accepted = listener.accept() => accepted?.0,
///             () = &mut requested => break,
///         };
///         let service = TowerToHyperService::new(app.clone());
///         let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
///         let connection = connections.watch(connection.into_owned());
///         tokio::spawn(async move { connection.await.ok() });
///     }
///     drop(listener);
///     connections.shutdown().await;
///     Ok(())
/// };
/// shutdown.serve(server).await
/// # }
/// ```
#[derive(Clone)]
pub struct Shutdown(Arc<Inner>);

/// The time for cancelled work to be dropped.
const UNWIND: Duration = Duration::from_millis(100);

impl Shutdown {
    /// The default of [`background_limit`](Self::background_limit): 1 s.
    pub const BACKGROUND_LIMIT: Duration = Duration::from_secs(1);
    /// The default of [`flush_limit`](Self::flush_limit): 5 s.
    pub const FLUSH_LIMIT: Duration = Duration::from_secs(5);

    /// Makes a shutdown that starts with [`request`](Self::request), not with a signal.
    ///
    /// Requests in flight get the time `grace` to end. A grace that is longer than an `Instant` can
    /// express has no end.
    pub fn new(grace: Duration) -> Self {
        let lifecycle = Lifecycle::new();
        let base = Context::background().with_lifecycle(&lifecycle).with_cancel();
        let requested = Context::background().with_cancel();
        let limits = Mutex::new(Limits { background: Self::BACKGROUND_LIMIT, flush: Self::FLUSH_LIMIT });
        Shutdown(Arc::new(Inner {
            grace,
            limits,
            lifecycle,
            requested,
            base,
            deadlines: OnceLock::new(),
            timers: OnceLock::new(),
            cancelled: OnceLock::new(),
            cancelled_background: OnceLock::new(),
        }))
    }

    /// Sets how long background work may run after the grace. Default: 1 s.
    ///
    /// Background work may also run during the grace. Set it before the shutdown starts: later it
    /// has no effect.
    pub fn background_limit(self, limit: Duration) -> Self {
        self.0.limits().background = limit;
        self
    }

    /// Sets how long the last flush of the telemetry may take. Default: 5 s.
    ///
    /// The flush of a healthy collector takes a few milliseconds. One that refuses connections ends
    /// it at once.
    pub fn flush_limit(self, limit: Duration) -> Self {
        self.0.limits().flush = limit;
        self
    }

    /// Returns the context of the process: the base of layers and consumers.
    ///
    /// It is cancelled with [`Cause::Shutdown`] when the grace has passed, or earlier when
    /// [`drain`](Self::drain) finds that no work runs.
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline::{ContextLayer, Shutdown};
    ///
    /// let shutdown = Shutdown::new(Duration::from_secs(20));
    /// let layer = ContextLayer::edge().base(shutdown.context());
    /// # let _ = layer;
    /// assert!(!shutdown.context().is_done());
    /// ```
    pub fn context(&self) -> &Context {
        self.0.base.context()
    }

    /// Returns a future that is ready once the shutdown has started.
    ///
    /// Pass it to the graceful shutdown of a server, or select on it in a loop that runs in the
    /// background.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use throughline::Shutdown;
    ///
    /// let shutdown = Shutdown::new(Duration::from_secs(20));
    /// let requested = shutdown.requested();
    /// shutdown.spawn(async move {
    ///     let mut tick = tokio::time::interval(Duration::from_secs(60));
    ///     let work = async { loop { tick.tick().await; } };
    ///     tokio::select! { () = work => {}, () = requested => {} }
    /// });
    /// assert!(shutdown.drain().await.is_clean());
    /// # });
    /// ```
    pub fn requested(&self) -> DoneOwned {
        self.0.requested.done_owned()
    }

    /// Starts the shutdown, as the first signal does. Later calls do nothing.
    ///
    /// It does not wait. It may be called from any thread, and outside a runtime.
    pub fn request(&self) {
        let mut is_first = false;
        let deadlines = self.0.deadlines.get_or_init(|| {
            is_first = true;
            let background = self.0.grace.saturating_add(self.0.limits().background);
            let after = |time| Context::background().with_timeout(time);
            Deadlines { grace: after(self.0.grace), background: after(background) }
        });
        if !is_first {
            return;
        }
        let (at_grace, at_limit) = (Arc::clone(&self.0), Arc::clone(&self.0));
        self.0.timers.get_or_init(|| {
            let at_grace = deadlines.grace.after_func(move || at_grace.cancel());
            let at_limit = deadlines.background.after_func(move || at_limit.cancel_background());
            [at_grace, at_limit]
        });
        self.0.requested.cancel_with(Cause::Shutdown);
    }

    /// Spawns background work, which the shutdown waits for.
    ///
    /// It is the same as [`detach`](Context::detach) and [`spawn`](Context::spawn) on
    /// [`context`](Self::context). The work may run for the grace and the
    /// [`background_limit`](Self::background_limit) after the signal. Then it is dropped at its
    /// next await, and the handle yields the error.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Examples
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use throughline::Shutdown;
    ///
    /// let shutdown = Shutdown::new(Duration::from_secs(20));
    /// let written = shutdown.spawn(async { tokio::task::yield_now().await; "written" });
    /// assert!(shutdown.drain().await.is_clean());
    /// assert_eq!(written.await.unwrap(), Ok("written"));
    /// # });
    /// ```
    pub fn spawn<F>(&self, future: F) -> JoinHandle<Result<F::Output, ContextError>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.context().detach().spawn(future)
    }

    /// Waits for a server that ends gracefully, but not longer than the shutdown allows.
    ///
    /// A graceful shutdown of a server has no limit: a client that does not read its response, or
    /// sends half a request, holds it up. When the [`background_limit`](Self::background_limit) has
    /// passed, this drops the server and returns `Ok`. It does not start the shutdown, also not if
    /// the server fails.
    ///
    /// # Errors
    /// The server's own error.
    ///
    /// # Cancellation safety
    /// Dropping the future drops the server.
    pub async fn serve<E>(&self, server: impl IntoFuture<Output = Result<(), E>>) -> Result<(), E> {
        let limit = async {
            self.0.requested.done().await;
            self.0.deadlines().background.done().await;
        };
        let (server, limit) = (pin!(server.into_future()), pin!(limit));
        tokio::select! {
            biased;
            result = server => result,
            () = limit => Ok(()),
        }
    }

    /// Starts the shutdown, and waits for the requests, the tasks and the background work.
    ///
    /// [`finish`](Self::finish) calls it. Call it alone if there is no telemetry, or several. Call
    /// it when the servers have ended: it does not wait for requests that have not started yet.
    ///
    /// When it returns, [`context`](Self::context) and all contexts below it are done.
    ///
    /// # Cancellation safety
    /// It may be dropped and called again. The shutdown goes on.
    pub async fn drain(&self) -> Drained {
        self.request();
        let (inner, deadlines) = (&*self.0, self.0.deadlines());
        let _ = deadlines.grace.run(inner.lifecycle.idle()).await;
        inner.cancel();
        let _ = deadlines.background.run(inner.lifecycle.idle()).await;
        inner.cancel_background();
        for timer in inner.timers.get().into_iter().flatten() {
            timer.stop();
        }
        let _ = Context::background().with_timeout(UNWIND).run(inner.lifecycle.idle()).await;
        let (requests, tasks) = inner.cancelled.get().copied().unwrap_or_default();
        let background = inner.cancelled_background.get().copied().unwrap_or_default();
        let running = [Work::Request, Work::Task, Work::DetachedTask].map(|work| inner.lifecycle.count(work));
        Drained {
            requests_cancelled: requests,
            tasks_cancelled: tasks + background,
            still_running: running.iter().sum(),
        }
    }

    /// Ends the process's work, then flushes its telemetry, and reports both.
    ///
    /// It [drains](Self::drain) first. The flush is the last step, so the spans of all this work
    /// are exported.
    ///
    /// # Cancellation safety
    /// If the future is dropped, so is the telemetry, which then blocks the thread for up to 2 s.
    pub async fn finish(self, telemetry: TelemetryGuard) -> ShutdownReport {
        let work = self.drain().await;
        let limit = self.0.limits().flush;
        let exported = (*telemetry).clone();
        let flush_error = telemetry.shutdown(limit).await.err();
        ShutdownReport { work, stats: exported.stats(), flush_error }
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("grace", &self.0.grace)
            .field("is_requested", &self.0.requested.is_done())
            .field("running", &self.0.lifecycle)
            .finish()
    }
}
