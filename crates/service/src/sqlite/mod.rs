//! SQLite whose statements stop with their context.
//!
//! | | |
//! |---|---|
//! | [`Database`] | a pool of connections: [`read`](Database::read), [`write`](Database::write), [`transaction`](Database::transaction) |
//! | [`Options`] | how a database is opened |
//! | [`StatementError`] | why the code on a connection failed: an error of SQLite, or one of its own |
//! | [`SqliteError`] | SQLite's error, as the source of an [`Error`](throughline::Error) |
//! | [`rusqlite`] | the version that this crate was built with |
//!
//! Statements are written with the API of `rusqlite`. This module adds:
//! - **Interruption.** A statement whose context is done is interrupted. Its transaction is rolled
//!   back, the caller gets the context's error, and the connection is free for the next statement.
//! - **Limits.** One connection writes, a few read. Callers wait for one until their context is
//!   done. The number of waiting callers is limited.
//! - **Spans.** Each statement leaves a CLIENT span, a child of the context's span, with the names
//!   of OpenTelemetry's database conventions. Values of parameters are never recorded.
//!
//! # Examples
//! ```
//! use throughline::{Code, Context, Error};
//! use throughline_service::sqlite::{Database, rusqlite::params};
//!
//! async fn withdraw(db: &Database, ctx: &Context, card: i64, cents: i64) -> Result<i64, Error> {
//!     db.transaction(ctx, move |tx| {
//!         let balance: i64 =
//!             tx.query_row("SELECT balance FROM accounts WHERE card = ?1", [card], |row| row.get(0))?;
//!         if balance < cents {
//!             // Any error rolls the transaction back.
//!             Err(Error::new(Code::FailedPrecondition, "the balance is too low"))?;
//!         }
//!         tx.execute("UPDATE accounts SET balance = balance - ?2 WHERE card = ?1", params![card, cents])?;
//!         Ok(balance - cents)
//!     })
//!     .await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! let db = Database::open_in_memory()?;
//! let ctx = Context::background().with_timeout(std::time::Duration::from_secs(5));
//! db.write(&ctx, |connection| {
//!     connection.execute_batch(
//!         "CREATE TABLE accounts (card INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
//!          INSERT INTO accounts VALUES (7, 100);",
//!     )?;
//!     Ok(())
//! })
//! .await?;
//! assert_eq!(withdraw(&db, &ctx, 7, 30).await?, 70);
//! let error = withdraw(&db, &ctx, 7, 80).await.expect_err("only 70 cents are there");
//! assert_eq!(error.code(), Code::FailedPrecondition);
//! let error = withdraw(&db, &ctx, 8, 1).await.expect_err("there is no such card");
//! assert_eq!(error.code(), Code::NotFound);
//! # Ok(()) }
//! ```

mod database;
mod error;
mod options;
mod pool;
mod spans;
mod sql;
mod watch;

pub use database::{Counters, Database};
pub use error::{SqliteError, StatementError};
pub use options::Options;
pub use rusqlite;
