//! Values of keys that are declared for the wire: what is sent of them, and what is read.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::HeaderMap;
use throughline_core::propagation::values;
use throughline_core::{Codec, Context, Key, Propagator};

/// What `ctx` sends by default.
fn sent(ctx: &Context) -> HeaderMap {
    let mut headers = HeaderMap::new();
    Propagator::default().inject(ctx, &mut headers);
    headers
}

#[test]
fn a_value_is_written_as_text_where_its_text_is_wanted_and_once() {
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
