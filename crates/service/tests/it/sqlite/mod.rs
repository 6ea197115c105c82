//! SQLite under a context.

mod errors;
mod interruption;
mod limits;
mod spans;
mod transactions;

use std::path::PathBuf;

use throughline::{Context, SpanRecord};
use throughline_service::sqlite::rusqlite::Connection;
use throughline_service::sqlite::{Database, Options, StatementError};

static BACKGROUND: Context = Context::background();

/// A statement that never ends by itself, without and with rows.
const ENDLESS: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
const ENDLESS_ROWS: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";

/// A database in a file of its own, with one reader and one writer.
struct File {
    _directory: tempfile::TempDir,
    path: PathBuf,
    db: Database,
}

impl File {
    fn new() -> File {
        File::with(Options::default().readers(1))
    }

    fn with(options: Options) -> File {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bank.db");
        let db = Database::open_with(&path, options).unwrap();
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch(
                "CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT UNIQUE, balance INTEGER NOT NULL CHECK (balance >= 0));
                 CREATE TABLE cards (id INTEGER PRIMARY KEY, account INTEGER NOT NULL REFERENCES accounts (id)
                     DEFERRABLE INITIALLY DEFERRED);
                 INSERT INTO accounts VALUES (1, 'ann', 100), (2, 'bob', 100);",
            )
            .unwrap();
        File { _directory: directory, path, db }
    }

    /// A connection of another process, as far as SQLite is concerned.
    fn other(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    async fn balance(&self, id: i64) -> i64 {
        self.db.read(&BACKGROUND, move |connection| balance(connection, id)).await.unwrap()
    }
}

fn balance(connection: &Connection, id: i64) -> Result<i64, StatementError> {
    Ok(connection.query_row("SELECT balance FROM accounts WHERE id = ?1", [id], |row| row.get(0))?)
}

fn count(connection: &Connection, sql: &str) -> Result<i64, StatementError> {
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Reads rows for ever, and reports the first one.
fn read_for_ever(connection: &Connection, began: impl FnOnce()) -> Result<(), StatementError> {
    let mut statement = connection.prepare(ENDLESS_ROWS)?;
    let mut rows = statement.query([])?;
    rows.next()?.expect("it has rows");
    began();
    while rows.next()?.is_some() {}
    Ok(())
}

fn text<'a>(span: &'a SpanRecord, key: &str) -> Option<&'a str> {
    span.attributes.get(key).and_then(|value| value.as_str())
}

/// Waits until `is_true`, without time.
async fn until(is_true: impl Fn() -> bool) {
    while !is_true() {
        tokio::task::yield_now().await;
    }
}
