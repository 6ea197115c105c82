//! What errors of SQLite become.

use std::error::Error as _;
use std::fs;
use std::time::Duration;

use throughline::{Code, Error};
use throughline_service::sqlite::rusqlite::params;
use throughline_service::sqlite::{Database, Options, SqliteError};

use super::{BACKGROUND, File};

async fn failure(file: &File, sql: &'static str) -> Error {
    file.db.write(&BACKGROUND, move |connection| Ok(connection.execute(sql, [])?)).await.unwrap_err()
}

fn source(error: &Error) -> String {
    error.source().unwrap().downcast_ref::<SqliteError>().unwrap().to_string()
}

#[tokio::test]
async fn each_kind_has_its_code_and_sqlites_text_stays_in_the_source() {
    let file = File::new();
    for (sql, code, text) in [
        (
            "INSERT INTO accounts VALUES (1, 'eve', 0)",
            Code::AlreadyExists,
            "SQLITE_CONSTRAINT_PRIMARYKEY: UNIQUE constraint failed: accounts.id",
        ),
        (
            "INSERT INTO accounts VALUES (9, 'ann', 0)",
            Code::AlreadyExists,
            "SQLITE_CONSTRAINT_UNIQUE: UNIQUE constraint failed: accounts.owner",
        ),
        (
            "UPDATE accounts SET balance = balance - 101",
            Code::FailedPrecondition,
            "SQLITE_CONSTRAINT_CHECK: CHECK constraint failed: balance >= 0",
        ),
        (
            "INSERT INTO cards VALUES (1, 99)",
            Code::FailedPrecondition,
            "SQLITE_CONSTRAINT_FOREIGNKEY: FOREIGN KEY constraint failed",
        ),
        ("SELEC 1", Code::Internal, "SQLITE_ERROR: near \"SELEC\": syntax error"),
        ("DELETE FROM acounts", Code::Internal, "SQLITE_ERROR: no such table: acounts"),
    ] {
        let error = failure(&file, sql).await;
        assert_eq!((error.code(), source(&error)), (code, text.to_owned()), "{sql}");
        assert_eq!(error.message(), Error::wrap(code, "x").message(), "the message is the code's: {sql}");
    }
}

#[tokio::test]
async fn a_locked_database_is_unavailable_and_retryable() {
    let file = File::with(Options::default().lock_timeout(Duration::ZERO));
    let other = file.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = file.db.transaction(&BACKGROUND, |_| Ok(())).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)));
    assert_eq!(source(&error), "SQLITE_BUSY");
    other.execute_batch("COMMIT").unwrap();
    file.db.transaction(&BACKGROUND, |_| Ok(())).await.unwrap();
}

#[tokio::test]
async fn the_value_of_a_parameter_is_not_in_an_error() {
    let file = File::new();
    let secret = "secret-4711";
    let query = file.db.read(&BACKGROUND, move |connection| {
        Ok(connection.query_row("SELECT json_extract('{}', ?1)", params![secret], |row| row.get::<_, String>(0))?)
    });
    let error = query.await.unwrap_err();
    let sqlite = error.source().unwrap().downcast_ref::<SqliteError>().unwrap();
    assert!(sqlite.as_rusqlite().to_string().contains("4711"), "SQLite's own text has it: {:?}", sqlite.as_rusqlite());
    for text in [format!("{error:#}"), format!("{error:?}"), throughline::error_message(&error), format!("{sqlite:?}")]
    {
        assert!(!text.contains("4711"), "{text}");
    }
}

#[test]
fn errors_at_the_start_name_the_path_and_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let message = |path: &std::path::Path| {
        let error = Database::open(path).unwrap_err();
        (error.code(), error.message().replace(&directory.path().display().to_string(), "DIR"))
    };
    assert_eq!(
        message(&directory.path().join("data/bank.db")),
        (Code::Internal, "cannot open the database DIR/data/bank.db: the directory DIR/data does not exist".to_owned())
    );
    assert_eq!(
        message(directory.path()),
        (Code::Internal, "cannot open the database DIR: it is a directory".to_owned())
    );
    let text = directory.path().join("notes.txt");
    fs::write(&text, "not a database, but long enough to have a header of 100 bytes".repeat(10)).unwrap();
    assert_eq!(
        message(&text),
        (Code::DataLoss, "cannot open the database DIR/notes.txt: the file is not an SQLite database".to_owned())
    );
}

#[test]
fn a_corrupt_schema_is_found_when_the_file_is_opened() {
    let file = File::new();
    let path = file.path.clone();
    drop(file.db);
    let mut bytes = fs::read(&path).unwrap();
    // The first page has the header of the file (100 bytes), and then the tree of the schema.
    bytes[100..].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let error = Database::open(&path).unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert!(error.message().ends_with("bank.db: the file is corrupt"), "{error}");
}
