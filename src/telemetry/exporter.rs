//! Who takes finished spans out of the process.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use throughline_core::SpanRecord;
use throughline_core::trace::Batch;

/// Takes batches of finished spans somewhere.
///
/// It is called on the export thread, inside that thread's tokio runtime, with one batch at a time. A call that panics loses that batch,
/// counted; the next one is made all the same. A call that takes longer than the builder's
/// [`export_timeout`](super::Builder::export_timeout) is dropped. It must not block that thread: no timeout, and no limit of a shutdown,
/// reaches a call that does.
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
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a>;
}

/// What [`Exporter::export`] returns.
pub type ExportFuture<'a> = Pin<Box<dyn Future<Output = Result<(), ExportError>> + Send + 'a>>;

/// Why a batch, or a part of it, did not arrive. There are no further attempts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ExportError {
    /// None of it has arrived, as far as is known.
    Failed {
        /// Where to, and what happened.
        message: Cow<'static, str>,
    },
    /// The receiver has taken the rest.
    Rejected {
        /// The number of spans that it refused.
        spans: u64,
        /// Its reason.
        message: Cow<'static, str>,
    },
}

impl ExportError {
    /// None of it has arrived.
    pub fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        ExportError::Failed { message: message.into() }
    }
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExportError::Failed { message } => f.write_str(message),
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
