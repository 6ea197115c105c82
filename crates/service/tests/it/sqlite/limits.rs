//! Connections and waiting callers are limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use futures_util::future::join_all;
use throughline::{Code, Context};
use throughline_service::sqlite::Options;
use tokio::sync::oneshot;

use super::{BACKGROUND, File, balance, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_statements_use_two_connections() {
    let file = File::with(Options::default().readers(2));
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let queries = (0..1000).map(|_| {
        let (db, running, most) = (file.db.clone(), Arc::clone(&running), Arc::clone(&most));
        tokio::spawn(async move {
            db.read(&BACKGROUND, move |connection| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let found = balance(connection, 1);
                running.fetch_sub(1, Ordering::SeqCst);
                found
            })
            .await
        })
    });
    for found in join_all(queries).await {
        assert_eq!(found.unwrap().unwrap(), 100);
    }
    assert!((1..=2).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    assert_eq!((file.db.counters().in_use, file.db.counters().waiting), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_transactions_lose_no_update() {
    let file = File::new();
    let additions = (0..200).map(|_| {
        let db = file.db.clone();
        tokio::spawn(async move {
            db.transaction(&BACKGROUND, |tx| {
                let now = balance(tx, 1)?;
                Ok(tx.execute("UPDATE accounts SET balance = ?1 WHERE id = 1", [now + 1])?)
            })
            .await
        })
    });
    for added in join_all(additions).await {
        assert_eq!(added.unwrap().unwrap(), 1);
    }
    assert_eq!(file.balance(1).await, 300);
    assert_eq!(file.db.counters().lock_waits, 0, "writers of one process wait in the pool, not for a lock");
}

#[tokio::test]
async fn a_caller_that_waits_leaves_when_its_context_is_done_and_more_are_refused() {
    let file = File::with(Options::default().readers(1).max_waiting(1));
    let (release, wait) = mpsc::channel::<()>();
    let (began, running) = oneshot::channel();
    let db = file.db.clone();
    let first = tokio::spawn(async move {
        db.read(&BACKGROUND, move |_| {
            began.send(()).unwrap();
            wait.recv().unwrap();
            Ok(())
        })
        .await
    });
    running.await.unwrap();
    let request = Context::background().with_cancel();
    let (db, ctx) = (file.db.clone(), request.context().clone());
    let second = tokio::spawn(async move { db.read(&ctx, |connection| balance(connection, 1)).await });
    until(|| file.db.counters().waiting == 1).await;
    let third = file.db.read(&BACKGROUND, |connection| balance(connection, 1)).await;
    assert_eq!(third.unwrap_err().code(), Code::ResourceExhausted);
    request.cancel();
    assert_eq!(second.await.unwrap().unwrap_err().code(), Code::Cancelled);
    assert_eq!(file.db.counters().waiting, 0);
    release.send(()).unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(file.balance(1).await, 100);
}

#[tokio::test]
async fn readers_do_not_wait_for_the_writer() {
    let file = File::new();
    let (release, wait) = mpsc::channel::<()>();
    let (began, running) = oneshot::channel();
    let db = file.db.clone();
    let transfer = tokio::spawn(async move {
        db.transaction(&BACKGROUND, move |tx| {
            tx.execute("UPDATE accounts SET balance = 0", [])?;
            began.send(()).unwrap();
            wait.recv().unwrap();
            Ok(())
        })
        .await
    });
    running.await.unwrap();
    assert_eq!(file.balance(1).await, 100, "the reader sees the last commit");
    release.send(()).unwrap();
    transfer.await.unwrap().unwrap();
    assert_eq!(file.balance(1).await, 0);
}
