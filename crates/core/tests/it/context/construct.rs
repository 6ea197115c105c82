//! C1–C4, C6–C8 and C31: deriving contexts.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use throughline_core::{AfterFunc, CancelHandle, Cause, Context, ContextError, Group, GroupHandle, Key};
use tokio::time::{Instant, advance};

use super::{Named, SECOND, is_ready, verdict};

static KEY: Key<&str> = Key::new("key");
static OTHER: Key<&str> = Key::new("other");

#[test]
fn c01_background_is_const_and_never_done() {
    const ROOT: Context = Context::background();
    static STATIC: Context = Context::background();
    for ctx in [&ROOT, &STATIC, &Context::default(), &Context::current()] {
        assert_eq!((verdict(ctx).as_str(), ctx.deadline(), ctx.remaining()), ("-/-", None, None));
        assert_eq!(ctx.value(&KEY), None);
        assert!(!is_ready(ctx) && ctx.check().is_ok());
    }
}

#[test]
fn c31_contexts_handles_and_groups_pass_through_catch_unwind() {
    fn check<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    check::<Context>();
    check::<CancelHandle>();
    check::<AfterFunc>();
    check::<Group<ContextError>>();
    check::<GroupHandle<u8, ContextError>>();
    let ctx = Context::background().with_timeout(60 * SECOND);
    assert!(std::panic::catch_unwind(|| ctx.check()).unwrap().is_ok());
}

#[test]
fn c02_dropping_the_handle_cancels_the_context() {
    let handle = Context::background().with_cancel();
    let ctx = handle.context().clone();
    let child = ctx.with_value(&KEY, "v");
    assert!(!ctx.is_done());
    drop(handle);
    assert_eq!([verdict(&ctx), verdict(&child)], ["C/handle_dropped", "C/handle_dropped"]);
}

#[test]
fn c02_handle_can_be_passed_as_its_context() {
    fn takes_a_context(ctx: &Context) -> bool {
        ctx.is_done()
    }
    let handle = Context::background().with_cancel();
    assert!(!takes_a_context(&handle), "a handle derefs to its context");
    handle.cancel();
    assert!(takes_a_context(&handle) && takes_a_context(handle.context()));
}

#[test]
fn c02_disarmed_handle_does_not_cancel() {
    let parent = Context::background().with_cancel();
    let ctx = parent.with_cancel().disarm();
    assert_eq!(verdict(&ctx), "-/-");
    parent.cancel_with(Named("P"));
    assert_eq!(verdict(&ctx), "C/P");
}

#[test]
fn c02_context_derived_from_a_temporary_handle_is_already_cancelled() {
    let ctx = Context::background().with_cancel().with_timeout(60 * SECOND);
    assert_eq!(verdict(&ctx), "C/handle_dropped");
}

#[tokio::test(start_paused = true)]
async fn c03_effective_deadline_is_the_earlier_one() {
    let now = Instant::now().into_std();
    for (parent, own, effective) in [(5, 9, 5), (9, 5, 5), (5, 5, 5)] {
        let ctx = Context::background().with_deadline(now + parent * SECOND);
        for child in [ctx.with_deadline(now + own * SECOND), ctx.with_cancel().with_timeout(own * SECOND)] {
            assert_eq!(child.deadline(), Some(now + effective * SECOND), "{parent} {own}");
        }
        assert_eq!(ctx.with_cancel().with_value(&KEY, "v").deadline(), ctx.deadline());
    }
}

#[tokio::test(start_paused = true)]
async fn c03_deadline_cause_is_reported_when_that_deadline_fires() {
    let at = (Instant::now() + SECOND).into_std();
    for ctx in [
        Context::background().with_deadline_cause(at, Named("slow")),
        Context::background().with_timeout_cause(SECOND, Named("slow")),
        Context::background().with_timeout(2 * SECOND).with_timeout_cause(SECOND, Named("slow")),
    ] {
        ctx.done().await;
        assert_eq!(verdict(&ctx), "D/slow");
    }
    let ctx = Context::background().with_timeout_cause(Duration::ZERO, Cause::Shutdown);
    assert!(matches!(ctx.cause(), Some(Cause::Shutdown)));
}

#[test]
fn c04_child_with_a_past_deadline_is_already_done_without_a_runtime() {
    let now = std::time::Instant::now();
    for ctx in [
        Context::background().with_deadline(now - SECOND),
        Context::background().with_deadline(now),
        Context::background().with_timeout(Duration::ZERO),
        Context::background().with_cancel().disarm().with_timeout(Duration::ZERO),
        Context::background().with_timeout(SECOND).with_timeout(Duration::ZERO),
    ] {
        assert_eq!((verdict(&ctx).as_str(), ctx.remaining()), ("D/D", Some(Duration::ZERO)), "{ctx:?}");
        assert!(is_ready(&ctx));
    }
}

#[test]
fn c06_contexts_below_without_cancel_form_their_own_tree() {
    let parent = Context::background().with_value(&KEY, "v").with_cancel();
    for freed in [parent.without_cancel(), parent.detach()] {
        let below = freed.with_cancel();
        let beside = freed.with_cancel();
        below.cancel_with(Named("K"));
        assert_eq!([verdict(&below), verdict(&freed), verdict(&beside)], ["C/K", "-/-", "-/-"]);
        assert_eq!(below.value(&KEY), Some(&"v"));
        assert!(!is_ready(&freed) && !is_ready(&beside));
    }
    let freed = parent.without_cancel().with_cancel();
    parent.cancel();
    assert_eq!(verdict(&freed), "-/-");
    assert_eq!(verdict(&Context::background().without_cancel()), "-/-");
}

#[test]
fn c07_merge_is_done_when_either_parent_is_done() {
    for cancels_a in [true, false] {
        let (a, b) = (Context::background().with_cancel(), Context::background().with_cancel());
        let merged = Context::merge(&a, &b);
        let below = merged.with_cancel();
        let early = below.clone();
        assert_eq!(verdict(&merged), "-/-");
        if cancels_a {
            a.cancel_with(Named("X"))
        } else {
            b.cancel_with(Named("X"))
        }
        assert_eq!([verdict(&early), verdict(&merged)], ["C/X", "C/X"], "a: {cancels_a}");
        assert_eq!([a.is_done(), b.is_done()], [cancels_a, !cancels_a], "a merge does not end its parents");
        a.cancel_with(Named("late"));
        b.cancel_with(Named("late"));
        assert_eq!(verdict(&merged), "C/X");
    }
    let done = Context::background().with_cancel();
    done.cancel_with(Named("X"));
    let live = Context::background().with_cancel();
    assert_eq!([verdict(&Context::merge(&live, &done)), verdict(&Context::merge(&done, &live))], ["C/X", "C/X"]);
}

#[tokio::test(start_paused = true)]
async fn c07_merge_has_the_earlier_deadline_and_its_cause() {
    let at = |seconds, cause| Context::background().with_timeout_cause(seconds * SECOND, Named(cause));
    for (a, b, expected) in [(1, 2, "D/a"), (2, 1, "D/b"), (1, 1, "D/a")] {
        let merged = Context::merge(&at(a, "a"), &at(b, "b"));
        assert_eq!(merged.remaining(), Some(SECOND), "{a} {b}");
        let waiting = Instant::now();
        merged.done().await;
        assert_eq!((waiting.elapsed(), verdict(&merged).as_str()), (SECOND, expected), "{a} {b}");
    }
}

#[tokio::test(start_paused = true)]
async fn c07_merge_keeps_the_first_of_a_deadline_and_a_cancellation() {
    let timed = Context::background().with_timeout_cause(SECOND, Named("slow"));
    let early = Context::background().with_cancel();
    let merges = [Context::merge(&timed, &early), Context::merge(&early, &timed)];
    early.cancel_with(Named("X"));
    advance(2 * SECOND).await;
    assert_eq!(merges.map(|merged| verdict(&merged)), ["C/X", "C/X"]);

    let timed = Context::background().with_timeout_cause(SECOND, Named("slow"));
    let late = Context::background().with_cancel();
    let merges = [Context::merge(&timed, &late), Context::merge(&late, &timed)];
    advance(2 * SECOND).await;
    late.cancel_with(Named("X"));
    assert_eq!(merges.map(|merged| verdict(&merged)), ["D/slow", "D/slow"]);
}

#[tokio::test(start_paused = true)]
async fn c07_merge_of_two_done_contexts_has_the_error_of_the_first() {
    let cancelled = Context::background().with_cancel();
    cancelled.cancel_with(Named("X"));
    let expired = Context::background().with_timeout_cause(Duration::ZERO, Named("slow"));
    let below_done = cancelled.with_timeout_cause(Duration::ZERO, Named("unused"));
    for (a, b, expected) in [
        (cancelled.context(), &expired, "C/X"),
        (&expired, cancelled.context(), "D/slow"),
        (cancelled.context(), &below_done, "C/X"),
        (&below_done, &expired, "C/X"),
        (&expired, &below_done, "D/slow"),
    ] {
        assert_eq!(verdict(&Context::merge(a, b)), expected, "{a:?} and {b:?}");
    }
}

#[test]
fn c07_merge_has_the_values_of_a_then_b() {
    let a = Context::background().with_value(&KEY, "a");
    let b = Context::background().with_value(&KEY, "b").with_value(&OTHER, "b");
    let merged = Context::merge(&a, &b);
    assert_eq!((merged.value(&KEY), merged.value(&OTHER)), (Some(&"a"), Some(&"b")));
    let merged = Context::merge(&b, &a);
    assert_eq!((merged.value(&KEY), merged.value(&OTHER)), (Some(&"b"), Some(&"b")));
    let merged = Context::merge(&Context::background(), &b);
    assert_eq!(merged.value(&OTHER), Some(&"b"));
    drop((a, b));
    assert_eq!(merged.value(&KEY), Some(&"b"), "values live as long as the merge");
}

#[test]
fn c07_nested_merges_are_not_exponential() {
    let (a, b) = (Context::background().with_cancel(), Context::background().with_cancel());
    let mut merged = (a.context().clone(), b.context().clone());
    for _ in 0..60 {
        merged = (Context::merge(&merged.0, &merged.1), Context::merge(&merged.1, &merged.0));
    }
    assert_eq!(merged.0.err(), None);
    b.cancel_with(Named("B"));
    assert_eq!([verdict(&merged.0), verdict(&merged.1)], ["C/B", "C/B"]);
}

#[test]
fn c08_timeout_that_overflows_sets_no_deadline() {
    let ctx = Context::background().with_timeout(Duration::MAX);
    assert_eq!((ctx.deadline(), ctx.remaining(), ctx.err()), (None, None, None));
    let timed = Context::background().with_timeout(60 * SECOND);
    assert_eq!(timed.with_timeout(Duration::MAX).deadline(), timed.deadline());
    let ctx = Context::background().with_timeout_cause(Duration::from_secs(u64::MAX), ContextError::Canceled);
    assert_eq!((ctx.deadline(), verdict(&ctx).as_str()), (None, "-/-"));
}
