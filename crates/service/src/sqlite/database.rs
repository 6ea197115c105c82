//! The database: code on a connection, under a context.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, DropBehavior, ErrorCode, Transaction, TransactionBehavior};
use throughline::{CancelHandle, Cause, Code, Context, Error};

use super::error::{SqliteError, StatementError};
use super::options::Options;
use super::pool::{Lease, Place, Pool, Role};
use super::spans::{Outcome, Spans};
use super::watch::{Counts, Watch};

/// An SQLite database: a file, or in memory.
///
/// It is a handle that is cheap to clone. The file is closed when the last clone is dropped and the
/// last statement has ended.
///
/// A database has one connection that writes and [a few](Options::readers) that read. A file is in
/// WAL mode, so readers and the writer do not wait for each other. Foreign keys are enforced.
///
/// # When a context is done
/// - A statement of a context that is done never begins, also within the code on a connection.
/// - A caller that waits for a connection stops waiting.
/// - A statement that runs is interrupted after at most 1,000 steps of SQLite's virtual machine.
/// - A statement that waits for another process to unlock the database stops waiting.
/// - A transaction that is open is rolled back.
/// - The caller gets the error of the context, with its cause, when the connection is free again.
///   So the error means that a transaction was not committed.
///
/// SQLite cannot interrupt a single step: a sync of the disk, or one call of a function on a large
/// value. Other code in the closure is not interrupted either: a loop of its own should ask
/// [`Context::check`].
///
/// Dropping the future does the same. The future does not wait then: the connection is free a
/// moment later. A [shielded](Context::shielded) context is not interrupted while its grace lasts;
/// spawn a statement that must survive its handler.
///
/// # Code on a connection
/// It runs on a blocking thread of tokio, with the context as the ambient one. What it changes on
/// the connection, such as a pragma or a temporary table, is there for the next user, too. An open
/// transaction is rolled back. Progress handlers, busy handlers and traces are replaced.
///
/// # Spans
/// Each statement has a CLIENT span below the context's span, with its operation and tables as the
/// name. See docs/attributes.md. `BEGIN`, `COMMIT` and `ROLLBACK` have one, too: they show waits
/// for locks and for the disk. Statements of triggers have none, and a text that SQLite does not
/// accept is no statement. If the closure handles the error of a statement itself, the span has no
/// error.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    pool: Pool,
    options: Options,
    counts: Arc<Counts>,
}

/// What a [`Database`] does at the moment, and how often something has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections in use.
    pub in_use: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
    /// How often work on a connection was stopped because its context was done.
    pub interrupted: u64,
    /// How often a statement has found the database locked by another connection.
    pub lock_waits: u64,
}

impl Database {
    /// Opens a file, which is created if it does not exist.
    ///
    /// It blocks the thread for a moment. Call it when the program starts.
    ///
    /// # Errors
    /// The message names the path. `DATA_LOSS`: the file is corrupt, or not a database. `INTERNAL`:
    /// it cannot be opened, for example because its directory does not exist.
    ///
    /// # Examples
    /// ```
    /// use throughline::Code;
    /// use throughline_service::sqlite::Database;
    ///
    /// let error = Database::open("/no/such/directory/bank.db").expect_err("it cannot be created");
    /// assert!(error.message().ends_with("the directory /no/such/directory does not exist"));
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Database, Error> {
        Database::open_with(path, Options::default())
    }

    /// Opens a file with options. See [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Database, Error> {
        Database::at(Place::File(path.as_ref().to_owned()), options)
    }

    /// Opens an empty database in memory. It has one connection, for reads and writes.
    pub fn open_in_memory() -> Result<Database, Error> {
        Database::open_in_memory_with(Options::default())
    }

    /// Opens an empty database in memory with options.
    pub fn open_in_memory_with(options: Options) -> Result<Database, Error> {
        Database::at(Place::Memory, options)
    }

    fn at(place: Place, options: Options) -> Result<Database, Error> {
        let pool = Pool::open(place, options.readers, options.max_waiting)?;
        Ok(Database(Arc::new(Inner { pool, options, counts: Arc::default() })))
    }

    /// Runs queries on a connection that cannot write.
    ///
    /// Each query sees the last commit before it. For queries that must see the same state, begin a
    /// transaction with [`unchecked_transaction`](rusqlite::Connection::unchecked_transaction).
    ///
    /// # Errors
    /// Those of [`StatementError`], and `RESOURCE_EXHAUSTED` if [too many](Options::max_waiting)
    /// callers wait for a connection. A statement that writes is `INTERNAL`.
    ///
    /// # Cancellation safety
    /// Dropping the future interrupts the query.
    ///
    /// # Panics
    /// If `f` panics, with its panic. Outside a tokio runtime.
    ///
    /// # Examples
    /// ```
    /// use throughline::Context;
    /// use throughline_service::sqlite::Database;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), throughline::Error> {
    /// let db = Database::open_in_memory()?;
    /// let ctx = Context::background();
    /// let tables = db.read(&ctx, |connection| {
    ///     let mut statement = connection.prepare_cached("SELECT name FROM sqlite_schema")?;
    ///     let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    ///     Ok(names.collect::<Result<Vec<_>, _>>()?)
    /// });
    /// assert!(tables.await?.is_empty());
    /// # Ok(()) }
    /// ```
    pub async fn read<T, F>(&self, ctx: &Context, f: F) -> Result<T, Error>
    where
        F: FnOnce(&Connection) -> Result<T, StatementError> + Send + 'static,
        T: Send + 'static,
    {
        self.run(ctx, Role::Read, |connection, _| f(connection)).await
    }

    /// Runs statements on the connection that writes, without a transaction around them.
    ///
    /// Each statement is a transaction of its own: if the second one fails or is interrupted, the
    /// first one is committed nevertheless. Use it for one statement, and for those that cannot be
    /// part of a transaction, such as `VACUUM`.
    ///
    /// Errors, cancellation safety and panics are those of [`read`](Self::read).
    pub async fn write<T, F>(&self, ctx: &Context, f: F) -> Result<T, Error>
    where
        F: FnOnce(&Connection) -> Result<T, StatementError> + Send + 'static,
        T: Send + 'static,
    {
        self.run(ctx, Role::Write, |connection, _| f(connection)).await
    }

    /// Runs statements in a transaction.
    ///
    /// It begins with `BEGIN IMMEDIATE`, so no other connection can write before its end. It is
    /// committed if `f` succeeds and the context is not done then. Otherwise it is rolled back: on
    /// an error, on a panic, and when the context is done.
    ///
    /// The commit itself is not interrupted. So the result is exact: `Ok` means that the
    /// transaction is committed, even if the context was done in the meantime. Any error means that
    /// it is not. There is one exception: after an I/O error in the commit, which is `INTERNAL`,
    /// only the next query shows the state.
    ///
    /// If the future is dropped during the commit, the transaction may be committed.
    ///
    /// # Errors
    /// Those of [`read`](Self::read). `INTERNAL` if `f` succeeds but the transaction has ended: by
    /// a `COMMIT` or `ROLLBACK` in a statement, or by an error of SQLite that `f` has ignored.
    ///
    /// # Cancellation safety
    /// Dropping the future interrupts the statement and rolls the transaction back.
    ///
    /// # Panics
    /// If `f` panics, with its panic. Outside a tokio runtime.
    pub async fn transaction<T, F>(&self, ctx: &Context, f: F) -> Result<T, Error>
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<T, StatementError> + Send + 'static,
        T: Send + 'static,
    {
        self.run(ctx, Role::Write, |connection, watch| transact(connection, watch, f)).await
    }

    /// Returns what the database does at the moment.
    pub fn counters(&self) -> Counters {
        Counters {
            in_use: self.0.pool.in_use(),
            waiting: self.0.pool.waiting(),
            interrupted: self.0.counts.interrupted.load(Ordering::Relaxed),
            lock_waits: self.0.counts.lock_waits.load(Ordering::Relaxed),
        }
    }

    async fn run<T, F>(&self, ctx: &Context, role: Role, work: F) -> Result<T, Error>
    where
        F: FnOnce(&mut Connection, &Watch) -> Result<T, StatementError> + Send + 'static,
        T: Send + 'static,
    {
        let handle = ctx.with_cancel();
        let lease = self.0.pool.lease(ctx, role).await?;
        let Inner { pool, options, counts } = &*self.0;
        let spans = Spans::new(&handle, pool.place.name(), options.records_text);
        let watch = Watch::new(handle.context().clone(), spans, options.lock_timeout, Arc::clone(counts));
        let (db, ambient) = (self.clone(), ctx.clone());
        let job = move || db.work(lease, role, &watch, &ambient, work);
        let queued = Arc::new(Mutex::new(Some(job)));
        let running = Running { handle, queued: Arc::clone(&queued) };
        let mut task = tokio::task::spawn_blocking(move || take(&queued).map(|job| job()));
        let joined = match ctx.run(&mut task).await {
            Ok(joined) => joined,
            // It has not begun, and now it never does.
            Err(_) if take(&running.queued).is_some() => return Err(Error::from_context(ctx)),
            Err(_) => task.await,
        };
        match joined {
            Ok(Some(result)) => result,
            Ok(None) => Err(Error::from_context(ctx)),
            Err(e) if e.is_panic() => resume_unwind(e.into_panic()),
            Err(e) => Err(Error::from(e)),
        }
    }

    /// Runs on a blocking thread.
    fn work<T>(
        &self,
        mut lease: Lease,
        role: Role,
        watch: &Arc<Watch>,
        ambient: &Context,
        work: impl FnOnce(&mut Connection, &Watch) -> Result<T, StatementError>,
    ) -> Result<T, Error> {
        if watch.ctx.is_done() {
            return Err(Error::from_context(&watch.ctx));
        }
        let place = &self.0.pool.place;
        let is_borrowed_writer = role == Role::Read && matches!(place, Place::Memory);
        let connection = lease.connect(place)?;
        let prepared = if is_borrowed_writer { set_query_only(connection, true) } else { Ok(()) };
        let prepared = prepared.and_then(|()| watch.install(connection));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            prepared?;
            ambient.enter(|| work(connection, watch))
        }));
        let interrupted = match &outcome {
            Ok(Err(StatementError::Sqlite(e))) if may_be_interruption(e) && watch.ctx.is_done() => {
                watch.count_interrupted();
                Some(Error::from_context(&watch.ctx))
            }
            _ => None,
        };
        watch.spans.settle(match (&interrupted, &outcome) {
            (Some(_), _) => Outcome::Interrupted(&watch.ctx),
            (None, Ok(Err(StatementError::Sqlite(e)))) if e.result_code().is_some() && !e.is_not_accepted() => {
                Outcome::Failed(e)
            }
            _ => Outcome::Done,
        });
        let left = watch.leave(connection);
        let left = if is_borrowed_writer { left.and(set_query_only(connection, false)) } else { left };
        watch.spans.settle(Outcome::Done);
        if left.is_err() && matches!(place, Place::File(_)) {
            lease.discard();
        }
        // The connection is free before the caller continues.
        drop(lease);
        match outcome {
            Err(panic) => resume_unwind(panic),
            Ok(result) => result.map_err(|e| interrupted.unwrap_or_else(|| e.into())),
        }
    }
}

fn set_query_only(connection: &Connection, is_set: bool) -> rusqlite::Result<()> {
    connection.pragma_update(None, "query_only", is_set)
}

fn may_be_interruption(error: &SqliteError) -> bool {
    let code = error.result_code().map(|error| error.code);
    matches!(code, Some(ErrorCode::OperationInterrupted | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn transact<T>(
    connection: &mut Connection,
    watch: &Watch,
    f: impl FnOnce(&mut Transaction<'_>) -> Result<T, StatementError>,
) -> Result<T, StatementError> {
    let mut tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let result = catch_unwind(AssertUnwindSafe(|| f(&mut tx)));
    // `Watch::leave` rolls back. `f` may have chosen another behaviour.
    tx.set_drop_behavior(DropBehavior::Ignore);
    let value = match result {
        Ok(result) => result?,
        Err(panic) => {
            drop(tx);
            resume_unwind(panic)
        }
    };
    if watch.ctx.is_done() {
        watch.count_interrupted();
        return Err(Error::from_context(&watch.ctx).into());
    }
    if tx.is_autocommit() {
        return Err(Error::new(Code::Internal, "the transaction ended before its commit").into());
    }
    watch.protect();
    tx.commit()?;
    Ok(value)
}

/// Takes the job out, so that it runs at most once.
fn take<J>(queued: &Mutex<Option<J>>) -> Option<J> {
    queued.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A job whose caller waits. Its drop stops the job.
struct Running<J> {
    handle: CancelHandle,
    queued: Arc<Mutex<Option<J>>>,
}

impl<J> Drop for Running<J> {
    fn drop(&mut self) {
        // After the end of the job, nobody looks at this context any more.
        self.handle.cancel_with(Cause::Abandoned);
        drop(take(&self.queued));
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("place", &self.0.pool.place).field("counters", &self.counters()).finish()
    }
}
