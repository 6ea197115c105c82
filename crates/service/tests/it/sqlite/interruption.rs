//! Statements stop with their context.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use throughline::{Cause, Code, Context};
use tokio::sync::oneshot;

use super::{BACKGROUND, ENDLESS, File, balance, count, read_for_ever, until};

#[tokio::test]
async fn a_cancelled_statement_stops_and_its_connection_is_free() {
    let file = File::new();
    let request = Context::background().with_cancel();
    let (began, running) = oneshot::channel();
    let (db, ctx) = (file.db.clone(), request.context().clone());
    let query =
        tokio::spawn(
            async move { db.read(&ctx, |connection| read_for_ever(connection, || began.send(()).unwrap())).await },
        );
    running.await.unwrap();
    request.cancel_with(Cause::ClientDisconnected);
    let error = query.await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Cancelled, "client disconnected"));
    assert_eq!((file.db.counters().in_use, file.db.counters().interrupted), (0, 1));
    assert_eq!(file.balance(1).await, 100, "the only reader works");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_stops_a_statement_and_its_connection_is_free() {
    let file = File::new();
    let ctx = Context::background().with_timeout(Duration::from_secs(1));
    let (began, running) = oneshot::channel();
    let db = file.db.clone();
    let query =
        tokio::spawn(
            async move { db.read(&ctx, |connection| read_for_ever(connection, || began.send(()).unwrap())).await },
        );
    running.await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(query.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(file.balance(1).await, 100, "the only reader works");
}

#[tokio::test]
async fn a_statement_that_returns_no_row_stops_too() {
    let file = File::new();
    let request = Context::background().with_cancel();
    let (began, running) = oneshot::channel();
    let (db, ctx) = (file.db.clone(), request.context().clone());
    let query = tokio::spawn(async move {
        db.read(&ctx, move |connection| {
            // A statement with an endless one inside, which reports its begin.
            let mut statement = connection.prepare(&format!("SELECT 1 UNION ALL SELECT * FROM ({ENDLESS})"))?;
            let mut rows = statement.query([])?;
            rows.next()?;
            began.send(()).unwrap();
            rows.next()?;
            Ok(())
        })
        .await
    });
    running.await.unwrap();
    request.cancel();
    assert_eq!(query.await.unwrap().unwrap_err().code(), Code::Cancelled);
}

#[tokio::test]
async fn a_dropped_future_stops_its_statement() {
    let file = File::new();
    let (began, running) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    let db = file.db.clone();
    let query = tokio::spawn(async move {
        db.read(&BACKGROUND, |connection| {
            let result = read_for_ever(connection, || began.send(()).unwrap());
            ended.send(result.is_err()).unwrap();
            result
        })
        .await
    });
    running.await.unwrap();
    query.abort();
    assert!(end.await.unwrap(), "the statement was interrupted");
    assert_eq!(file.balance(1).await, 100, "the only reader works");
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back() {
    let file = File::new();
    let (began, running) = oneshot::channel();
    let db = file.db.clone();
    let transfer = tokio::spawn(async move {
        db.transaction(&BACKGROUND, |tx| {
            tx.execute("UPDATE accounts SET balance = 0", [])?;
            read_for_ever(tx, || began.send(()).unwrap())
        })
        .await
    });
    running.await.unwrap();
    transfer.abort();
    let changed = file.db.transaction(&BACKGROUND, |tx| {
        Ok(tx.execute("UPDATE accounts SET balance = balance + 1 WHERE balance = 100", [])?)
    });
    assert_eq!(changed.await.unwrap(), 2, "the writer is free, and nothing was changed");
}

#[tokio::test]
async fn a_statement_of_a_done_context_never_begins() {
    let file = File::new();
    let done = Context::background().with_timeout(Duration::ZERO);
    let error = file.db.write(&done, |_| -> Result<(), _> { unreachable!("it never begins") }).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);

    // Also within the code on a connection, however short the statement is.
    let request = Context::background().with_cancel();
    let ctx = request.context().clone();
    let write = file.db.write(&ctx, move |connection| -> Result<(), _> {
        let mut statement = connection.prepare_cached("UPDATE accounts SET balance = 1 WHERE id = 1")?;
        request.cancel_with(Cause::Shutdown);
        statement.execute([])?;
        unreachable!("it never begins")
    });
    let error = write.await.unwrap_err();
    assert_eq!(error.code(), Code::Cancelled);
    assert_eq!(file.balance(1).await, 100);
}

#[tokio::test]
async fn a_statement_that_waits_for_a_lock_stops() {
    let file = File::new();
    let other = file.other();
    other.execute_batch("BEGIN IMMEDIATE; UPDATE accounts SET balance = 1").unwrap();
    let request = Context::background().with_cancel();
    let (db, ctx) = (file.db.clone(), request.context().with_timeout(Duration::from_secs(3600)));
    let was_called = Arc::new(AtomicBool::new(false));
    let called = Arc::clone(&was_called);
    let transfer = tokio::spawn(async move {
        db.transaction(&ctx, move |_| {
            called.store(true, Ordering::Relaxed);
            Ok(())
        })
        .await
    });
    until(|| file.db.counters().lock_waits > 2).await;
    request.cancel_with(Cause::Shutdown);
    let error = transfer.await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Cancelled, &*Cause::Shutdown.to_string()));
    assert!(!was_called.load(Ordering::Relaxed));
    other.execute_batch("ROLLBACK").unwrap();
    file.db.transaction(&BACKGROUND, |tx| balance(tx, 1)).await.unwrap();
}

#[tokio::test]
async fn a_lock_that_is_released_lets_the_statement_continue() {
    let file = File::new();
    let other = file.other();
    other.execute_batch("BEGIN IMMEDIATE; UPDATE accounts SET balance = 1").unwrap();
    let db = file.db.clone();
    let write = tokio::spawn(async move { db.transaction(&BACKGROUND, |tx| balance(tx, 1)).await });
    until(|| file.db.counters().lock_waits > 0).await;
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(write.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_shielded_statement_is_not_interrupted() {
    let file = File::new();
    let request = Context::background().with_cancel();
    let ctx = request.shielded(Duration::from_secs(3600));
    let (began, running) = oneshot::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let db = file.db.clone();
    let transfer = tokio::spawn(async move {
        db.transaction(&ctx, move |tx| {
            began.send(()).unwrap();
            wait.recv().unwrap();
            Ok(tx.execute("UPDATE accounts SET balance = 7 WHERE id = 1", [])?)
        })
        .await
    });
    running.await.unwrap();
    request.cancel();
    go_on.send(()).unwrap();
    assert_eq!(transfer.await.unwrap().unwrap(), 1);
    assert_eq!(file.balance(1).await, 7);
}

#[tokio::test]
async fn a_statement_that_waits_for_a_thread_of_the_runtime_leaves_its_queue() {
    let file = File::new();
    let (release, blocked) = mpsc::channel::<()>();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).build().unwrap();
    let (began, running) = oneshot::channel();
    let other = runtime.spawn_blocking(move || {
        began.send(()).unwrap();
        blocked.recv()
    });
    running.await.unwrap();
    let request = Context::background().with_cancel();
    let (db, ctx) = (file.db.clone(), request.context().clone());
    let query = runtime.spawn(async move { db.read(&ctx, |connection| balance(connection, 1)).await });
    until(|| file.db.counters().in_use == 1).await;
    request.cancel();
    assert_eq!(query.await.unwrap().unwrap_err().code(), Code::Cancelled);
    assert_eq!(file.balance(1).await, 100, "the connection was returned, though the thread is still busy");
    release.send(()).unwrap();
    other.await.unwrap().unwrap();
    runtime.shutdown_background();
}

#[tokio::test]
async fn work_that_ends_in_spite_of_a_cancellation_keeps_its_result() {
    let file = File::new();
    let request = Context::background().with_cancel();
    let ctx = request.context().clone();
    let read = file.db.read(&ctx, move |connection| {
        let found = count(connection, "SELECT count(*) FROM accounts")?;
        request.cancel();
        Ok(found)
    });
    assert_eq!(read.await.unwrap(), 2);
}
