//! Equality and hash of contexts.

use std::collections::{HashMap, HashSet};

use throughline_core::{Context, Key};

use super::SECOND;

static KEY: Key<u8> = Key::new("key");

#[test]
fn a_clone_is_equal_and_a_child_is_not() {
    let handle = Context::background().with_cancel();
    let timed = handle.with_timeout(SECOND);
    let valued = timed.with_value(&KEY, 1);
    let all = [handle.context(), &timed, &valued, &valued.with_cancel().disarm(), &Context::merge(&timed, &valued)];
    for (n, ctx) in all.iter().enumerate() {
        assert_eq!(**ctx, (*ctx).clone());
        for other in &all[..n] {
            assert_ne!(ctx, other);
        }
    }
    assert_eq!(all.into_iter().chain(all).collect::<HashSet<_>>().len(), all.len());
}

#[test]
fn contexts_with_the_same_content_are_not_equal() {
    let parent = Context::background();
    assert_ne!(parent.with_value(&KEY, 1), parent.with_value(&KEY, 1));
    let at = std::time::Instant::now() + SECOND;
    assert_ne!(parent.with_deadline(at), parent.with_deadline(at));
}

#[test]
fn a_derivation_that_changes_nothing_returns_an_equal_context() {
    let timed = Context::background().with_timeout(SECOND);
    assert_eq!(timed.with_timeout(2 * SECOND), timed);
    assert_eq!(Context::merge(&timed, &timed), timed);
    assert_eq!(Context::background().detach(), Context::default());
}

#[test]
fn a_map_finds_a_context_after_it_is_done_and_its_handle_is_dropped() {
    let mut names = HashMap::new();
    let mut contexts = Vec::new();
    for n in 0..100 {
        let handle = Context::background().with_cancel();
        contexts.push(handle.context().clone());
        names.insert(handle.context().clone(), n);
    }
    assert!(contexts.iter().all(Context::is_done), "their handles were dropped");
    for (n, ctx) in contexts.iter().enumerate() {
        assert_eq!(names.get(ctx), Some(&n));
    }
    assert_eq!(names.get(&Context::background()), None);
}
