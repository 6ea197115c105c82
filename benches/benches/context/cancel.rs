//! P4, P7: cancelling, and waking waiters.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion};
use throughline_benches::{Row, Target};
use throughline_core::{CancelHandle, Context};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) const ROWS: &[Row] = &[
    never(
        "P4 cancel 100 never waited for, in all",
        "P4/never waited for, 100",
        &[("tokio-util", "P4/tokio-util never waited for, 100")],
    ),
    never(
        "P4 cancel 10k never waited for, in all",
        "P4/never waited for, 10000",
        &[("tokio-util", "P4/tokio-util never waited for, 10000")],
    ),
    never(
        "P4 cancel 100k never waited for, in all",
        "P4/never waited for, 100000",
        &[("tokio-util", "P4/tokio-util never waited for, 100000")],
    ),
    waited("P4 cancel 1 child waited for, per child", "P4/waited for, 1", &[("tokio-util", "P4/tokio-util, 1")], 1.0),
    waited("P4 cancel 100, per child", "P4/waited for, 100", &[("tokio-util", "P4/tokio-util, 100")], 100.0),
    waited("P4 cancel 10k, per child", "P4/waited for, 10000", &[("tokio-util", "P4/tokio-util, 10000")], 10_000.0),
    waited("P4 cancel 100k, per child", "P4/waited for, 100000", &[("tokio-util", "P4/tokio-util, 100000")], 100_000.0),
    Row {
        name: "P7 wake 10k tasks on one context, per task",
        ours: "P7/one context",
        peers: &[("Notify", "P7/Notify"), ("tokio-util", "P7/tokio-util, one token")],
        target: Target::Ratio("Notify", 1.1),
        per: TASKS as f64,
    },
    Row {
        name: "P7 wake 10k tasks with a child each, per task",
        ours: "P7/a child each",
        peers: &[("Notify", "P7/Notify"), ("tokio-util", "P7/tokio-util, a child each")],
        target: Target::Ratio("Notify", 1.4),
        per: TASKS as f64,
    },
];

const TASKS: usize = 10_000;

const fn waited(
    name: &'static str,
    ours: &'static str,
    peers: &'static [(&'static str, &'static str)],
    per: f64,
) -> Row {
    Row { name, ours, peers, target: Target::Ratio("tokio-util", 0.35), per }
}

/// Independent of the number of children, except for cache misses.
const fn never(name: &'static str, ours: &'static str, peers: &'static [(&'static str, &'static str)]) -> Row {
    Row { name, ours, peers, target: Target::Above("P4/never waited for, 1", 500.0), per: 1.0 }
}

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("P4");
    for children in [1_usize, 100, 10_000, 100_000] {
        group.sample_size(if children > 1_000 { 10 } else { 30 });
        // Small sets are measured in batches, so that the clock's cost does not dominate.
        let batch = if children > 1_000 { BatchSize::PerIteration } else { BatchSize::NumIterations(100) };
        group.bench_function(format!("waited for, {children}"), |b| {
            b.iter_batched(
                || Waiting::new(children),
                |waiting| {
                    waiting.root.cancel();
                    waiting
                },
                batch,
            );
        });
        group.bench_function(format!("tokio-util, {children}"), |b| {
            b.iter_batched(
                || WaitingTokens::new(children),
                |waiting| {
                    waiting.root.cancel();
                    waiting
                },
                batch,
            );
        });
        group.bench_function(format!("never waited for, {children}"), |b| {
            b.iter_batched(
                || {
                    let root = Context::background().with_cancel();
                    let children: Vec<CancelHandle> = (0..children).map(|_| root.with_cancel()).collect();
                    (root, children)
                },
                |(root, children)| {
                    root.cancel();
                    (root, children)
                },
                batch,
            );
        });
        group.bench_function(format!("tokio-util never waited for, {children}"), |b| {
            b.iter_batched(
                || {
                    let root = CancellationToken::new();
                    let children: Vec<CancellationToken> = (0..children).map(|_| root.child_token()).collect();
                    (root, children)
                },
                |(root, children)| {
                    root.cancel();
                    (root, children)
                },
                batch,
            );
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("P7");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    group.bench_function("one context", |b| {
        b.iter_custom(|n| {
            wake(n, |counter| {
                let root = Context::background().with_cancel();
                let tasks = counter.spawn(|| {
                    let ctx = root.context().clone();
                    async move { ctx.done().await }
                });
                (tasks, Box::new(move || root.cancel()))
            })
        });
    });
    group.bench_function("a child each", |b| {
        b.iter_custom(|n| {
            wake(n, |counter| {
                let root = Context::background().with_cancel();
                let tasks = counter.spawn(|| {
                    let ctx = root.with_cancel();
                    async move { ctx.done().await }
                });
                (tasks, Box::new(move || root.cancel()))
            })
        });
    });
    group.bench_function("Notify", |b| {
        b.iter_custom(|n| {
            wake(n, |counter| {
                let notify = Arc::new(Notify::new());
                let tasks = counter.spawn(|| {
                    let notify = notify.clone();
                    async move { notify.notified().await }
                });
                (tasks, Box::new(move || notify.notify_waiters()))
            })
        });
    });
    group.bench_function("tokio-util, one token", |b| {
        b.iter_custom(|n| {
            wake(n, |counter| {
                let root = CancellationToken::new();
                let tasks = counter.spawn(|| {
                    let token = root.clone();
                    async move { token.cancelled().await }
                });
                (tasks, Box::new(move || root.cancel()))
            })
        });
    });
    group.bench_function("tokio-util, a child each", |b| {
        b.iter_custom(|n| {
            wake(n, |counter| {
                let root = CancellationToken::new();
                let tasks = counter.spawn(|| {
                    let token = root.child_token();
                    async move { token.cancelled().await }
                });
                (tasks, Box::new(move || root.cancel()))
            })
        });
    });
    group.finish();
}

/// Children of one root, each with a `done()` future that was polled once.
struct Waiting {
    _futures: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>>,
    root: CancelHandle,
}

impl Waiting {
    fn new(children: usize) -> Self {
        let root = Context::background().with_cancel();
        let mut cx = TaskContext::from_waker(Waker::noop());
        let futures = (0..children)
            .map(|_| {
                let child = root.with_cancel();
                let mut future: std::pin::Pin<Box<dyn Future<Output = ()>>> =
                    Box::pin(async move { child.done().await });
                assert!(future.as_mut().poll(&mut cx).is_pending());
                future
            })
            .collect();
        Self { _futures: futures, root }
    }
}

/// The same with tokens.
struct WaitingTokens {
    _futures: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>>,
    root: CancellationToken,
}

impl WaitingTokens {
    fn new(children: usize) -> Self {
        let root = CancellationToken::new();
        let mut cx = TaskContext::from_waker(Waker::noop());
        let futures = (0..children)
            .map(|_| {
                let child = root.child_token();
                let mut future: std::pin::Pin<Box<dyn Future<Output = ()>>> =
                    Box::pin(async move { child.cancelled().await });
                assert!(future.as_mut().poll(&mut cx).is_pending());
                future
            })
            .collect();
        Self { _futures: futures, root }
    }
}

/// Counts waiting tasks and woken tasks.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl Counter {
    fn spawn<F>(&self, mut task: impl FnMut() -> F) -> Vec<tokio::task::JoinHandle<()>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        (0..TASKS)
            .map(|_| {
                let (future, counter) = (task(), self.0.clone());
                tokio::spawn(async move {
                    let mut future = pin!(future);
                    let mut first = true;
                    poll_fn(|cx| {
                        let poll = future.as_mut().poll(cx);
                        if first && poll.is_pending() {
                            counter.fetch_add(1, Ordering::AcqRel);
                        }
                        first = false;
                        if poll.is_ready() { Poll::Ready(()) } else { Poll::Pending }
                    })
                    .await;
                })
            })
            .collect()
    }
}

type Signal = Box<dyn FnOnce()>;

/// The time from the signal to the end of all tasks, on one current-thread runtime.
fn wake(n: u64, set_up: impl Fn(&Counter) -> (Vec<tokio::task::JoinHandle<()>>, Signal)) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built");
    let mut total = Duration::ZERO;
    for _ in 0..n {
        runtime.block_on(async {
            let counter = Counter::default();
            let (tasks, signal) = set_up(&counter);
            while counter.0.load(Ordering::Acquire) < TASKS {
                tokio::task::yield_now().await;
            }
            let begun = Instant::now();
            signal();
            for task in tasks {
                task.await.expect("the task does not panic");
            }
            total += begun.elapsed();
        });
    }
    total
}
