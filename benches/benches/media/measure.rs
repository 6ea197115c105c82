//! Callers that measure each of their calls.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

type Calling = Pin<Box<dyn Future<Output = Histogram<u64>> + Send>>;

/// One way to call the service.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// Starts a caller that makes this number of calls, one after the other.
    caller: Arc<dyn Fn(usize) -> Calling + Send + Sync>,
}

impl Way {
    /// `call` panics if its response is wrong.
    pub(crate) fn new<F, Fut>(name: &'static str, call: F) -> Self
    where
        F: Fn() -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let caller = move |calls| -> Calling {
            let call = call.clone();
            Box::pin(async move {
                // From 1 ns to 100 s, with three digits.
                let mut times = Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("the bounds are in order");
                for _ in 0..calls {
                    let started = Instant::now();
                    call().await;
                    times.saturating_record(started.elapsed().as_nanos() as u64);
                }
                times
            })
        };
        Way { name, caller: Arc::new(caller) }
    }
}

/// Quantiles in nanoseconds, and the throughput.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) per_second: f64,
}

/// Measures each way once per round, and returns the medians over the rounds.
pub(crate) async fn rounds(ways: &[Way], in_flight: usize, calls: usize, rounds: usize) -> Vec<Figures> {
    let calls = if in_flight == 1 { calls } else { calls * 4 };
    let mut all: Vec<Vec<Figures>> = ways.iter().map(|_| Vec::new()).collect();
    // The first round warms up.
    for round in 0..=rounds {
        for (way, figures) in ways.iter().zip(&mut all) {
            let measured = once(way, in_flight, calls).await;
            if round > 0 {
                figures.push(measured);
            }
        }
    }
    let median = |figures: &[Figures], of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    all.iter()
        .map(|figures| Figures {
            p50: median(figures, |f| f.p50),
            p99: median(figures, |f| f.p99),
            per_second: median(figures, |f| f.per_second),
        })
        .collect()
}

async fn once(way: &Way, in_flight: usize, calls: usize) -> Figures {
    let mut callers = JoinSet::new();
    let started = Instant::now();
    for _ in 0..in_flight {
        callers.spawn((way.caller)(calls.div_ceil(in_flight)));
    }
    let mut times = Histogram::<u64>::new(3).expect("three digits are allowed");
    while let Some(own) = callers.join_next().await {
        times.add(own.expect("no call fails")).expect("it grows");
    }
    let seconds = started.elapsed().as_secs_f64();
    let quantile = |share| times.value_at_quantile(share) as f64;
    Figures { p50: quantile(0.5), p99: quantile(0.99), per_second: times.len() as f64 / seconds }
}
