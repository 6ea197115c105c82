//! The connections: one that writes, and a few that read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags};
use throughline::{Code, Context, Error};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{SqliteError, StatementError};

/// Where the database is.
#[derive(Debug)]
pub(super) enum Place {
    File(PathBuf),
    Memory,
}

impl Place {
    /// The value of `db.namespace`: the name of the file, without its directory.
    pub(super) fn name(&self) -> String {
        match self {
            Place::File(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            Place::Memory => ":memory:".to_owned(),
        }
    }

    fn connect(&self, role: Role) -> Result<Connection, Error> {
        match self {
            Place::Memory => in_memory().map_err(|e| Error::from(StatementError::from(e))),
            Place::File(path) => open(path, role).map_err(|e| cannot_open(path, e)),
        }
    }
}

fn in_memory() -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

fn open(path: &Path, role: Role) -> rusqlite::Result<Connection> {
    // Not `SQLITE_OPEN_URI`: a path stays a path.
    let access = match role {
        Role::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Role::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    if role == Role::Write {
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    }
    connection.pragma_update(None, "foreign_keys", true)?;
    // This reads the schema. So a file that is no database is an error here, not later.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn cannot_open(path: &Path, error: rusqlite::Error) -> Error {
    let error = SqliteError::from(error);
    let missing = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir());
    let why = match missing {
        Some(parent) => format!("the directory {} does not exist", parent.display()),
        None if path.is_dir() => "it is a directory".to_owned(),
        None => match error.name() {
            "SQLITE_NOTADB" => "the file is not an SQLite database".to_owned(),
            "SQLITE_CORRUPT" => "the file is corrupt".to_owned(),
            name => name.to_owned(),
        },
    };
    let code = match error.name() {
        "SQLITE_NOTADB" | "SQLITE_CORRUPT" => Code::DataLoss,
        _ => Code::Internal,
    };
    Error::wrap(code, error).with_message(format!("cannot open the database {}: {why}", path.display()))
}

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Role {
    Read,
    Write,
}

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) place: Place,
    writer: Arc<Lane>,
    /// `None` in memory, where one connection does all.
    readers: Option<Arc<Lane>>,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// Connections that are used alike.
#[derive(Debug)]
struct Lane {
    role: Role,
    size: usize,
    permits: Arc<Semaphore>,
    /// Open connections that nobody uses. The rest is opened on demand.
    idle: Mutex<Vec<Connection>>,
}

impl Lane {
    fn new(role: Role, size: usize, idle: Vec<Connection>) -> Arc<Lane> {
        Arc::new(Lane { role, size, permits: Arc::new(Semaphore::new(size)), idle: Mutex::new(idle) })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Opens the connection that writes, which creates the file.
    pub(super) fn open(place: Place, readers: usize, max_waiting: usize) -> Result<Pool, Error> {
        let writer = Lane::new(Role::Write, 1, vec![place.connect(Role::Write)?]);
        let readers = match place {
            Place::File(_) => Some(Lane::new(Role::Read, readers.min(Semaphore::MAX_PERMITS), Vec::new())),
            Place::Memory => None,
        };
        Ok(Pool { place, writer, readers, waiting: AtomicUsize::new(0), max_waiting })
    }

    /// Waits for a connection, first come, first served.
    pub(super) async fn lease(&self, ctx: &Context, role: Role) -> Result<Lease, Error> {
        if ctx.is_done() {
            return Err(Error::from_context(ctx));
        }
        let lane = self.readers.as_ref().filter(|_| role == Role::Read).unwrap_or(&self.writer);
        let permit = match Arc::clone(&lane.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::enter(&self.waiting, self.max_waiting)?;
                let acquired = ctx.run(Arc::clone(&lane.permits).acquire_owned()).await;
                acquired.map_err(|_| Error::from_context(ctx))?.expect("the semaphore is never closed")
            }
        };
        let connection = lane.idle().pop();
        Ok(Lease { connection, lane: Arc::clone(lane), _permit: permit })
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn in_use(&self) -> usize {
        let lanes = [Some(&self.writer), self.readers.as_ref()];
        lanes.into_iter().flatten().map(|lane| lane.size - lane.permits.available_permits()).sum()
    }
}

/// A caller that waits for a connection.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, max: usize) -> Result<Self, Error> {
        if count.fetch_add(1, Ordering::Relaxed) >= max {
            drop(Waiting(count));
            return Err(Error::new(Code::ResourceExhausted, "too many statements wait for the database"));
        }
        Ok(Waiting(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to use one connection. Its drop returns the connection.
pub(super) struct Lease {
    /// `None`: not open yet, or discarded.
    connection: Option<Connection>,
    lane: Arc<Lane>,
    /// Released after the connection is back, as fields are dropped after [`Drop::drop`].
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// The connection, which is opened if it is not open.
    pub(super) fn connect(&mut self, place: &Place) -> Result<&mut Connection, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => place.connect(self.lane.role)?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Closes the connection, so that the next user opens another one.
    pub(super) fn discard(&mut self) {
        self.connection = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.lane.idle().push(connection);
        }
    }
}
