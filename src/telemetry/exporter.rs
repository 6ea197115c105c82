//! Who takes finished spans out of the process.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use throughline_core::SpanRecord;
use throughline_core::trace::Batch;

/// Takes batches of finished spans somewhere.
///
/// Each exporter has a thread of its own, with a tokio runtime. It is called inside that runtime, with one batch at a time. One that is
/// slow, or blocks its thread, holds up neither the other exporters nor a [`shutdown`](super::TelemetryGuard::shutdown) beyond its
/// limit. A call that blocks can't be stopped by a timeout, though.
///
/// A call that panics loses its batch, counted. The next call is made all the same.
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
    /// Takes one batch, never an empty one.
    ///
    /// It is called again with the same batch after [`ExportError::Unreachable`] and [`ExportError::Unavailable`]. All attempts together
    /// may take the builder's [`export_timeout`](super::Builder::export_timeout); a call that takes longer is dropped.
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a>;

    /// Writes out what the exporter holds back, as in a buffer. Does nothing by default.
    ///
    /// [`force_flush`](super::Telemetry::force_flush) calls it after the batches, and returns its error.
    fn flush(&self) -> ExportFuture<'_> {
        Box::pin(ready(Ok(())))
    }

    /// The last call, after the last batch. Calls [`flush`](Self::flush) by default.
    ///
    /// [`shutdown`](super::TelemetryGuard::shutdown) waits for it and for the drop of the exporter, and returns its error. It is not
    /// called when the limit of the shutdown has passed.
    fn shutdown(&self) -> ExportFuture<'_> {
        self.flush()
    }
}

/// What the calls of an [`Exporter`] return.
pub type ExportFuture<'a> = Pin<Box<dyn Future<Output = Result<(), ExportError>> + Send + 'a>>;

/// Why a batch, or a part of it, did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportError {
    /// None of it has arrived, as far as is known, and another attempt is of no use. The batch is lost.
    Failed {
        /// Where to, and what happened.
        message: Cow<'static, str>,
    },
    /// The receiver has taken the rest. There are no further attempts.
    Rejected {
        /// The number of spans that it refused.
        spans: u64,
        /// Its reason.
        message: Cow<'static, str>,
    },
    /// There is no connection to the receiver. There are further attempts, with growing pauses, but only one during a shutdown.
    Unreachable {
        /// Where to, and what happened.
        message: Cow<'static, str>,
    },
    /// The receiver can't take it now, or did not respond. There are further attempts.
    Unavailable {
        /// Where to, and what happened.
        message: Cow<'static, str>,
        /// The pause that the receiver asks for. Nothing is exported until it is over, and it does not count as time of the batch. It is
        /// cut to 10 minutes. Without one, pauses grow from 0.2 s to 5 s.
        after: Option<Duration>,
    },
}

impl ExportError {
    /// None of it has arrived, and another attempt is of no use.
    pub fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        ExportError::Failed { message: message.into() }
    }

    /// There is no connection to the receiver.
    pub fn unreachable(message: impl Into<Cow<'static, str>>) -> Self {
        ExportError::Unreachable { message: message.into() }
    }

    /// The receiver can't take it now; it may have asked for a pause.
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

/// Keeps all spans in memory, for tests and for the terminal. Clones share them.
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
    /// What has come so far: each batch with the resource that made it.
    pub fn batches(&self) -> Vec<Batch> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of all batches, in the order they ended in.
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
