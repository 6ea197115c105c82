//! The exporter trait, its errors, and the exporter for tests.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use throughline_core::SpanRecord;
use throughline_core::trace::Batch;

/// Exports batches of ended spans.
///
/// Each exporter has its own thread with a tokio runtime. Its methods are called inside that
/// runtime, with one batch at a time.
///
/// - An exporter that is slow, or blocks its thread, does not delay the other exporters. It does
///   not delay a [`shutdown`](super::TelemetryGuard::shutdown) beyond the limit of the shutdown.
/// - A timeout can't stop a call that blocks the thread.
/// - If a call panics, its batch is dropped and counted. The next batch is exported as usual.
///
/// # Examples
/// ```
/// use throughline::telemetry::{self, ExportFuture, Exporter};
/// use throughline::trace::Batch;
///
/// struct Count;
///
/// impl Exporter for Count {
///     fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
///         Box::pin(async move {
///             println!("{:?} has {} spans", batch.resource.service_name(), batch.spans.len());
///             Ok(())
///         })
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let telemetry = telemetry::builder("cards").exporter(Count).build()?;
/// telemetry.shutdown(std::time::Duration::from_secs(1)).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Exporter: Send + Sync + 'static {
    /// Exports one batch, which is never empty.
    ///
    /// After `Ok` the spans count as exported. An exporter that keeps them in a buffer writes them
    /// in [`flush`](Self::flush). If that fails, the error is reported, and the counts do not
    /// change.
    ///
    /// After [`ExportError::Unreachable`] and [`ExportError::Unavailable`] it is called again with
    /// the same batch. All attempts together may take the builder's
    /// [`export_timeout`](super::Builder::export_timeout). A call that takes longer is dropped.
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a>;

    /// Writes out the spans that the exporter has buffered. The default does nothing.
    ///
    /// [`force_flush`](super::Telemetry::force_flush) calls it after the batches, and returns its
    /// error.
    fn flush(&self) -> ExportFuture<'_> {
        Box::pin(ready(Ok(())))
    }

    /// Called last, after the last batch. The default calls [`flush`](Self::flush).
    ///
    /// [`shutdown`](super::TelemetryGuard::shutdown) waits for it and for the drop of the exporter,
    /// and returns its error. It is not called when the limit of the shutdown has passed.
    fn shutdown(&self) -> ExportFuture<'_> {
        self.flush()
    }
}

/// The future that the methods of an [`Exporter`] return.
pub type ExportFuture<'a> = Pin<Box<dyn Future<Output = Result<(), ExportError>> + Send + 'a>>;

/// Why a batch, or a part of it, was not exported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportError {
    /// No span was exported, as far as is known, and a retry is useless.
    ///
    /// The batch is dropped.
    Failed {
        /// The destination and the error.
        message: Cow<'static, str>,
    },
    /// The receiver rejected some spans and accepted the rest. There is no retry.
    Rejected {
        /// The number of rejected spans.
        spans: u64,
        /// The receiver's reason.
        message: Cow<'static, str>,
    },
    /// There is no connection to the receiver.
    ///
    /// The batch is retried with growing pauses. During a shutdown it gets one attempt only.
    Unreachable {
        /// The destination and the error.
        message: Cow<'static, str>,
    },
    /// The receiver can't accept the batch now, or did not respond. The batch is retried.
    Unavailable {
        /// The destination and the error.
        message: Cow<'static, str>,
        /// The pause that the receiver requests, at most 10 minutes; a longer one is shortened.
        ///
        /// Nothing is exported during the pause. The pause does not count towards the export
        /// timeout of the batch. Without a requested pause, pauses grow from 0.2 s to 5 s.
        after: Option<Duration>,
    },
}

impl ExportError {
    /// Makes an [`ExportError::Failed`]: a retry is useless.
    pub fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        ExportError::Failed { message: message.into() }
    }

    /// Makes an [`ExportError::Unreachable`]: there is no connection to the receiver.
    pub fn unreachable(message: impl Into<Cow<'static, str>>) -> Self {
        ExportError::Unreachable { message: message.into() }
    }

    /// Makes an [`ExportError::Unavailable`], with the pause that the receiver requests, if any.
    pub fn unavailable(message: impl Into<Cow<'static, str>>, after: Option<Duration>) -> Self {
        ExportError::Unavailable { message: message.into(), after }
    }
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExportError::Failed { message }
            | ExportError::Unreachable { message }
            | ExportError::Unavailable { message, .. } => f.write_str(message),
            ExportError::Rejected { spans, message } => write!(f, "{spans} spans were rejected: {message}"),
        }
    }
}

impl Error for ExportError {}

/// Keeps all spans in memory, for tests and for the terminal.
///
/// Clones share the spans.
///
/// # Examples
/// ```
/// use throughline::telemetry::{self, MemoryExporter};
/// use throughline::Context;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let memory = MemoryExporter::default();
/// let telemetry = telemetry::builder("cards").exporter(memory.clone()).build()?;
/// let ctx = Context::background().with_tracer(telemetry.tracer());
/// ctx.span("reserve").start().end();
/// telemetry.force_flush(std::time::Duration::from_secs(1)).await?;
/// assert_eq!(memory.spans()[0].name, "reserve");
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct MemoryExporter {
    batches: Arc<Mutex<Vec<Batch>>>,
}

impl MemoryExporter {
    /// Returns the batches exported so far, each with its resource.
    pub fn batches(&self) -> Vec<Batch> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the spans of all batches, in the order in which they ended.
    pub fn spans(&self) -> Vec<SpanRecord> {
        self.batches().into_iter().flat_map(|batch| batch.spans).collect()
    }
}

impl Exporter for MemoryExporter {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        Box::pin(async move {
            let batch = batch.clone();
            self.batches.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
            Ok(())
        })
    }
}

impl fmt::Debug for MemoryExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("MemoryExporter").field("batches", &batches).finish()
    }
}
