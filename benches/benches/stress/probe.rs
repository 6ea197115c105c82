//! R3: the latency of `err()` while a million children are cancelled.

use std::hint::black_box;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Waker};
use std::thread;
use std::time::{Duration, Instant};

use throughline_core::{CancelHandle, Context};
use tokio_util::sync::CancellationToken;

use crate::{Row, quantile, show};

const MILLION: usize = 1_000_000;
/// How many calls the probe makes before the cancellation starts.
const ALONE: usize = 1_000_000;

const BEFORE: usize = 0;
const DURING: usize = 1;
const AFTER: usize = 2;

pub(crate) fn rows() -> [Row; 2] {
    let ([ours_alone, ours], [theirs_alone, theirs]) = (ours(), theirs());
    let row = |when: &str, ours, theirs, target| Row {
        what: format!("R3: `err()` {when}: p50, p99, p99.9, worst, calls"),
        ours,
        theirs,
        target,
    };
    [
        row("on an idle machine", ours_alone, theirs_alone, ""),
        row("while a million children with waiters are cancelled", ours, theirs, "≤ 10 µs"),
    ]
}

/// Half of the calls go to the root.
///
/// The others go to its first, middle and last child.
fn ours() -> [String; 2] {
    let root = Context::background().with_cancel();
    let children: Vec<CancelHandle> = (0..MILLION).map(|_| root.with_cancel()).collect();
    let waiting = children.iter().map(|child| wait(child.done())).collect::<Vec<_>>();
    let probed: [&Context; 6] = [&root, &children[0], &root, &children[MILLION / 2], &root, &children[MILLION - 1]];
    let ask = |n: usize| {
        black_box(probed[n % 6].err());
    };
    let answers = probe(ask, || root.cancel());
    drop(waiting);
    answers
}

fn theirs() -> [String; 2] {
    let root = CancellationToken::new();
    let children: Vec<CancellationToken> = (0..MILLION).map(|_| root.child_token()).collect();
    let waiting = children.iter().map(|child| wait(child.cancelled())).collect::<Vec<_>>();
    let probed = [&root, &children[0], &root, &children[MILLION / 2], &root, &children[MILLION - 1]];
    let ask = |n: usize| {
        black_box(probed[n % 6].is_cancelled());
    };
    let answers = probe(ask, || root.cancel());
    drop(waiting);
    answers
}

fn wait<F: Future>(future: F) -> Pin<Box<F>> {
    let mut waiting = Box::pin(future);
    assert!(waiting.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending());
    waiting
}

/// Calls from a thread of its own, before `cancel` and while it runs.
fn probe(ask: impl Fn(usize) + Sync, cancel: impl FnOnce()) -> [String; 2] {
    let (phase, answered) = (AtomicUsize::new(BEFORE), AtomicUsize::new(0));
    thread::scope(|scope| {
        let probing = scope.spawn(|| {
            let mut times = [Vec::with_capacity(2 * ALONE), Vec::with_capacity(16 * ALONE)];
            for n in 0.. {
                let phase_now = phase.load(Ordering::Acquire);
                if phase_now == AFTER {
                    break;
                }
                let start = Instant::now();
                ask(n);
                times[phase_now].push(start.elapsed());
                answered.store(n, Ordering::Release);
            }
            times
        });
        while answered.load(Ordering::Acquire) < ALONE {
            thread::yield_now();
        }
        phase.store(DURING, Ordering::Release);
        cancel();
        phase.store(AFTER, Ordering::Release);
        probing.join().expect("the probe does not panic").map(summary)
    })
}

fn summary(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let [p50, p99, p999, worst] = [0.5, 0.99, 0.999, 1.0].map(|share| show(quantile(&times, share)));
    format!("{p50}, {p99}, {p999}, {worst}, {}", times.len())
}
