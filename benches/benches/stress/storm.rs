//! R4: one cancellation wakes 100,000 tasks on two workers, beside a bystander that sleeps.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use throughline_core::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{Row, quantile, show};

const TASKS: u32 = 100_000;
const ROUNDS: usize = 11;
const NAP: Duration = Duration::from_millis(1);

pub(crate) fn rows() -> Vec<Row> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    let cases: [(&str, Measure, Measure); 2] = [
        ("on one context", ours_on_one, theirs_on_one),
        ("each on a child of its own", ours_on_children, theirs_on_children),
    ];
    let rows = cases.map(|(case, ours, theirs)| {
        let (mut ours_rounds, mut theirs_rounds) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours_rounds.push(ours(&runtime));
            theirs_rounds.push(theirs(&runtime));
        }
        let row = |what, part: fn(&Round) -> Duration, target| Row {
            what: format!("R4: {what}, {case}: median, worst of {ROUNDS}"),
            ours: summary(&ours_rounds, part),
            theirs: summary(&theirs_rounds, part),
            target,
        };
        [
            row("100k tasks have ended after the cancel", |round| round.all_ended, "≤ 100 ms"),
            row("a bystander's 1 ms sleep meanwhile", |round| round.worst_nap, "≤ 10 ms"),
        ]
    });
    rows.into_iter().flatten().collect()
}

fn summary(rounds: &[Round], part: fn(&Round) -> Duration) -> String {
    let mut times: Vec<_> = rounds.iter().map(part).collect();
    times.sort_unstable();
    format!("{}, {}", show(quantile(&times, 0.5)), show(quantile(&times, 1.0)))
}

struct Round {
    all_ended: Duration,
    /// The longest sleep that overlaps with the cancellation.
    worst_nap: Duration,
}

type Measure = fn(&Runtime) -> Round;

fn ours_on_one(runtime: &Runtime) -> Round {
    let root = Context::background().with_cancel();
    let ctx = root.context().clone();
    round(runtime, move || ctx.done_owned(), move || root.cancel())
}

fn ours_on_children(runtime: &Runtime) -> Round {
    let root = Context::background().with_cancel();
    let ctx = root.context().clone();
    round(runtime, move || ctx.with_cancel().disarm().done_owned(), move || root.cancel())
}

fn theirs_on_one(runtime: &Runtime) -> Round {
    let root = CancellationToken::new();
    let token = root.clone();
    round(runtime, move || token.clone().cancelled_owned(), move || root.cancel())
}

fn theirs_on_children(runtime: &Runtime) -> Round {
    let root = CancellationToken::new();
    let token = root.clone();
    round(runtime, move || token.child_token().cancelled_owned(), move || root.cancel())
}

/// One task cancels; another one sleeps in a loop.
fn round<F>(runtime: &Runtime, wait: impl Fn() -> F, cancel: impl FnOnce() + Send + 'static) -> Round
where
    F: Future<Output = ()> + Send + 'static,
{
    let (pending, left) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(TASKS)));
    let (last_ends, mut last_ended) = tokio::sync::mpsc::channel(1);
    runtime.block_on(async {
        for _ in 0..TASKS {
            let (pending, left, last_ends) = (pending.clone(), left.clone(), last_ends.clone());
            let mut waiting = Box::pin(wait());
            tokio::spawn(async move {
                if is_pending(&mut waiting).await {
                    pending.add_permits(1);
                    waiting.await;
                }
                if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    last_ends.send(Instant::now()).await.expect("the receiver is alive");
                }
            });
        }
        pending.acquire_many(TASKS).await.expect("the semaphore is never closed").forget();
        let napping = tokio::spawn(async move {
            let mut worst = Duration::ZERO;
            while left.load(Ordering::Acquire) > 0 {
                let start = Instant::now();
                tokio::time::sleep(NAP).await;
                worst = worst.max(start.elapsed());
            }
            worst
        });
        // The bystander is asleep when the cancellation starts.
        tokio::time::sleep(NAP / 2).await;
        let cancelling = tokio::spawn(async move {
            let start = Instant::now();
            cancel();
            start
        });
        let all_ended = last_ended.recv().await.expect("one task is the last");
        let start = cancelling.await.expect("it does not panic");
        Round { all_ended: all_ended - start, worst_nap: napping.await.expect("it does not panic") }
    })
}

/// Polls once and returns whether it is pending.
async fn is_pending(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending())).await
}
