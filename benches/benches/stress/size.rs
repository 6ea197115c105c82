//! R1 and R2: a million siblings, and a chain of a million.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context as TaskContext, Waker};
use std::thread;
use std::time::{Duration, Instant};

use throughline_core::Context;
use tokio_util::sync::CancellationToken;

use crate::{Row, quantile, show};

const MILLION: usize = 1_000_000;
const ROUNDS: usize = 7;

pub(crate) fn rows() -> Vec<Row> {
    let root = Context::background().with_cancel();
    let token = CancellationToken::new();
    let wide = Row {
        what: "R1: a million children created and dropped under one root".into(),
        ours: show(median(|| (0..MILLION).for_each(|_| drop(black_box(root.with_cancel()))))),
        theirs: show(median(|| (0..MILLION).for_each(|_| drop(black_box(token.child_token()))))),
        target: "0 bytes left",
    };
    let [built, cancelled, dropped] = deep();
    let deep = Row {
        what: "R2: a chain of a million on a 2 MiB stack: built, cancelled with one waiter at its end, dropped".into(),
        ours: format!("{}, {}, {}", show(built), show(cancelled), show(dropped)),
        theirs: "–".into(),
        target: "no overflow",
    };
    vec![wide, deep]
}

fn median(mut f: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS).map(|_| timed(&mut f)).collect();
    times.sort_unstable();
    quantile(&times, 0.5)
}

fn timed(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

fn deep() -> [Duration; 3] {
    let measure = || {
        let root = Context::background().with_cancel();
        let mut last = root.context().clone();
        let built = timed(|| (1..MILLION).for_each(|_| last = last.with_cancel().disarm()));
        let mut done = pin!(last.done_owned());
        assert!(done.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending());
        let cancelled = timed(|| root.cancel());
        assert!(done.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_ready());
        // The future's own clone is the last but one.
        done.set(Context::background().done_owned());
        let dropped = timed(|| drop((root, last)));
        [built, cancelled, dropped]
    };
    let measured = thread::Builder::new().stack_size(2 << 20).spawn(measure);
    measured.expect("a thread can be started").join().expect("nothing recurses")
}
