//! C20 and R2: no operation recurses with the depth of the tree.

use std::pin::pin;
use std::thread;

use throughline_core::{Context, Key};

use super::{Named, SECOND, Wakes, poll_once, poll_with, verdict};

const DEPTH: usize = 1_000_000;

fn on_a_small_stack(f: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(2 << 20).spawn(f).unwrap().join().unwrap();
}

/// The context and its chain of children. `levels[0]` is the root.
fn chain(top: &Context) -> Vec<Context> {
    let mut levels = Vec::with_capacity(DEPTH);
    levels.push(top.clone());
    for n in 1..DEPTH {
        levels.push(levels[n - 1].with_cancel().disarm());
    }
    levels
}

#[test]
fn c20_deep_chain_is_observed_cancelled_and_dropped_from_the_top() {
    on_a_small_stack(|| {
        let top = Context::background().with_cancel();
        let levels = chain(&top);
        assert_eq!(verdict(&levels[DEPTH - 1]), "-/-");
        top.cancel_with(Named("P"));
        assert_eq!([verdict(&levels[DEPTH - 1]), verdict(&levels[DEPTH / 2])], ["C/P", "C/P"]);
        drop(levels);
    });
}

#[test]
fn c20_deep_chain_wakes_the_waiter_at_its_end() {
    on_a_small_stack(|| {
        let top = Context::background().with_cancel();
        let last = chain(&top).pop().unwrap();
        let (wakes, waker) = Wakes::new();
        let mut done = pin!(last.done());
        assert!(poll_with(done.as_mut(), &waker).is_pending());
        top.cancel_with(Named("P"));
        assert_eq!((wakes.count(), verdict(&last).as_str()), (1, "C/P"));
        assert!(poll_with(done, &waker).is_ready());
    });
}

#[test]
fn r02_deep_chain_cancelled_and_dropped_in_any_order() {
    // From the root, from the end, and in steps that share no divisor with the depth.
    const ORDERS: [(usize, bool); 4] = [(1, true), (DEPTH - 1, true), (618_033, true), (618_033, false)];
    on_a_small_stack(|| {
        for (step, is_cancelled) in ORDERS {
            let top = Context::background().with_cancel();
            let mut levels: Vec<_> = chain(&top).into_iter().map(Some).collect();
            if is_cancelled {
                // A waiter at the end links the whole chain. It is cancelled when half of it was
                // dropped.
                let last = levels[DEPTH - 1].clone().unwrap();
                assert!(poll_once(pin!(last.done())).is_pending());
            }
            for n in 0..DEPTH {
                if is_cancelled && n == DEPTH / 2 {
                    top.cancel();
                }
                drop(levels[n * step % DEPTH].take());
            }
            assert!(levels.iter().all(Option::is_none));
            assert_eq!(top.is_done(), is_cancelled);
        }
    });
}

#[test]
fn r02_deep_chain_kept_alive_only_by_its_last_context() {
    on_a_small_stack(|| {
        for is_waited_for in [false, true] {
            let top = Context::background().with_cancel();
            let last = chain(&top).pop().unwrap();
            if is_waited_for {
                assert!(poll_once(pin!(last.done())).is_pending());
            }
            drop(last);
            assert!(!top.is_done());
        }
    });
}

#[test]
fn c20_deep_chain_of_values_deadlines_and_merges() {
    static KEY: Key<usize> = Key::new("key");
    on_a_small_stack(|| {
        let top = Context::background().with_cancel();
        let other = Context::background().with_cancel();
        let mut ctx = top.context().clone();
        let far = std::time::Instant::now() + 3600 * SECOND;
        for n in 0..200_000_u32 {
            ctx = match n % 4 {
                0 => ctx.with_value(&KEY, n as usize),
                1 => ctx.with_deadline(far - SECOND * (n / 200)),
                2 => Context::merge(&ctx, &other),
                _ => Context::merge(&other, &ctx),
            };
        }
        assert_eq!((ctx.err(), ctx.value(&KEY)), (None, Some(&199_996)));
        let shown = format!("{ctx:?}");
        assert!(shown.starts_with("background"));
        top.cancel_with(Named("P"));
        assert_eq!(verdict(&ctx), "C/P");
        drop((top, other));
        drop(ctx);
    });
}
