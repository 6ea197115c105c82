//! The spans of statements.

use std::fmt::Write;

use throughline::trace::{SpanKind, Status};
use throughline::{Cause, Error, SpanRecord};
use throughline_service::sqlite::rusqlite::{Transaction, params};
use throughline_service::sqlite::{Options, StatementError};

use super::{BACKGROUND, File, balance, read_for_ever, text};
use crate::support::Traced;

/// Each span with the attributes of databases, below its parent.
fn outline(spans: &[SpanRecord]) -> String {
    let mut shown = String::new();
    let root = spans.iter().find(|span| span.kind != SpanKind::Client).unwrap();
    for span in spans.iter().filter(|span| span.kind == SpanKind::Client) {
        assert_eq!(span.parent_span_id, Some(root.span_context.span_id()), "{span:?}");
        assert!(span.start_time >= root.start_time && span.end_time >= span.start_time, "{span:?} in {root:?}");
        write!(shown, "{}:", span.name).unwrap();
        for (key, value) in span.attributes.iter() {
            if !["db.system.name", "db.namespace", "db.query.summary"].contains(&key) {
                write!(shown, " {key}={value}").unwrap();
            }
        }
        for event in span.events.iter() {
            write!(shown, " [{}]", event.name).unwrap();
        }
        if let Status::Error(description) = &span.status {
            write!(shown, " ERROR {description}").unwrap();
        }
        shown.push('\n');
        assert_eq!((text(span, "db.system.name"), text(span, "db.namespace")), (Some("sqlite"), Some("bank.db")));
        assert_eq!(text(span, "db.query.summary"), Some(&*span.name));
    }
    shown
}

/// Runs a transaction, and returns its result and its outline.
async fn transaction(
    code: impl FnOnce(&mut Transaction<'_>) -> Result<(), StatementError> + Send + 'static,
) -> (Result<(), Error>, String) {
    let (file, traced) = (File::new(), Traced::new("bank"));
    let request = traced.ctx.span("request").start();
    let result = file.db.transaction(&request, code).await;
    request.end();
    (result, outline(&traced.spans().await))
}

#[tokio::test]
async fn each_statement_has_a_client_span_below_the_contexts_span() {
    let (result, shown) = transaction(|tx| {
        balance(tx, 1)?;
        tx.execute("UPDATE accounts SET balance = balance - ?2 WHERE id = ?1", params![1, 30])?;
        let mut statement = tx.prepare("SELECT a.id, c.id FROM accounts a LEFT JOIN cards c ON c.account = a.id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            // One statement runs while another one is open.
            tx.execute("INSERT INTO cards (account) VALUES (?1)", [row.get::<_, i64>(0)?])?;
        }
        Ok(())
    })
    .await;
    result.unwrap();
    assert_eq!(
        shown,
        "\
BEGIN: db.operation.name=BEGIN
SELECT accounts: db.operation.name=SELECT db.collection.name=accounts db.response.returned_rows=1
UPDATE accounts: db.operation.name=UPDATE db.collection.name=accounts
INSERT cards: db.operation.name=INSERT db.collection.name=cards
INSERT cards: db.operation.name=INSERT db.collection.name=cards
SELECT accounts cards: db.operation.name=SELECT db.response.returned_rows=2
COMMIT: db.operation.name=COMMIT
"
    );
}

#[tokio::test]
async fn the_statement_that_failed_has_the_error_and_no_other_one() {
    let (result, shown) = transaction(|tx| {
        let mut statement = tx.prepare("SELECT id FROM accounts")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            // The query is still open when this fails.
            tx.execute("INSERT INTO accounts VALUES (?1, NULL, 0)", [row.get::<_, i64>(0)?])?;
        }
        Ok(())
    })
    .await;
    result.unwrap_err();
    assert_eq!(
        shown,
        "\
BEGIN: db.operation.name=BEGIN
INSERT accounts: db.operation.name=INSERT db.collection.name=accounts db.response.status_code=1555 \
error.type=SQLITE_CONSTRAINT_PRIMARYKEY throughline.error.code=ALREADY_EXISTS \
ERROR SQLITE_CONSTRAINT_PRIMARYKEY: UNIQUE constraint failed: accounts.id
SELECT accounts: db.operation.name=SELECT db.collection.name=accounts db.response.returned_rows=1
ROLLBACK: db.operation.name=ROLLBACK
"
    );
}

#[tokio::test]
async fn a_text_that_sqlite_does_not_accept_is_not_the_failure_of_the_statement_before() {
    let (file, traced) = (File::new(), Traced::new("bank"));
    let request = traced.ctx.span("order").start();
    let order = file.db.read(&request, |connection| {
        balance(connection, 1)?;
        Ok(connection.execute("DELETE FROM acounts", [])?)
    });
    order.await.unwrap_err();
    request.end();
    assert!(!outline(&traced.spans().await).contains("ERROR"));
}

#[tokio::test]
async fn an_interrupted_statement_has_the_cause() {
    let (file, traced) = (File::new(), Traced::new("bank"));
    let root = traced.ctx.span("report").start();
    let request = root.with_cancel();
    let ctx = request.context().clone();
    let report = file.db.read(&ctx, move |connection| {
        balance(connection, 1)?;
        read_for_ever(connection, || request.cancel_with(Cause::ClientDisconnected))
    });
    report.await.unwrap_err();
    root.end();
    let shown = outline(&traced.spans().await);
    let (finished, interrupted) = shown.split_once('\n').unwrap();
    assert!(!finished.contains("cancel"), "the first statement has ended before: {finished}");
    assert!(
        interrupted.contains("throughline.cancel.cause=client_disconnected [throughline.cancelled]"),
        "{interrupted}"
    );
    assert!(!interrupted.contains("ERROR"), "the caller has cancelled it: {interrupted}");
}

#[tokio::test]
async fn a_statement_whose_deadline_passes_is_an_error_with_the_cause() {
    let (file, traced) = (File::new(), Traced::new("bank"));
    tokio::time::pause();
    let root = traced.ctx.span("report").start();
    let ctx = root.with_timeout(std::time::Duration::from_secs(1));
    let (began, running) = tokio::sync::oneshot::channel();
    let db = file.db.clone();
    let report =
        tokio::spawn(
            async move { db.read(&ctx, |connection| read_for_ever(connection, || began.send(()).unwrap())).await },
        );
    running.await.unwrap();
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    report.await.unwrap().unwrap_err();
    root.end();
    tokio::time::resume();
    let spans = traced.spans().await;
    let span = spans.iter().find(|span| span.kind == SpanKind::Client).unwrap();
    assert_eq!(text(span, "error.type"), Some("DEADLINE_EXCEEDED"));
    assert_eq!(text(span, "throughline.cancel.cause"), Some("deadline_exceeded"));
    assert!(matches!(span.status, Status::Error(_)));
    assert!(span.attributes.get("throughline.deadline.remaining_ms").is_some());
}

#[tokio::test]
async fn the_text_is_recorded_by_option_without_literals() {
    let (file, traced) = (File::with(Options::default().record_query_text(true)), Traced::new("bank"));
    let request = traced.ctx.span("find").start();
    let find = file.db.read(&request, |connection| {
        let sql = "SELECT id FROM accounts WHERE owner = 'literal-0815' AND id <> ?1 -- note-0816";
        Ok(connection.query_row(sql, [7], |_| Ok(())).is_err())
    });
    assert!(find.await.unwrap());
    request.end();
    let spans = traced.spans().await;
    assert!(
        spans.iter().any(|span| {
            text(span, "db.query.text") == Some("SELECT id FROM accounts WHERE owner = ? AND id <> ?1")
        })
    );
    assert!(!format!("{spans:?}").contains("081"));
}

#[tokio::test]
async fn the_values_of_parameters_are_nowhere_in_the_record() {
    let (file, traced) = (File::with(Options::default().record_query_text(true)), Traced::new("bank"));
    let request = traced.ctx.span("order").start();
    let secret = || "secret-4711".to_owned();
    let ctx = request.context();
    // One succeeds, and the others fail in all ways that could show a value.
    file.db
        .write(
            ctx,
            move |connection| Ok(connection.execute("UPDATE accounts SET owner = ?1 WHERE id = 1", [secret()])?),
        )
        .await
        .unwrap();
    for sql in [
        "INSERT INTO accounts VALUES (9, ?1, 0)",
        "SELECT json_extract('{}', ?1)",
        "SELECT json(?1)",
        "INSERT INTO accounts VALUES (?1, NULL, 0)",
    ] {
        let write = file
            .db
            .write(ctx, move |connection| Ok(connection.query_row(sql, [secret()], |row| row.get::<_, i64>(0))?));
        let error = write.await.unwrap_err();
        request.record_returned(&error);
    }
    let read = file.db.read(ctx, |connection| {
        Ok(connection.query_row("SELECT owner FROM accounts WHERE id = 1", [], |row| row.get::<_, i64>(0))?)
    });
    request.record_returned(&read.await.unwrap_err());
    request.end();
    let shown = format!("{:?}", traced.spans().await);
    assert!(shown.contains("SQLITE_CONSTRAINT_UNIQUE") && !shown.contains("4711"), "{shown}");
}

#[tokio::test]
async fn statements_of_triggers_and_an_unsampled_context_leave_no_span() {
    let (file, traced) = (File::new(), Traced::new("bank"));
    file.other()
        .execute_batch(
            "CREATE TRIGGER audit AFTER UPDATE ON accounts BEGIN INSERT INTO cards (account) VALUES (new.id); END",
        )
        .unwrap();
    let update = "UPDATE accounts SET balance = 1 WHERE id = 1";
    let request = traced.ctx.span("update").start();
    file.db.write(&request, move |connection| Ok(connection.execute(update, [])?)).await.unwrap();
    request.end();
    file.db.write(&BACKGROUND, move |connection| Ok(connection.execute(update, [])?)).await.unwrap();
    assert_eq!(
        outline(&traced.spans().await),
        "UPDATE accounts: db.operation.name=UPDATE db.collection.name=accounts\n"
    );
}
