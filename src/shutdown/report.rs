use std::fmt;

use crate::telemetry::{FlushError, Stats};

/// The result of [`Shutdown::drain`](super::Shutdown::drain).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Requests and messages that were still handled when the grace had passed.
    pub requests_cancelled: usize,
    /// Tasks that were cancelled: those of requests when the grace had passed, and background work.
    pub tasks_cancelled: usize,
    /// Work that had not ended at the end: it did not stop within 100 ms after it was cancelled.
    pub still_running: usize,
}

impl Drained {
    /// Returns whether all work ended by itself.
    pub fn is_clean(&self) -> bool {
        *self == Drained::default()
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Drained { requests_cancelled, tasks_cancelled, still_running } = self;
        let (requests, tasks) = (plural(*requests_cancelled), plural(*tasks_cancelled));
        write!(f, "{requests_cancelled} request{requests} and {tasks_cancelled} task{tasks} cancelled")?;
        if *still_running > 0 {
            write!(f, ", {still_running} still running")?;
        }
        Ok(())
    }
}

/// The result of [`Shutdown::finish`](super::Shutdown::finish). It is displayed as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The requests, tasks and background work.
    pub work: Drained,
    /// All counts of the telemetry, at the end.
    pub stats: Stats,
    /// The error of the last flush.
    pub flush_error: Option<FlushError>,
}

impl ShutdownReport {
    /// Returns whether all work ended by itself, and the last flush exported all spans.
    ///
    /// Spans that were dropped before the shutdown do not count.
    pub fn is_clean(&self) -> bool {
        self.work.is_clean() && self.flush_error.is_none()
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shutdown: {}; ", self.work)?;
        match &self.flush_error {
            Some(error) => error.fmt(f),
            None => self.stats.fmt(f),
        }
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
