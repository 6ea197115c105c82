//! C29: `Debug` of a context.

use std::time::Duration;

use throughline_core::{Context, Key};
use tokio::time::advance;

use super::SECOND;

static TENANT: Key<&str> = Key::new("tenant");
static PASSWORD: Key<Secret> = Key::new("password");

/// It does not implement `Debug`, and does not need to.
struct Secret(#[allow(dead_code)] &'static str);

#[tokio::test(start_paused = true)]
async fn c29_debug_prints_the_chain_of_derivations() {
    let handle = Context::background().with_cancel();
    let ctx = handle.with_timeout(Duration::from_millis(250)).with_value(&TENANT, "acme");
    let chain = |left| format!("background.with_cancel.with_deadline({left}).with_value(tenant)");
    assert_eq!(format!("{ctx:?}"), chain("+250ms"));
    advance(Duration::from_millis(50)).await;
    assert_eq!(format!("{ctx:?}"), chain("+200ms"));
    advance(SECOND).await;
    assert_eq!(format!("{ctx:?}"), chain("-800ms"));
    handle.cancel();
    assert_eq!(format!("{ctx:?}"), chain("-800ms"), "printing changes nothing");
}

#[tokio::test(start_paused = true)]
async fn c29_debug_names_every_way_to_derive() {
    let root = Context::background();
    let handle = root.with_cancel();
    for (ctx, expected) in [
        (root.clone(), "background"),
        (handle.context().clone(), "background.with_cancel"),
        (root.with_timeout(SECOND), "background.with_deadline(+1s)"),
        (root.with_timeout(SECOND).with_timeout(2 * SECOND), "background.with_deadline(+1s)"),
        (root.with_timeout(Duration::ZERO), "background.with_deadline(+0ns)"),
        (handle.without_cancel(), "background.with_cancel.without_cancel"),
        (root.with_value(&TENANT, "t").without_value(&TENANT), "background.with_value(tenant).without_value(tenant)"),
        (Context::merge(&handle, &root.with_timeout(SECOND)), "background.with_cancel.merge(…)"),
    ] {
        assert_eq!(format!("{ctx:?}"), expected);
    }
    assert_eq!(format!("{handle:?}"), "background.with_cancel", "a handle is shown as its context");
}

#[test]
fn c29_debug_never_shows_a_value() {
    let ctx = Context::background().with_value(&PASSWORD, Secret("hunter2")).with_value(&TENANT, "acme");
    let handle = ctx.with_cancel();
    let shown = [
        format!("{ctx:?} {ctx:#?}"),
        format!("{handle:?} {handle:#?}"),
        format!("{:?}", ctx.done()),
        format!("{:?}", ctx.done_owned()),
        format!("{:?}", ctx.run(async {})),
        format!("{:?}", ctx.scope(std::future::ready(()))),
        format!("{PASSWORD:?}"),
    ];
    for text in &shown {
        assert!(!text.contains("hunter2") && !text.contains("acme"), "{text}");
        assert!(text.contains("password"), "{text}");
    }
}
