//! Counts of spans, by what happened to them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a span was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The queue was full, in spans or in bytes.
    ///
    /// Spans end faster than they are exported.
    QueueFull,
    /// The export of its batch failed, and there was no further retry.
    ExportFailed,
    /// The [`export_timeout`](super::Builder::export_timeout) passed before its batch was exported.
    ExportTimeout,
    /// The exporter panicked while it exported the batch.
    ExporterPanicked,
    /// The receiver rejected the span.
    Rejected,
    /// The span was still queued, or being exported, when the limit of the shutdown passed.
    ShutdownTimeout,
    /// The span started or ended after the shutdown.
    AfterShutdown,
}

impl DropReason {
    const ALL: [DropReason; 7] = [
        DropReason::QueueFull,
        DropReason::ExportFailed,
        DropReason::ExportTimeout,
        DropReason::ExporterPanicked,
        DropReason::Rejected,
        DropReason::ShutdownTimeout,
        DropReason::AfterShutdown,
    ];

    /// Returns the reason in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue full",
            DropReason::ExportFailed => "export failed",
            DropReason::ExportTimeout => "export timed out",
            DropReason::ExporterPanicked => "exporter panicked",
            DropReason::Rejected => "rejected by the receiver",
            DropReason::ShutdownTimeout => "not exported in time at shutdown",
            DropReason::AfterShutdown => "after shutdown",
        }
    }
}

/// Counts of spans: emitted, queued, exported and dropped.
///
/// `emitted` = `queued` + `exported` + [`dropped`](Self::dropped) always holds. The counts are read
/// one after the other, so they may be off by a few while spans end. Otherwise they are exact.
///
/// ```
/// use throughline::telemetry::{self, DropReason, MemoryExporter};
///
/// let telemetry = telemetry::builder("cards").exporter(MemoryExporter::default()).build()?;
/// let stats = telemetry.stats();
/// assert_eq!(stats.emitted, stats.queued + stats.exported + stats.dropped());
/// assert_eq!(stats.dropped_because(DropReason::QueueFull), 0);
/// # Ok::<(), throughline::telemetry::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Spans that have ended, and spans that started after the shutdown.
    pub emitted: u64,
    /// Spans that are enqueued or being exported.
    pub queued: u64,
    /// Spans that all exporters have exported.
    pub exported: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Stats {
    /// Returns the number of dropped spans, for all reasons.
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Returns the number of spans dropped for this reason.
    pub fn dropped_because(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Returns each reason for which spans were dropped, with their number.
    pub fn reasons(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.into_iter().zip(self.dropped).filter(|(_, count)| *count > 0)
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} spans exported", self.exported, self.emitted)?;
        self.reasons().try_for_each(|(reason, count)| write!(f, ", {count} lost ({})", reason.as_str()))
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    emitted: AtomicU64,
    exported: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Counters {
    pub(super) fn emitted(&self) {
        self.emitted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn exported(&self, count: u64) {
        self.exported.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, reason: DropReason, count: u64) {
        self.dropped[reason as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Stats {
        // A span is counted as emitted first. `emitted` is read last, so the difference, the queued
        // spans, is never negative.
        let dropped = std::array::from_fn(|reason| self.dropped[reason].load(Ordering::Acquire));
        let exported = self.exported.load(Ordering::Acquire);
        let emitted = self.emitted.load(Ordering::Acquire);
        let gone = exported + dropped.iter().sum::<u64>();
        Stats { emitted, queued: emitted.saturating_sub(gone), exported, dropped }
    }
}
