//! What stops the statements of a connection when their context is done.
//!
//! SQLite calls three handlers on the thread that runs the statement:
//! - The *progress handler*, every [`STEPS`] steps of its virtual machine: it stops a statement
//!   that runs.
//! - The *busy handler*, while another connection locks the database: it waits for the lock or for
//!   the context, whichever comes first.
//! - The *trace*, when a statement begins, returns a row or ends: it stops a statement that is
//!   about to begin, and reports to the spans.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use throughline::Context;

use super::spans::Spans;

/// The steps of SQLite's virtual machine between two looks at the context.
///
/// Measured with SQLite 3.40, 1,000 steps take 50 to 100 µs in a scan, and 400 µs in a sort.
const STEPS: i32 = 1000;
/// The longest pause between two attempts to get a lock.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) interrupted: AtomicU64,
    pub(super) lock_waits: AtomicU64,
}

pub(super) struct Watch {
    pub(super) ctx: Context,
    pub(super) spans: Spans,
    lock_timeout: Duration,
    counts: Arc<Counts>,
    /// Statements run to their end: a commit or a rollback.
    is_protected: AtomicBool,
}

impl Watch {
    pub(super) fn new(ctx: Context, spans: Spans, lock_timeout: Duration, counts: Arc<Counts>) -> Arc<Watch> {
        Arc::new(Watch { ctx, spans, lock_timeout, counts, is_protected: AtomicBool::new(false) })
    }

    /// From now on statements are not interrupted.
    pub(super) fn protect(&self) {
        self.is_protected.store(true, Ordering::Relaxed);
    }

    fn must_stop(&self) -> bool {
        !self.is_protected.load(Ordering::Relaxed) && self.ctx.is_done()
    }

    /// Installs the handlers. They replace what the code on the connection has installed before.
    pub(super) fn install(self: &Arc<Self>, connection: &mut Connection) -> rusqlite::Result<()> {
        let (progress, busy, traced) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        connection.progress_handler(STEPS, Some(move || progress.must_stop()))?;
        let mut since = Instant::now();
        connection.busy_handler(Some(move |retries| {
            if retries == 0 {
                since = Instant::now();
            }
            busy.wait_for_lock(retries, since)
        }))?;
        let interrupt = connection.get_interrupt_handle();
        let events = TraceEventCodes::SQLITE_TRACE_STMT
            | TraceEventCodes::SQLITE_TRACE_ROW
            | TraceEventCodes::SQLITE_TRACE_PROFILE;
        let trace = move |event: TraceEvent<'_>| match event {
            TraceEvent::Stmt(statement, text) => {
                let sql = statement.sql();
                // Triggers, and statements that SQLite runs for itself, have another text.
                if sql.as_ptr() == text.as_ptr() {
                    if traced.must_stop() && !starts_with_rollback(&sql) {
                        interrupt.interrupt();
                    }
                    traced.spans.begin(&sql);
                }
            }
            TraceEvent::Row(statement) => traced.spans.row(&statement.sql()),
            TraceEvent::Profile(statement, _) => traced.spans.end(&statement.sql()),
            _ => {}
        };
        connection.trace_v2(events, Some(trace))
    }

    /// Rolls an open transaction back, and removes the handlers.
    pub(super) fn leave(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        self.protect();
        let rolled_back = if connection.is_autocommit() { Ok(()) } else { connection.execute_batch("ROLLBACK") };
        connection.progress_handler(0, None::<fn() -> bool>)?;
        connection.busy_handler(None::<fn(i32) -> bool>)?;
        connection.trace_v2(TraceEventCodes::empty(), None::<fn(TraceEvent<'_>)>)?;
        rolled_back
    }

    pub(super) fn count_interrupted(&self) {
        self.counts.interrupted.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits before another attempt to get a lock. Returns `false` to give up.
    fn wait_for_lock(&self, retries: i32, since: Instant) -> bool {
        self.counts.lock_waits.fetch_add(1, Ordering::Relaxed);
        let mut pause = Duration::from_millis(1 << retries.clamp(0, 6)).min(LONGEST_PAUSE);
        if self.ctx.deadline().is_none() {
            let left = self.lock_timeout.saturating_sub(since.elapsed());
            if left.is_zero() {
                return false;
            }
            pause = pause.min(left);
        }
        self.ctx.wait_blocking_timeout(pause).is_none()
    }
}

fn starts_with_rollback(sql: &str) -> bool {
    let word = sql.trim_start().get(.."ROLLBACK".len());
    word.is_some_and(|word| word.eq_ignore_ascii_case("ROLLBACK"))
}
