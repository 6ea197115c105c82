//! A CLIENT span for each statement.
//!
//! SQLite reports when a statement begins, returns a row and ends. It does not report whether the
//! statement has failed. So a statement that has ended is kept until that is known:
//! - If another statement begins or returns a row, it has succeeded, or the code on the connection
//!   has handled its error.
//! - When that code has returned an error, it is the error of the first statement that ended since
//!   then. (Statements that were still open are closed after the one that failed.)

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use throughline::trace::{SpanKind, Status};
use throughline::{Code, Context, Error, Span};

use super::error::SqliteError;
use super::sql::{summarize, without_literals};

/// How the code on a connection has ended.
#[derive(Clone, Copy)]
pub(super) enum Outcome<'a> {
    /// It has succeeded, or failed for reasons of its own.
    Done,
    Failed(&'a SqliteError),
    /// The context is done.
    Interrupted(&'a Context),
}

/// The spans of the statements that run under one context.
pub(super) struct Spans {
    ctx: Context,
    /// The context of the spans. It is never done, so a span that ends late records no cause.
    parent: Context,
    namespace: String,
    records_text: bool,
    statements: Mutex<Statements>,
}

#[derive(Default)]
struct Statements {
    running: Vec<Statement>,
    /// In the order in which they ended.
    ended: Vec<Statement>,
}

struct Statement {
    /// Where SQLite keeps the text. It identifies the statement while it runs.
    id: usize,
    span: Span,
    rows: u64,
    is_query: bool,
    end: SystemTime,
}

impl Spans {
    pub(super) fn new(ctx: &Context, namespace: String, records_text: bool) -> Spans {
        let parent = ctx.without_cancel();
        Spans { ctx: ctx.clone(), parent, namespace, records_text, statements: Mutex::default() }
    }

    fn statements(&self) -> MutexGuard<'_, Statements> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A statement begins.
    pub(super) fn begin(&self, sql: &str) {
        self.settle(Outcome::Done);
        let id = sql.as_ptr().addr();
        if self.statements().running.iter().any(|statement| statement.id == id) {
            // The schema has changed, and SQLite begins the statement again.
            return;
        }
        let summary = summarize(sql);
        let name = if summary.text.is_empty() { "sqlite".to_owned() } else { summary.text.clone() };
        let is_query = summary.operation.eq_ignore_ascii_case("SELECT");
        let mut span = self
            .parent
            .span(name)
            .kind(SpanKind::Client)
            .attribute("db.system.name", "sqlite")
            .attribute("db.namespace", self.namespace.clone())
            .attribute("db.operation.name", summary.operation)
            .attribute("db.query.summary", summary.text);
        if let Some(collection) = summary.collection {
            span = span.attribute("db.collection.name", collection);
        }
        if self.records_text {
            span = span.attribute_with("db.query.text", || without_literals(sql));
        }
        if let Some(remaining) = self.ctx.remaining() {
            span = span.attribute("throughline.deadline.remaining_ms", remaining.as_micros() as f64 / 1e3);
        }
        let span = span.start();
        self.statements().running.push(Statement { id, span, rows: 0, is_query, end: SystemTime::UNIX_EPOCH });
    }

    /// A statement returns a row.
    pub(super) fn row(&self, sql: &str) {
        self.settle(Outcome::Done);
        let id = sql.as_ptr().addr();
        if let Some(statement) = self.statements().running.iter_mut().rev().find(|statement| statement.id == id) {
            statement.rows += 1;
        }
    }

    /// A statement has ended.
    pub(super) fn end(&self, sql: &str) {
        let (id, end) = (sql.as_ptr().addr(), SystemTime::now());
        let mut statements = self.statements();
        if let Some(at) = statements.running.iter().rposition(|statement| statement.id == id) {
            let statement = statements.running.remove(at);
            statements.ended.push(Statement { end, ..statement });
        }
    }

    /// Ends the spans of the statements that have ended. `outcome` is that of the first one.
    pub(super) fn settle(&self, outcome: Outcome<'_>) {
        let ended = std::mem::take(&mut self.statements().ended);
        for (at, statement) in ended.into_iter().enumerate() {
            statement.finish(if at == 0 { outcome } else { Outcome::Done });
        }
    }
}

impl Statement {
    fn finish(self, outcome: Outcome<'_>) {
        let span = self.span;
        if self.is_query || self.rows > 0 {
            span.set_attribute("db.response.returned_rows", i64::try_from(self.rows).unwrap_or(i64::MAX));
        }
        match outcome {
            Outcome::Done => {}
            Outcome::Failed(error) => {
                if let Some(code) = error.result_code() {
                    span.set_attribute("db.response.status_code", code.extended_code.to_string());
                }
                span.set_attribute("error.type", error.name());
                span.set_attribute("throughline.error.code", error.code().as_str());
                span.set_status(Status::Error(error.to_string().into()));
            }
            Outcome::Interrupted(ctx) => {
                if let Some(cause) = ctx.cause() {
                    span.record_cancelled(&cause);
                }
                let error = Error::from_context(ctx);
                // If the caller cancelled the statement, the statement has not failed.
                if error.code() == Code::DeadlineExceeded {
                    span.set_attribute("error.type", error.code().as_str());
                    span.set_attribute("throughline.error.code", error.code().as_str());
                    span.set_status(Status::Error(error.message().to_owned().into()));
                }
            }
        }
        span.end_at(self.end);
    }
}
