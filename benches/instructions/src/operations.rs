//! The counted operations and their ceilings.

use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use throughline_core::propagation::{baggage, w3c};
use throughline_core::{CancelHandle, Context, Key};

use crate::headers::{TRACEPARENT, TRACESTATE, headers};

/// One operation of docs/performance.md.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// The most instructions one run may take: the measured count plus a small margin.
    pub(crate) ceiling: u64,
    /// Runs the operation this many times.
    pub(crate) run: fn(u64),
}

pub(crate) const fn operation(name: &'static str, ceiling: u64, run: fn(u64)) -> Operation {
    Operation { name, ceiling, run }
}

/// The cost of an empty loop.
pub(crate) const NOTHING: Operation = operation("nothing", 0, |n| repeat(n, || ()));

#[cfg_attr(feature = "services", expect(dead_code, reason = "its rows are those of a smaller program"))]
pub(crate) const OPERATIONS: &[Operation] = &[
    operation("P1 with_cancel, dropped", 250, |n| {
        let root = Context::background().with_cancel();
        repeat(n, || root.with_cancel());
    }),
    operation("P1 with_deadline, dropped", 290, |n| {
        let root = Context::background().with_cancel();
        let at = Instant::now() + HOUR;
        repeat(n, || root.with_deadline(black_box(at)));
    }),
    operation("P1 with_timeout, dropped", 330, |n| {
        let root = Context::background().with_cancel();
        repeat(n, || root.with_timeout(black_box(HOUR)));
    }),
    operation("P1 with_timeout below a deadline, dropped", 355, |n| {
        let root = Context::background().with_cancel();
        let root = root.with_timeout(2 * HOUR);
        repeat(n, || root.with_timeout(black_box(HOUR)));
    }),
    operation("P2 is_done, depth 2", 30, |n| {
        let chain = chain(2);
        repeat(n, || black_box(&chain[1]).is_done());
    }),
    operation("P2 is_done, depth 16", 118, |n| {
        let chain = chain(16);
        repeat(n, || black_box(&chain[15]).is_done());
    }),
    operation("P2 is_done, latched, depth 16", 16, |n| {
        let chain = chain(16);
        chain[0].cancel();
        repeat(n, || black_box(&chain[15]).is_done());
    }),
    operation("P2 is_done, deadline, depth 2", 80, |n| {
        let chain = chain(2);
        let ctx = chain[1].with_timeout(HOUR);
        repeat(n, || black_box(&ctx).is_done());
    }),
    operation("P3 clone, dropped", 20, |n| {
        let root = Context::background().with_cancel();
        repeat(n, || root.context().clone());
    }),
    operation("P6 run, one more poll, depth 2", 32, |n| {
        let chain = chain(2);
        poll(n, pin!(chain[1].run(Never)));
    }),
    operation("P6 run, one more poll, depth 16", 32, |n| {
        let chain = chain(16);
        poll(n, pin!(chain[15].run(Never)));
    }),
    operation("P6 run, one more poll, deadline", 37, |n| {
        let chain = chain(2);
        let ctx = chain[1].with_timeout(HOUR);
        poll(n, pin!(ctx.run(Never)));
    }),
    operation("P11 with_value onto 1, dropped", 352, |n| with_value(n, 1)),
    operation("P11 with_value onto 4, dropped", 356, |n| with_value(n, 4)),
    operation("P11 with_value onto 16, dropped", 370, |n| with_value(n, 16)),
    operation("P12 value, of 16", 30, |n| {
        let ctx = values(&KEYS[0]);
        repeat(n / 8, || {
            for key in &KEYS[0][..8] {
                black_box(black_box(&ctx).value(key).copied());
            }
        });
    }),
    operation("P13 scope, per poll", 13, |n| {
        let root = Context::background().with_cancel();
        poll(n, pin!(root.scope(Never)));
    }),
    operation("P14 traceparent, extract", 745, |n| {
        let map = headers(&[("traceparent", TRACEPARENT)]);
        repeat(n, || w3c::extract(black_box(&map)));
    }),
    operation("P14 with tracestate, extract", 1_950, |n| {
        let map = headers(&[("traceparent", TRACEPARENT), ("tracestate", TRACESTATE)]);
        repeat(n, || w3c::extract(black_box(&map)));
    }),
    operation("P15 traceparent, inject in place of another", 845, |n| {
        let mut map = headers(&[("traceparent", TRACEPARENT)]);
        let span = w3c::extract(&map).expect("it is valid");
        for _ in 0..n {
            w3c::inject(black_box(&span), black_box(&mut map));
        }
    }),
    operation("P16 baggage of 64, extract and read all", 22_800, |n| {
        let members: Vec<String> = (0..64).map(|i| format!("attribute-{i:02}=some-value-of-it-{i:02}")).collect();
        let map = headers(&[("baggage", &members.join(","))]);
        repeat(n, || {
            let baggage = baggage::extract(black_box(&map));
            for member in baggage.iter() {
                black_box((member.key(), member.value()));
            }
        });
    }),
];

const HOUR: Duration = Duration::from_secs(3600);

fn chain(depth: usize) -> Vec<CancelHandle> {
    let mut chain = vec![Context::background().with_cancel()];
    for _ in 1..depth {
        let next = chain[chain.len() - 1].with_cancel();
        chain.push(next);
    }
    chain
}

/// Eight sets of keys: the length of a search depends on where the linker places a key.
static KEYS: [[Key<u64>; 16]; 8] = [const { [const { Key::new("key") }; 16] }; 8];
static NEXT: [Key<u64>; 8] = [const { Key::new("next") }; 8];

fn values(keys: &'static [Key<u64>]) -> Context {
    keys.iter().fold(Context::background(), |ctx, key| ctx.with_value(key, 7))
}

fn with_value(n: u64, count: usize) {
    let contexts = KEYS.each_ref().map(|keys| values(&keys[..count]));
    repeat(n / 8, || {
        for (ctx, key) in contexts.iter().zip(&NEXT) {
            let _ = black_box(black_box(ctx).with_value(key, 1));
        }
    });
}

fn repeat<R>(n: u64, operation: impl Fn() -> R) {
    for _ in 0..n {
        let _ = black_box(operation());
    }
}

/// Pending for ever.
struct Never;

impl Future for Never {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<()> {
        black_box(Poll::Pending)
    }
}

fn poll(n: u64, mut future: Pin<&mut impl Future>) {
    let mut cx = TaskContext::from_waker(Waker::noop());
    for _ in 0..n {
        assert!(future.as_mut().poll(&mut cx).is_pending());
    }
}
