//! How a database is opened.

use std::time::Duration;

/// How a [`Database`](super::Database) is opened.
///
/// | Option | Default |
/// |---|---|
/// | [`readers`](Self::readers) | 4 |
/// | [`max_waiting`](Self::max_waiting) | 1,024 |
/// | [`lock_timeout`](Self::lock_timeout) | 5 s |
/// | [`record_query_text`](Self::record_query_text) | no |
///
/// # Examples
/// ```
/// use throughline_service::sqlite::{Database, Options};
///
/// let db = Database::open_in_memory_with(Options::default().max_waiting(100))?;
/// assert_eq!(db.counters().waiting, 0);
/// # Ok::<(), throughline::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(super) readers: usize,
    pub(super) max_waiting: usize,
    pub(super) lock_timeout: Duration,
    pub(super) records_text: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { readers: 4, max_waiting: 1024, lock_timeout: Duration::from_secs(5), records_text: false }
    }
}

impl Options {
    /// The number of connections that read, besides the one that writes. At least 1.
    ///
    /// Each is opened when it is first needed. A database in memory has one connection for all.
    pub fn readers(mut self, count: usize) -> Self {
        self.readers = count.max(1);
        self
    }

    /// The most callers that wait for a connection. More are refused with `RESOURCE_EXHAUSTED`.
    pub fn max_waiting(mut self, count: usize) -> Self {
        self.max_waiting = count;
        self
    }

    /// How long a statement without a deadline waits while another process locks the database.
    ///
    /// After that time the caller gets `UNAVAILABLE`. A statement whose context has a deadline
    /// waits until the deadline instead.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Whether spans have the text of the statement, as `db.query.text`.
    ///
    /// Literals are replaced by `?`, comments are left out, and the text is cut off at 4 KiB.
    pub fn record_query_text(mut self, is_recorded: bool) -> Self {
        self.records_text = is_recorded;
        self
    }
}
