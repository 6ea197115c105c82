//! Errors of SQLite, and what becomes of them.

use std::error::Error as StdError;
use std::fmt;

use rusqlite::{ErrorCode, ffi};
use throughline::{Code, Error};

/// Why the code on a connection failed.
///
/// `?` makes one of an error of `rusqlite` and of an [`Error`] of the service's own. The caller
/// gets an [`Error`]:
///
/// | SQLite's error | Code |
/// |---|---|
/// | the context is done | `DEADLINE_EXCEEDED` or `CANCELLED`, with the context's cause |
/// | a query for one row returned none | `NOT_FOUND` |
/// | a unique value exists already | `ALREADY_EXISTS` |
/// | another constraint: foreign key, check, not null | `FAILED_PRECONDITION` |
/// | the database is locked by another process | `UNAVAILABLE`, retryable |
/// | another connection wrote since the transaction's first read | `ABORTED`, retryable |
/// | a value is too large | `INVALID_ARGUMENT` |
/// | the file is corrupt, or no database | `DATA_LOSS` |
/// | all others: the disk is full, an I/O error, an error in the SQL text, … | `INTERNAL` |
///
/// The message for the caller is that of the code. SQLite's error is the source, as a
/// [`SqliteError`].
///
/// # Examples
/// ```
/// use throughline::{Code, Error};
/// use throughline_service::sqlite::{StatementError, rusqlite};
///
/// let missing = Error::from(StatementError::from(rusqlite::Error::QueryReturnedNoRows));
/// assert_eq!(missing.code(), Code::NotFound);
/// let own = Error::from(StatementError::from(Error::new(Code::FailedPrecondition, "too low")));
/// assert_eq!((own.code(), own.message()), (Code::FailedPrecondition, "too low"));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum StatementError {
    /// An error of SQLite or of `rusqlite`.
    Sqlite(SqliteError),
    /// An error of the service's own.
    Service(Error),
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        SqliteError(error)
    }
}

impl From<rusqlite::Error> for StatementError {
    fn from(error: rusqlite::Error) -> Self {
        StatementError::Sqlite(SqliteError(error))
    }
}

impl From<Error> for StatementError {
    fn from(error: Error) -> Self {
        StatementError::Service(error)
    }
}

impl From<StatementError> for Error {
    fn from(error: StatementError) -> Error {
        match error {
            StatementError::Sqlite(error) => Error::from(error),
            StatementError::Service(error) => error,
        }
    }
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatementError::Sqlite(error) => error.fmt(f),
            StatementError::Service(error) => error.fmt(f),
        }
    }
}

impl StdError for StatementError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            StatementError::Sqlite(error) => error.source(),
            StatementError::Service(error) => error.source(),
        }
    }
}

/// An error of SQLite or of `rusqlite`.
///
/// It is the source of the [`Error`] that the caller gets. Logs and spans show sources, so
/// `Display` and `Debug` show only texts that cannot contain the value of a parameter or of a row:
/// - the name of SQLite's result code, always;
/// - SQLite's own text for a constraint or a statement that it does not accept.
///
/// [`as_rusqlite`](Self::as_rusqlite) returns the whole.
///
/// # Examples
/// ```
/// use std::error::Error as _;
/// use throughline::{Code, Context};
/// use throughline_service::sqlite::{Database, SqliteError};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), throughline::Error> {
/// let db = Database::open_in_memory()?;
/// let ctx = Context::background();
/// let query = db.read(&ctx, |connection| {
///     Ok(connection.query_row("SELECT balance FROM acounts", [], |row| row.get::<_, i64>(0))?)
/// });
/// let error = query.await.expect_err("the name has a typing error");
/// assert_eq!(error.code(), Code::Internal);
/// let source = error.source().and_then(|source| source.downcast_ref::<SqliteError>());
/// let source = source.expect("SQLite has found it");
/// assert_eq!(source.to_string(), "SQLITE_ERROR: no such table: acounts");
/// # Ok(()) }
/// ```
pub struct SqliteError(rusqlite::Error);

impl SqliteError {
    /// Returns the error of `rusqlite`.
    ///
    /// Its text may contain values of parameters and rows.
    pub fn as_rusqlite(&self) -> &rusqlite::Error {
        &self.0
    }

    /// The result code of SQLite, if SQLite itself has failed.
    pub(super) fn result_code(&self) -> Option<ffi::Error> {
        match &self.0 {
            rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => Some(*error),
            _ => None,
        }
    }

    /// Whether SQLite has not accepted the text of the statement, so that it never ran.
    pub(super) fn is_not_accepted(&self) -> bool {
        match &self.0 {
            rusqlite::Error::SqlInputError { .. } => true,
            rusqlite::Error::SqliteFailure(error, Some(text)) => {
                error.extended_code == ffi::SQLITE_ERROR && text.starts_with("no such ")
            }
            _ => false,
        }
    }

    /// SQLite's text, if it names only parts of the schema and of the statement.
    fn text(&self) -> Option<&str> {
        match &self.0 {
            rusqlite::Error::SqlInputError { msg, .. } => Some(msg),
            rusqlite::Error::SqliteFailure(error, text) => {
                let names_schema = matches!(
                    error.extended_code,
                    ffi::SQLITE_CONSTRAINT_CHECK
                        | ffi::SQLITE_CONSTRAINT_DATATYPE
                        | ffi::SQLITE_CONSTRAINT_FOREIGNKEY
                        | ffi::SQLITE_CONSTRAINT_NOTNULL
                        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                        | ffi::SQLITE_CONSTRAINT_ROWID
                        | ffi::SQLITE_CONSTRAINT_UNIQUE
                );
                text.as_deref().filter(|_| names_schema || self.is_not_accepted())
            }
            _ => None,
        }
    }

    pub(super) fn code(&self) -> Code {
        let Some(error) = self.result_code() else {
            return match self.0 {
                rusqlite::Error::QueryReturnedNoRows => Code::NotFound,
                _ => Code::Internal,
            };
        };
        match (error.extended_code, error.code) {
            (ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID, _) => {
                Code::AlreadyExists
            }
            (_, ErrorCode::ConstraintViolation) => Code::FailedPrecondition,
            (ffi::SQLITE_BUSY_SNAPSHOT, _) => Code::Aborted,
            (_, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Code::Unavailable,
            (_, ErrorCode::OperationInterrupted) => Code::Cancelled,
            (_, ErrorCode::TooBig) => Code::InvalidArgument,
            (_, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Code::DataLoss,
            _ => Code::Internal,
        }
    }

    /// The name of the kind of error, such as `SQLITE_CONSTRAINT_UNIQUE`.
    pub(super) fn name(&self) -> &'static str {
        match &self.0 {
            rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => {
                result_code_name(error)
            }
            rusqlite::Error::QueryReturnedNoRows => "the query returned no rows",
            rusqlite::Error::QueryReturnedMoreThanOneRow => "the query returned more than one row",
            rusqlite::Error::ExecuteReturnedResults => "a statement that was executed returned rows",
            rusqlite::Error::InvalidColumnIndex(_) => "no column has this index",
            rusqlite::Error::InvalidColumnName(_) => "no column has this name",
            rusqlite::Error::InvalidColumnType(..) => "a column has another type",
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::IntegralValueOutOfRange(..) => {
                "the value of a column could not be converted"
            }
            rusqlite::Error::ToSqlConversionFailure(_) => "the value of a parameter could not be converted",
            rusqlite::Error::InvalidParameterName(_) => "no parameter has this name",
            rusqlite::Error::InvalidParameterCount(..) => "the number of parameters is wrong",
            rusqlite::Error::MultipleStatement => "the text has more than one statement",
            rusqlite::Error::InvalidPath(_) | rusqlite::Error::NulError(_) => "invalid path",
            _ => "rusqlite failed",
        }
    }
}

impl From<SqliteError> for Error {
    fn from(error: SqliteError) -> Error {
        let code = error.code();
        let error = Error::wrap(code, error);
        match code {
            Code::Unavailable | Code::Aborted => error.with_retryable(true),
            _ => error,
        }
    }
}

impl fmt::Display for SqliteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.text() {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for SqliteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteError({self})")
    }
}

/// `source()` is `None`: the text of the error inside may contain values.
impl StdError for SqliteError {}

fn result_code_name(error: &ffi::Error) -> &'static str {
    match error.extended_code {
        ffi::SQLITE_CONSTRAINT_CHECK => "SQLITE_CONSTRAINT_CHECK",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "SQLITE_CONSTRAINT_DATATYPE",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "SQLITE_CONSTRAINT_FOREIGNKEY",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "SQLITE_CONSTRAINT_NOTNULL",
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY => "SQLITE_CONSTRAINT_PRIMARYKEY",
        ffi::SQLITE_CONSTRAINT_ROWID => "SQLITE_CONSTRAINT_ROWID",
        ffi::SQLITE_CONSTRAINT_TRIGGER => "SQLITE_CONSTRAINT_TRIGGER",
        ffi::SQLITE_CONSTRAINT_UNIQUE => "SQLITE_CONSTRAINT_UNIQUE",
        ffi::SQLITE_BUSY_SNAPSHOT => "SQLITE_BUSY_SNAPSHOT",
        _ => match error.extended_code & 0xff {
            ffi::SQLITE_ERROR => "SQLITE_ERROR",
            ffi::SQLITE_PERM => "SQLITE_PERM",
            ffi::SQLITE_ABORT => "SQLITE_ABORT",
            ffi::SQLITE_BUSY => "SQLITE_BUSY",
            ffi::SQLITE_LOCKED => "SQLITE_LOCKED",
            ffi::SQLITE_NOMEM => "SQLITE_NOMEM",
            ffi::SQLITE_READONLY => "SQLITE_READONLY",
            ffi::SQLITE_INTERRUPT => "SQLITE_INTERRUPT",
            ffi::SQLITE_IOERR => "SQLITE_IOERR",
            ffi::SQLITE_CORRUPT => "SQLITE_CORRUPT",
            ffi::SQLITE_FULL => "SQLITE_FULL",
            ffi::SQLITE_CANTOPEN => "SQLITE_CANTOPEN",
            ffi::SQLITE_PROTOCOL => "SQLITE_PROTOCOL",
            ffi::SQLITE_SCHEMA => "SQLITE_SCHEMA",
            ffi::SQLITE_TOOBIG => "SQLITE_TOOBIG",
            ffi::SQLITE_CONSTRAINT => "SQLITE_CONSTRAINT",
            ffi::SQLITE_MISMATCH => "SQLITE_MISMATCH",
            ffi::SQLITE_MISUSE => "SQLITE_MISUSE",
            ffi::SQLITE_AUTH => "SQLITE_AUTH",
            ffi::SQLITE_RANGE => "SQLITE_RANGE",
            ffi::SQLITE_NOTADB => "SQLITE_NOTADB",
            _ => "another result code of SQLite",
        },
    }
}
