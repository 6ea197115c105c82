//! C5 and C24: typed values.

use std::sync::Arc;

use throughline_core::{Context, Key};

use super::SECOND;

static TENANT: Key<&str> = Key::new("tenant");
static TWIN: Key<&str> = Key::new("tenant");

#[test]
fn c05_value_of_the_nearest_ancestor_wins() {
    let root = Context::background().with_value(&TENANT, "root");
    let child = root.with_cancel().with_value(&TENANT, "child");
    let below = child.with_timeout(60 * SECOND).with_cancel().disarm();
    assert_eq!([root.value(&TENANT), child.value(&TENANT)], [Some(&"root"), Some(&"child")]);
    assert_eq!(below.value(&TENANT), Some(&"child"));
}

#[test]
fn c05_child_can_shadow_a_key_with_nothing() {
    let root = Context::background().with_value(&TENANT, "root");
    let none = root.without_value(&TENANT);
    assert_eq!([none.value(&TENANT), none.with_cancel().value(&TENANT)], [None, None]);
    assert_eq!(none.with_value(&TENANT, "again").value(&TENANT), Some(&"again"));
    assert_eq!(root.value(&TENANT), Some(&"root"));
    assert_eq!(root.without_value(&TWIN).value(&TENANT), Some(&"root"));
    assert_eq!(Context::background().without_value(&TENANT).value(&TENANT), None);
    let merged = Context::merge(&none, &root);
    assert_eq!(merged.value(&TENANT), None, "nothing, in the first parent, hides the second's");
}

#[test]
fn c05_two_keys_of_one_type_and_name_are_distinct() {
    let ctx = Context::background().with_value(&TENANT, "one");
    assert_eq!((ctx.value(&TENANT), ctx.value(&TWIN)), (Some(&"one"), None));
    let ctx = ctx.with_value(&TWIN, "two");
    assert_eq!((ctx.value(&TENANT), ctx.value(&TWIN)), (Some(&"one"), Some(&"two")));
}

#[test]
fn c05_values_outlive_cancellation() {
    let handle = Context::background().with_value(&TENANT, "v").with_cancel();
    let expired = handle.with_timeout(std::time::Duration::ZERO);
    handle.cancel();
    let _ = handle.err();
    for ctx in [handle.context(), &expired, &handle.with_cancel(), &handle.without_cancel()] {
        assert_eq!(ctx.value(&TENANT), Some(&"v"), "{ctx:?}");
    }
}

#[test]
fn c05_values_of_every_size_and_alignment() {
    #[repr(align(128))]
    #[derive(Debug, PartialEq)]
    struct Wide([u8; 200]);
    static UNIT: Key<()> = Key::new("unit");
    static WIDE: Key<Wide> = Key::new("wide");
    static TEXT: Key<String> = Key::new("text");
    let ctx = Context::background().with_value(&UNIT, ()).with_value(&WIDE, Wide([7; 200]));
    let ctx = ctx.with_value(&TEXT, "text".to_owned());
    assert_eq!(ctx.value(&UNIT), Some(&()));
    let wide = ctx.value(&WIDE).unwrap();
    assert_eq!((wide, std::ptr::from_ref(wide).addr() % 128), (&Wide([7; 200]), 0));
    assert_eq!(ctx.value(&TEXT).map(String::as_str), Some("text"));
}

#[test]
fn c05_context_holds_many_keys() {
    macro_rules! keys {
        ($($name:ident)*) => { [$({ static $name: Key<usize> = Key::new(stringify!($name)); &$name }),*] };
    }
    let keys: [&'static Key<usize>; 24] = keys!(A B C D E F G H I J K L M N O P Q R S T U V W X);
    let mut ctx = Context::background();
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(ctx.value(key), None);
        ctx = ctx.with_value(key, n);
        for (m, earlier) in keys.iter().enumerate() {
            assert_eq!(ctx.value(earlier), (m <= n).then_some(&m), "{earlier:?} of {n}");
        }
    }
    for key in keys.iter().step_by(2) {
        ctx = ctx.without_value(key);
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(ctx.value(key), (n % 2 == 1).then_some(&n), "{key:?}");
    }
}

#[test]
fn c05_value_is_dropped_once_with_the_last_context_that_can_read_it() {
    static SHARED: Key<Arc<()>> = Key::new("shared");
    let value = Arc::new(());
    let ctx = Context::background().with_value(&SHARED, value.clone());
    let child = ctx.with_cancel().disarm();
    let shadow = child.without_value(&SHARED);
    drop((ctx, child));
    assert_eq!(Arc::strong_count(&value), 2);
    drop(shadow);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[tokio::test]
async fn c05_local_keys_do_not_cross_a_spawn() {
    static LOCAL: Key<&str> = Key::new("local").local();
    let read = async || (Context::current().value(&TENANT).copied(), Context::current().value(&LOCAL).copied());
    let ctx = Context::background().with_value(&TENANT, "t").with_value(&LOCAL, "l");
    assert_eq!(ctx.scope(read()).await, (Some("t"), Some("l")), "a scope is no spawn");
    let spawned =
        ctx.spawn(async { (Context::current().value(&TENANT).copied(), Context::current().value(&LOCAL).copied()) });
    assert_eq!(spawned.await.unwrap(), Ok((Some("t"), None)));
    let blocking = ctx.spawn_blocking(|ctx| (ctx.value(&TENANT).copied(), ctx.value(&LOCAL).copied()));
    assert_eq!(blocking.await.unwrap(), Ok((Some("t"), None)));
    let in_local_set = tokio::task::LocalSet::new();
    let spawned = in_local_set.run_until(async { ctx.spawn_local(read()).await }).await;
    assert_eq!(spawned.unwrap(), Ok((Some("t"), None)));
}
