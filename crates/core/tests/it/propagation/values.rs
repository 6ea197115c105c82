//! Wire keys: which values are sent, and which are read.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::HeaderMap;
use throughline_core::propagation::{WireKey, values};
use throughline_core::{Codec, Context, Key, Propagator};

/// Returns the headers that `ctx` injects by default.
fn sent(ctx: &Context) -> HeaderMap {
    let mut headers = HeaderMap::new();
    Propagator::default().inject(ctx, &mut headers);
    headers
}

/// Returns the context of a receiver that lists `keys` and received `baggage`.
fn received(keys: &[&'static dyn WireKey], baggage: &str) -> Context {
    let mut headers = HeaderMap::new();
    headers.insert("baggage", baggage.parse().unwrap());
    values::extract(&Propagator::default().extract(&Context::background(), &headers), keys, &headers)
}

#[test]
fn a_member_that_is_read_is_passed_on_byte_for_byte_until_its_value_changes() {
    static TENANT: Key<u64> = Key::baggage("tenant");
    static RATE: Key<f64> = Key::baggage("rate");
    for line in
        ["tenant=007;ttl=60,note=x", "tenant=%37;ttl=60, rate=1.50 ,note=x", "rate=1e3,tenant=+7", "tenant=abc;p,note"]
    {
        let ctx = received(&[&TENANT, &RATE], line);
        assert_eq!(sent(&ctx)["baggage"], line, "no value was set");
        assert_eq!(ctx.value(&TENANT), line.contains('7').then_some(&7));
    }
    let ctx = received(&[&TENANT], "tenant=007;ttl=60,note=x");
    assert_eq!(sent(&ctx.with_value(&TENANT, 7))["baggage"], "tenant=007;ttl=60,note=x", "the same value");
    assert_eq!(sent(&ctx.with_value(&TENANT, 8))["baggage"], "note=x,tenant=8");
    assert_eq!(sent(&ctx.without_value(&TENANT))["baggage"], "note=x");
    assert_eq!(sent(&received(&[], "tenant=abc;p").with_value(&TENANT, 8))["baggage"], "tenant=8");
}

#[test]
fn a_value_is_encoded_only_when_its_text_is_needed_and_once() {
    static WRITTEN: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    fn count<const N: usize>(text: &u8) -> String {
        WRITTEN[N].fetch_add(1, SeqCst);
        text.to_string()
    }
    static SHARD: Key<u8> = Key::header("x-shard", Codec::new(count::<0>, |text| text.parse().ok()));
    static ZONE: Key<u8> = Key::header("x-zone", Codec::new(count::<1>, |text| text.parse().ok()));
    let written = || WRITTEN.each_ref().map(|count| count.swap(0, SeqCst));

    let ctx = Context::background().with_value(&SHARD, 3).with_value(&ZONE, 4);
    let mut names: Vec<_> = values::header_names(&ctx).map(|name| name.to_string()).collect();
    names.sort_unstable();
    assert_eq!((names.join(" ").as_str(), written()), ("throughline-principal x-shard x-zone", [0, 0]));
    assert_eq!((values::get(&ctx, "x-shard").as_deref(), written()), (Some("3"), [1, 0]));
    assert_eq!((values::get(&ctx, "tenant"), written()), (None, [0, 0]));
    assert_eq!((sent(&ctx)["x-zone"].as_bytes(), written()), (&b"4"[..], [1, 1]));
}

#[test]
fn of_two_keys_with_one_wire_name_the_one_set_last_is_sent() {
    static MEMBERS: [Key<u8>; 4] = [const { Key::baggage("tenant") }; 4];
    static HEADERS: [Key<u8>; 4] = [const { Key::header("x-shard", Codec::text()) }; 4];
    static OTHER: Key<u8> = Key::header("tenant", Codec::text());
    let says = |ctx: &Context, expected: Option<&str>| {
        let headers = sent(ctx);
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        let member = expected.map(|value| format!("tenant={value}"));
        assert_eq!(
            (text("baggage"), text("x-shard"), text("tenant")),
            (member.as_deref(), expected, Some("9")),
            "{ctx:?}"
        );
        for name in ["tenant", "x-shard"] {
            assert_eq!(values::get(ctx, name).as_deref(), expected, "{ctx:?}");
        }
    };
    let with = |ctx: &Context, key: usize, value: u8| {
        ctx.with_value(&MEMBERS[key], value).with_cancel().with_value(&HEADERS[key], value)
    };
    let root = Context::background().with_value(&OTHER, 9);
    for (first, second) in (0..4).flat_map(|a| (0..4).map(move |b| (a, b))) {
        let (one, two) = (with(&root, first, 1), with(&root, second, 2));
        says(&with(&one, second, 2), Some("2"));
        says(&with(&with(&one, second, 2), first, 3).with_cancel(), Some("3"));
        says(&with(&one, second, 2).without_value(&MEMBERS[second]).without_value(&HEADERS[second]), None);
        let below = Context::merge(&Context::merge(&root, &two), &one);
        says(&below, Some("2"));
        says(&Context::merge(&one, &two), Some("1"));
        says(&Context::merge(&Context::background().with_cancel(), &with(&two, first, 1)), Some("1"));
    }
}

#[tokio::test]
async fn of_two_keys_with_one_wire_name_a_spawned_task_sends_the_one_that_is_not_local() {
    static ALL: [Key<u8>; 2] = [const { Key::header("x-shard", Codec::text()) }; 2];
    static TASKS: [Key<u8>; 2] = [const { Key::header("x-shard", Codec::text()).local() }; 2];
    for (all, task) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let ctx =
            Context::background().with_value(&ALL[all], 1).with_value(&ALL[1 - all], 2).with_value(&TASKS[task], 3);
        assert_eq!(sent(&ctx)["x-shard"], "3");
        let below = ctx.spawn(async { sent(&Context::current())["x-shard"].clone() }).await;
        assert_eq!(below.unwrap().unwrap(), "2");
    }
}

#[test]
fn a_header_is_sent_only_if_the_receiver_reads_the_same_text() {
    static NOTE: Key<String> = Key::header("x-note", Codec::text());
    let longest = "x".repeat(8_192);
    for text in ["", "a", "a  b", "\u{7e}", &longest] {
        let headers = sent(&Context::background().with_value(&NOTE, text.to_owned()));
        let read = values::extract(&Context::background(), &[&NOTE], &headers);
        assert_eq!(read.value(&NOTE).map(String::as_str), Some(text));
    }
    for text in [" ", " a", "a ", "a\tb", "\u{e9}", "a\r\nb", &format!("{longest}x")] {
        let mut headers = HeaderMap::new();
        headers.insert("x-note", "stale".parse().unwrap());
        Propagator::default().inject(&Context::background().with_value(&NOTE, text.to_owned()), &mut headers);
        assert_eq!(headers.get("x-note"), None, "{text:?}");
    }
}

#[test]
fn a_key_cannot_use_a_reserved_header_name() {
    let is_refused = |name| std::panic::catch_unwind(|| Key::<u8>::header(name, Codec::text())).is_err();
    for name in [
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "traceparent",
        "throughline-principal",
        // In gRPC, the value of such a header is binary, in base64.
        "x-shard-bin",
        "-bin",
        "X-Shard",
        "x shard",
        "",
    ] {
        assert!(is_refused(name), "{name:?}");
    }
    for name in ["x-shard", "x-bin-shard", "bin", "shard_bin", "expectations"] {
        assert!(!is_refused(name), "{name:?}");
    }
}
