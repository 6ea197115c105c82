//! When a transaction is committed.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use throughline::{Cause, Code, Context, Error};
use throughline_service::sqlite::rusqlite::{DropBehavior, Transaction};
use throughline_service::sqlite::{Database, StatementError};

use super::{BACKGROUND, File, balance, count};

const EMPTY: &str = "UPDATE accounts SET balance = 0";

/// Runs a transaction that fails, and checks that the balance is as before.
async fn rolled_back(
    ctx: &Context,
    code: impl FnOnce(&mut Transaction<'_>) -> Result<(), StatementError> + Send + 'static,
) -> Error {
    let file = File::new();
    let error = file.db.transaction(ctx, code).await.unwrap_err();
    assert_eq!(file.balance(1).await, 100);
    error
}

#[tokio::test]
async fn it_is_committed_when_the_closure_succeeds() {
    let file = File::new();
    file.db.transaction(&BACKGROUND, |tx| Ok(tx.execute(EMPTY, [])?)).await.unwrap();
    assert_eq!(file.balance(1).await, 0);
}

#[tokio::test]
async fn it_is_rolled_back_when_the_closure_fails() {
    let error = rolled_back(&BACKGROUND, |tx| {
        tx.execute(EMPTY, [])?;
        // The behaviour on a drop does not matter.
        tx.set_drop_behavior(DropBehavior::Commit);
        Err(Error::new(Code::FailedPrecondition, "too low"))?
    })
    .await;
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "too low"));
}

#[tokio::test]
async fn it_is_rolled_back_when_the_closure_panics_and_the_pool_survives() {
    let file = File::new();
    for _ in 0..3 {
        let transfer = file.db.transaction(&BACKGROUND, |tx| -> Result<(), _> {
            tx.set_drop_behavior(DropBehavior::Commit);
            tx.execute(EMPTY, [])?;
            panic!("a defect")
        });
        let panic = AssertUnwindSafe(transfer).catch_unwind().await.unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"a defect"));
    }
    assert_eq!(file.db.transaction(&BACKGROUND, |tx| balance(tx, 1)).await.unwrap(), 100);
    assert_eq!(file.db.counters().in_use, 0);
}

#[tokio::test]
async fn it_is_rolled_back_when_the_context_is_done_before_the_commit() {
    let request = Context::background().with_cancel();
    let error = rolled_back(&request.context().clone(), move |tx| {
        tx.execute(EMPTY, [])?;
        request.cancel_with(Cause::ClientDisconnected);
        Ok(())
    })
    .await;
    assert_eq!((error.code(), error.message()), (Code::Cancelled, "client disconnected"));
}

#[tokio::test]
async fn an_interruption_that_the_closure_ignores_does_not_commit() {
    let request = Context::background().with_cancel();
    let error = rolled_back(&request.context().clone(), move |tx| {
        tx.execute(EMPTY, [])?;
        request.cancel();
        let _ = tx.execute(EMPTY, []);
        Ok(())
    })
    .await;
    assert_eq!(error.code(), Code::Cancelled);
}

#[tokio::test]
async fn a_transaction_that_the_closure_ends_itself_is_an_error() {
    let file = File::new();
    let transfer = file.db.transaction(&BACKGROUND, |tx| Ok(tx.execute_batch("ROLLBACK")?));
    assert_eq!(transfer.await.unwrap_err().code(), Code::Internal);
    file.db.transaction(&BACKGROUND, |tx| balance(tx, 1)).await.unwrap();
}

#[tokio::test]
async fn a_constraint_that_is_checked_at_the_commit_rolls_back() {
    let file = File::new();
    let order = file.db.transaction(&BACKGROUND, |tx| {
        tx.execute(EMPTY, [])?;
        Ok(tx.execute("INSERT INTO cards VALUES (1, 99)", [])?)
    });
    assert_eq!(order.await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(file.balance(1).await, 100);
}

#[tokio::test]
async fn a_transaction_that_is_left_open_does_not_reach_the_next_user() {
    let file = File::new();
    let write = file.db.write(&BACKGROUND, |connection| {
        connection.execute_batch("BEGIN")?;
        Ok(connection.execute(EMPTY, [])?)
    });
    assert_eq!(write.await.unwrap(), 2);
    assert_eq!(file.db.transaction(&BACKGROUND, |tx| balance(tx, 1)).await.unwrap(), 100);
}

#[tokio::test]
async fn savepoints_work_inside() {
    let file = File::new();
    let transfer = file.db.transaction(&BACKGROUND, |tx| {
        tx.execute("UPDATE accounts SET balance = 1 WHERE id = 1", [])?;
        let savepoint = tx.savepoint()?;
        savepoint.execute(EMPTY, [])?;
        drop(savepoint);
        Ok(())
    });
    transfer.await.unwrap();
    assert_eq!((file.balance(1).await, file.balance(2).await), (1, 100));
}

#[tokio::test]
async fn readers_cannot_write_in_a_file_and_in_memory() {
    let file = File::new();
    let memory = Database::open_in_memory().unwrap();
    for db in [&file.db, &memory] {
        let read = db.read(&BACKGROUND, |connection| Ok(connection.execute("CREATE TABLE x (y)", [])?));
        assert_eq!(read.await.unwrap_err().code(), Code::Internal);
        db.write(&BACKGROUND, |connection| Ok(connection.execute_batch("CREATE TABLE x (y)")?)).await.unwrap();
        assert_eq!(db.read(&BACKGROUND, |connection| count(connection, "SELECT count(*) FROM x")).await.unwrap(), 0);
    }
}
