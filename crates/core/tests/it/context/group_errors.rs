//! C26: groups that continue on errors, and groups with errors of any type.

use std::error::Error;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use throughline_core::{Cause, Context, ContextError, Group, SharedError, try_join};
use tokio::sync::Barrier;
use tokio::task::yield_now;

use super::groups::Failure::{self, Own};
use super::groups::{CANCELED, Counted, endless};
use super::{Named, verdict};

#[tokio::test]
async fn c26_group_that_continues_on_errors_runs_all_tasks_and_returns_the_first_error() {
    let mut group: Group<Failure> = Group::new(&Context::background()).with_limit(1).continue_on_error();
    let names = ["first", "second", "third"];
    let failing = names.map(|name| group.spawn(async move |_| Err::<(), _>(Own(name))));
    let last = group.spawn(async |ctx| {
        yield_now().await;
        Ok(verdict(&ctx))
    });
    assert_eq!(group.wait().await, Err(Own("first")));
    assert_eq!(verdict(group.context()), "-/-", "an error does not end it");
    let later = group.spawn(async |_| Ok(7));
    assert_eq!(group.join().await, Err(Own("first")));
    assert_eq!((last.await, later.await), (Ok("-/-".into()), Ok(7)));
    for (handle, name) in failing.into_iter().zip(names) {
        assert_eq!(handle.await, Err(Own(name)));
    }
}

#[tokio::test]
async fn c26_group_that_continues_on_errors_still_stops_with_its_parent() {
    let parent = Context::background().with_cancel();
    let mut group: Group<Failure> = Group::new(&parent).continue_on_error();
    let alive = Arc::default();
    let counted = Counted::new(&alive);
    let stopped = group.spawn(move |_| endless::<()>(counted));
    yield_now().await;
    parent.cancel();
    assert_eq!((group.join().await, stopped.await), (Err(CANCELED), Err(CANCELED)));
}

#[tokio::test]
async fn c26_panic_cancels_a_group_that_continues_on_errors() {
    let mut group: Group<Failure> = Group::new(&Context::background()).continue_on_error();
    let alive = Arc::default();
    let counted = Counted::new(&alive);
    let stopped = group.spawn(move |_| endless::<()>(counted));
    drop(group.spawn(async |_| -> Result<(), _> { panic!("first") }));
    let panicked = AssertUnwindSafe(group.join()).catch_unwind().await;
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"first"));
    assert_eq!(stopped.await, Err(CANCELED));
}

fn missing() -> Result<(), io::Error> {
    Err(io::Error::new(io::ErrorKind::NotFound, "no such card"))
}

fn rejected() -> anyhow::Result<()> {
    Err(anyhow::Error::new(Named("inner")).context("outer"))
}

#[tokio::test]
async fn c26_group_takes_io_errors_and_the_cause_is_the_same_error() {
    let mut group: Group<SharedError> = Group::new(&Context::background());
    let ctx = group.context().clone();
    let failing = group.spawn(async |_| Ok(missing()?));
    let error = group.join().await.unwrap_err();
    let Some(Cause::Error(cause)) = ctx.cause() else { panic!("the cause is an error") };
    assert!(Arc::ptr_eq(&cause, &error.clone().into_arc()));
    assert!(Arc::ptr_eq(&cause, &failing.await.unwrap_err().into_arc()));
    assert_eq!(error.downcast_ref::<io::Error>().map(io::Error::kind), Some(io::ErrorKind::NotFound));
    assert_eq!(error.to_string(), "no such card");
    assert_eq!(format!("{error:?}"), format!("{:?}", missing().unwrap_err()));
}

#[tokio::test]
async fn c26_group_takes_anyhow_errors_and_keeps_their_sources() {
    let mut group: Group<SharedError> = Group::new(&Context::background());
    drop(group.spawn(async |_| Ok(rejected()?)));
    let error = group.join().await.unwrap_err();
    assert_eq!(error.to_string(), "outer");
    assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("inner"));
    let error = anyhow::Error::from(error.into_arc());
    assert_eq!(format!("{error:#}"), "outer: inner");
}

#[tokio::test]
async fn c26_shared_error_takes_boxed_errors_and_texts() {
    let boxed: Box<dyn Error + Send + Sync> = Box::new(Named("boxed"));
    assert_eq!(SharedError::from(boxed).downcast_ref(), Some(&Named("boxed")));
    assert_eq!(SharedError::from("text").to_string(), "text");
    assert_eq!(SharedError::from(String::from("text")).to_string(), "text");
}

#[tokio::test]
async fn c26_stop_of_a_group_is_a_context_error_in_its_shared_error() {
    let parent = Context::background().with_cancel();
    let mut group: Group<SharedError> = Group::new(&parent);
    let stopped = group.spawn(async |_| Ok(std::future::pending::<u8>().await));
    parent.cancel();
    let error = group.join().await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&ContextError::Canceled));
    assert_eq!(stopped.await.unwrap_err().downcast_ref(), Some(&ContextError::Canceled));
    assert!(matches!(Cause::from(error), Cause::Canceled), "not `Error`");
}

#[tokio::test]
async fn c26_try_join_takes_shared_errors() {
    let all = Barrier::new(2);
    let ctx = Context::background();
    let both = try_join(
        &ctx,
        async |_| {
            all.wait().await;
            Ok::<_, SharedError>(missing()?)
        },
        async |_| {
            all.wait().await;
            Ok(std::future::pending::<u8>().await)
        },
    );
    assert_eq!(both.await.unwrap_err().downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::NotFound);
}
