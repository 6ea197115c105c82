//! The table of causes, one case per line.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use throughline_core::{CancelHandle, Cause, Context, ContextError, Group};
use tokio::time::advance;

use super::{Named, SECOND, verdict};

/// A step on a parent or its child.
#[derive(Clone, Copy, Debug)]
enum Step {
    Parent,
    ParentWith(&'static str),
    Child,
    ChildWith(&'static str),
}
use Step::{Child, ChildWith, Parent, ParentWith};

fn act(step: Step, parent: &CancelHandle, child: &CancelHandle) {
    match step {
        Parent => parent.cancel(),
        ParentWith(cause) => parent.cancel_with(Named(cause)),
        Child => child.cancel(),
        ChildWith(cause) => child.cancel_with(Named(cause)),
    }
}

#[test]
fn c12_table_of_causes_for_parent_and_child() {
    let rows: &[(&str, &[Step], &str, &str)] = &[
        ("nothing happens", &[], "-/-", "-/-"),
        ("cancel", &[Parent], "C/C", "C/C"),
        ("cancel_with(P)", &[ParentWith("P")], "C/P", "C/P"),
        ("parent(P) then child(K)", &[ParentWith("P"), ChildWith("K")], "C/P", "C/P"),
        ("child(K) then parent(P)", &[ChildWith("K"), ParentWith("P")], "C/P", "C/K"),
        ("parent(P) then plain child", &[ParentWith("P"), Child], "C/P", "C/P"),
        ("plain child then parent(P)", &[Child, ParentWith("P")], "C/P", "C/C"),
        ("plain parent then child(K)", &[Parent, ChildWith("K")], "C/C", "C/C"),
        ("child(K) then plain parent", &[ChildWith("K"), Parent], "C/C", "C/K"),
        ("parent(P) twice", &[ParentWith("P"), ParentWith("Q")], "C/P", "C/P"),
        ("child(K) alone", &[ChildWith("K")], "-/-", "C/K"),
    ];
    // Observed after every step, or only at the end.
    for observes_between in [false, true] {
        // A value and a far deadline in between must not change the result.
        for far in [None, Some(3600 * SECOND)] {
            for (row, steps, of_parent, of_child) in rows {
                let parent = Context::background().with_cancel();
                let between = far.map_or(parent.context().clone(), |far| parent.with_timeout(far));
                let child = between.with_cancel();
                for step in *steps {
                    act(*step, &parent, &child);
                    if observes_between {
                        let _ = (verdict(&child), verdict(&parent));
                    }
                }
                let case = format!("{row}, observes between: {observes_between}, deadline between: {far:?}");
                assert_eq!(verdict(&child), *of_child, "child of: {case}");
                assert_eq!(verdict(&parent), *of_parent, "parent of: {case}");
                assert_eq!(verdict(&child.clone()), *of_child, "child observed again: {case}");
            }
        }
    }
}

#[test]
fn c12_cause_is_named_in_snake_case_and_an_error_displays_its_own_message() {
    for (cause, name, words) in [
        (Cause::Canceled, "canceled", "canceled"),
        (Cause::DeadlineExceeded, "deadline_exceeded", "deadline exceeded"),
        (Cause::ClientDisconnected, "client_disconnected", "client disconnected"),
        (Cause::Abandoned, "abandoned", "abandoned"),
        (Cause::RequestFinished, "request_finished", "request finished"),
        (Cause::Shutdown, "shutdown", "shutting down"),
        (Cause::Panicked, "panicked", "panicked"),
        (Cause::HandleDropped, "handle_dropped", "cancel handle dropped"),
        (Named("slow disk").into(), "error", "slow disk"),
    ] {
        let handle = Context::background().with_cancel();
        handle.cancel_with(cause);
        let seen = handle.with_cancel().cause().unwrap();
        assert_eq!((seen.name(), seen.to_string().as_str()), (name, words));
    }
}

#[test]
fn c12_handle_dropped_without_cancel_is_the_cause() {
    let already_done = Context::background().with_cancel().with_timeout(SECOND);
    assert_eq!(verdict(&already_done), "C/handle_dropped");
    let handle = Context::background().with_cancel();
    let ctx = handle.context().clone();
    handle.cancel();
    drop(handle);
    assert_eq!(verdict(&ctx), "C/C", "an explicit cancel comes first");
}

#[test]
fn c12_context_error_converts_to_the_cause_of_the_same_name() {
    let (canceled, late) = (ContextError::Canceled, ContextError::DeadlineExceeded);
    let shared: Arc<dyn Error + Send + Sync> = Arc::new(late);
    for (cause, name) in [
        (Cause::from(canceled), "canceled"),
        (Cause::from(late), "deadline_exceeded"),
        (Cause::from(Box::new(late)), "deadline_exceeded"),
        (Cause::from(Arc::new(canceled)), "canceled"),
        (Cause::from(Arc::clone(&shared)), "deadline_exceeded"),
        (Cause::Error(shared), "deadline_exceeded"),
        (Cause::from(Box::new(Cause::Shutdown)), "shutdown"),
        (Cause::from(Box::new(Cause::Error(Arc::new(late)))), "deadline_exceeded"),
        (Cause::from(Named("late")), "error"),
    ] {
        let handle = Context::background().with_cancel();
        handle.cancel_with(cause.clone());
        assert_eq!(handle.cause().unwrap().name(), name, "{cause:?}");
        let timed = Context::background().with_timeout_cause(Duration::ZERO, cause.clone());
        assert_eq!(timed.cause().unwrap().name(), name, "{cause:?}");
    }
    // The cause holds the same shared error.
    let shared: Arc<dyn Error + Send + Sync> = Arc::new(Named("shared"));
    let Cause::Error(error) = Cause::from(Arc::clone(&shared)) else { panic!("it is an error") };
    assert!(Arc::ptr_eq(&shared, &error));
}

#[tokio::test]
async fn c12_group_that_fails_with_a_context_error_has_the_cause_of_the_same_name() {
    let mut group: Group<ContextError> = Group::new(&Context::background());
    let ctx = group.context().clone();
    drop(group.spawn(async |_| Err::<(), _>(ContextError::DeadlineExceeded)));
    assert_eq!(group.join().await, Err(ContextError::DeadlineExceeded));
    assert_eq!(verdict(&ctx), "C/D");
}

#[test]
fn c12_table_of_causes_for_the_background() {
    assert_eq!(verdict(&Context::background()), "-/-");
}

#[tokio::test(start_paused = true)]
async fn c12_table_of_causes_for_timeouts() {
    type Make = fn(&Context) -> Context;
    // Case, constructor, seconds until the cancellation, its cause if any, seconds until the
    // observation, verdict.
    type Row = (&'static str, Make, u64, Option<Option<&'static str>>, u64, &'static str);
    let expired: Make = |parent| parent.with_timeout(Duration::ZERO);
    let expired_cause: Make = |parent| parent.with_timeout_cause(Duration::ZERO, Named("slow"));
    let live: Make = |parent| parent.with_timeout(SECOND);
    let live_cause: Make = |parent| parent.with_timeout_cause(SECOND, Named("slow"));
    // The timeout is derived from a handle. `cancel` says whether and how the handle is cancelled;
    // time passes before or after that.
    let rows: &[Row] = &[
        ("timeout 0 then cancel", expired, 0, Some(None), 0, "D/D"),
        ("timeout cancelled before firing", live, 0, Some(None), 0, "C/C"),
        ("timeout cancelled before firing, seen after", live, 0, Some(None), 2, "C/C"),
        ("timeout fires", live, 2, None, 0, "D/D"),
        ("timeout fires, then cancel", live, 2, Some(None), 0, "D/D"),
        ("timeout fires, then parent cancel_with(P)", live, 2, Some(Some("P")), 0, "D/D"),
        ("timeout_cause(0, slow)", expired_cause, 0, None, 0, "D/slow"),
        ("timeout_cause fires", live_cause, 2, None, 0, "D/slow"),
        ("timeout_cause cancelled before firing", live_cause, 0, Some(None), 0, "C/C"),
        ("timeout_cause cancelled before firing, seen after", live_cause, 0, Some(None), 2, "C/C"),
        ("expired timeout_cause then parent cancel", expired_cause, 0, Some(None), 0, "D/slow"),
        ("fired timeout_cause then parent cancel", live_cause, 2, Some(None), 0, "D/slow"),
        ("live timeout_cause then parent cancel_with(P)", live_cause, 0, Some(Some("P")), 0, "C/P"),
        ("live timeout_cause then parent cancel_with(P), seen after", live_cause, 0, Some(Some("P")), 2, "C/P"),
        ("nothing happens", live, 0, None, 0, "-/-"),
    ];
    for observes_between in [false, true] {
        for (row, make, before, cancel, after, expected) in rows {
            let handle = Context::background().with_cancel();
            let ctx = make(&handle);
            let below = ctx.with_cancel();
            advance(Duration::from_secs(*before)).await;
            if observes_between {
                let _ = verdict(&ctx);
            }
            match cancel {
                Some(Some(cause)) => handle.cancel_with(Named(cause)),
                Some(None) => handle.cancel(),
                None => {}
            }
            advance(Duration::from_secs(*after)).await;
            // The child is observed first, which latches its ancestors too.
            let case = format!("{row}, observes between: {observes_between}");
            assert_eq!(verdict(&below), *expected, "below: {case}");
            assert_eq!(verdict(&ctx), *expected, "{case}");
            assert_eq!(verdict(&ctx.with_cancel()), *expected, "derived afterwards: {case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c06_table_of_causes_for_without_cancel() {
    let fresh = Context::background().with_cancel();
    let cancelled = Context::background().with_cancel();
    cancelled.cancel_with(Named("P"));
    let expired = Context::background().with_timeout_cause(Duration::ZERO, Named("slow"));
    assert_eq!((verdict(&cancelled), verdict(&expired)), ("C/P".into(), "D/slow".into()));
    for (row, parent) in [("fresh", fresh.context()), ("cancelled", cancelled.context()), ("expired", &expired)] {
        for (name, freed) in [("without_cancel", parent.without_cancel()), ("detach", parent.detach())] {
            assert_eq!(verdict(&freed), "-/-", "{name} of a {row} parent");
            assert_eq!(freed.deadline(), None, "{name} of a {row} parent");
        }
    }
}

#[test]
fn c12_exactly_one_question_about_a_cause_is_true() {
    let asked = |cause: &Cause| {
        let answers = [
            (cause.is_canceled(), "canceled"),
            (cause.is_timeout(), "deadline_exceeded"),
            (cause.is_client_disconnected(), "client_disconnected"),
            (cause.is_abandoned(), "abandoned"),
            (cause.is_request_finished(), "request_finished"),
            (cause.is_shutdown(), "shutdown"),
            (cause.is_panicked(), "panicked"),
            (cause.is_handle_dropped(), "handle_dropped"),
            (cause.downcast_ref::<Named>().is_some(), "error"),
        ];
        answers.into_iter().filter_map(|(is, name)| is.then_some(name)).collect::<Vec<_>>()
    };
    for cause in [
        Cause::Canceled,
        Cause::DeadlineExceeded,
        Cause::ClientDisconnected,
        Cause::Abandoned,
        Cause::RequestFinished,
        Cause::Shutdown,
        Cause::Panicked,
        Cause::HandleDropped,
        Named("own").into(),
    ] {
        assert_eq!(asked(&cause), [cause.name()]);
    }
}

#[test]
fn c12_downcast_finds_the_error_through_the_tree_and_no_other_type() {
    let parent = Context::background().with_cancel();
    let child = parent.with_cancel();
    parent.cancel_with(Named("P"));
    let cause = child.cause().unwrap();
    assert_eq!(cause.downcast_ref(), Some(&Named("P")));
    assert!(cause.downcast_ref::<std::io::Error>().is_none());
    let outer = Cause::from(std::io::Error::other(Named("inner")));
    assert!(outer.downcast_ref::<Named>().is_none(), "not its sources");
}
