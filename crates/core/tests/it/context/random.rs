//! C21: random trees.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Barrier;
use std::thread;

use throughline_core::{CancelHandle, Context, Key};

use super::{Named, SECOND, block_on};

static LAYER: Key<usize> = Key::new("layer");

/// An xorshift generator. Its seed repeats a run.
struct Random(u64);

impl Random {
    fn new(what: &str) -> Random {
        let seed = match std::env::var("THROUGHLINE_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => RandomState::new().build_hasher().finish() | 1,
        };
        // Printed when the test fails.
        eprintln!("{what}: THROUGHLINE_TEST_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for n in (1..items.len()).rev() {
            items.swap(n, self.below(n + 1));
        }
    }
}

#[test]
fn c21_four_ary_trees_cancelled_concurrently_in_random_order() {
    let mut random = Random::new("c21 trees");
    for _ in 0..20 {
        let mut handles: Vec<CancelHandle> = vec![Context::background().with_cancel()];
        for n in 1..100 {
            let child = handles[(n - 1) / 4].with_value(&LAYER, n).with_cancel();
            handles.push(child);
        }
        let contexts: Vec<Context> = handles.iter().map(|handle| handle.context().clone()).collect();
        let values = || contexts.iter().map(|ctx| ctx.value(&LAYER).copied()).collect::<Vec<_>>();
        let before = values();
        random.shuffle(&mut handles);
        let start = Barrier::new(4 + 100);
        thread::scope(|scope| {
            for ctx in &contexts {
                scope.spawn(|| {
                    start.wait();
                    block_on(ctx.done());
                    assert!(ctx.is_done());
                });
            }
            for (n, part) in handles.chunks(25).enumerate() {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    // Some are cancelled twice.
                    part.iter().chain(&part[..n]).for_each(|handle| {
                        handle.cancel_with(Named("any"));
                        assert!(handle.is_done());
                    });
                });
            }
        });
        assert!(contexts.iter().all(Context::is_done));
        assert_eq!(before, values());
        assert_eq!(before[1..], (1..100).map(Some).collect::<Vec<_>>());
    }
}

#[test]
fn c21_layers_of_cancel_timeout_and_value() {
    let mut random = Random::new("c21 layers");
    for _ in 0..300 {
        let mut handles = vec![Context::background().with_cancel()];
        let mut layers = vec![(handles[0].context().clone(), None)];
        for n in 0..30 + random.below(30) {
            let (parent, value) = &layers[random.below(layers.len())];
            let (ctx, value) = match random.below(5) {
                0 => {
                    handles.push(parent.with_cancel());
                    (handles[handles.len() - 1].context().clone(), *value)
                }
                1 => (parent.with_timeout(3600 * SECOND), *value),
                2 => (parent.with_value(&LAYER, n), Some(n)),
                3 => (parent.without_value(&LAYER), None),
                _ => {
                    let (other, other_value) = &layers[random.below(layers.len())];
                    if value.is_none() && other_value.is_some() {
                        (parent.clone(), *value)
                    } else {
                        (Context::merge(parent, other), *value)
                    }
                }
            };
            layers.push((ctx, value));
        }
        let check = |when: &str| {
            for (ctx, value) in &layers {
                assert_eq!(ctx.value(&LAYER), value.as_ref(), "{when}: {ctx:?}");
            }
        };
        check("before");
        assert!(layers.iter().all(|(ctx, _)| !ctx.is_done()));
        random.shuffle(&mut handles);
        let start = Barrier::new(5);
        thread::scope(|scope| {
            let (first, second) = handles.split_at(handles.len() / 2);
            for part in [first, second] {
                scope.spawn(|| {
                    start.wait();
                    part.iter().for_each(CancelHandle::cancel);
                });
            }
            for offset in 0..3 {
                let (start, layers) = (&start, &layers);
                scope.spawn(move || {
                    start.wait();
                    layers.iter().skip(offset).step_by(3).for_each(|(ctx, _)| block_on(ctx.done()));
                });
            }
        });
        check("after");
        for (ctx, _) in &layers {
            let (err, cause) = (ctx.err(), super::named(ctx.cause()));
            assert_eq!((err, cause.as_str()), (Some(throughline_core::ContextError::Canceled), "C"));
        }
    }
}
