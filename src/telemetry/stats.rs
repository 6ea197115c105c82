//! Where every span has gone.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a span did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The queue was full, by count or by bytes: spans end faster than they can be exported.
    QueueFull,
    /// The exporter failed to export its batch, and another attempt is of no use.
    ExportFailed,
    /// The [`export_timeout`](super::Builder::export_timeout) passed before its batch was exported.
    ExportTimeout,
    /// The exporter panicked over its batch.
    ExporterPanicked,
    /// The receiver refused it.
    Rejected,
    /// It was still queued, or on its way, when the time for shutting down had passed.
    ShutdownTimeout,
    /// It started or ended after the shutdown.
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

    /// In words.
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

/// Counts of spans: `emitted` = `queued` + `exported` + those dropped, at any time. Read one after the other while spans end, they
/// may be a few apart; at rest they are exact.
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
    /// Spans that have ended, and those refused at their start after the shutdown.
    pub emitted: u64,
    /// Waiting, or on their way.
    pub queued: u64,
    /// Taken by all exporters.
    pub exported: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Stats {
    /// All that did not arrive.
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Those that did not arrive for this reason.
    pub fn dropped_because(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// The reasons for which any did not arrive, with their numbers.
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
        // What is counted last is read first: the difference, what is queued, is never negative.
        let dropped = std::array::from_fn(|reason| self.dropped[reason].load(Ordering::Acquire));
        let exported = self.exported.load(Ordering::Acquire);
        let emitted = self.emitted.load(Ordering::Acquire);
        let gone = exported + dropped.iter().sum::<u64>();
        Stats { emitted, queued: emitted.saturating_sub(gone), exported, dropped }
    }
}
