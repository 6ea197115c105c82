//! A histogram of durations that is written without a lock.
//!
//! Buckets are logarithmic with 16 steps for each power of two, as in an HDR histogram, so a
//! percentile is at most 6.25 % above the true one. `hdrhistogram` records through `&mut`: it would
//! need a lock for each request, or a queue that someone empties.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// 2^4 buckets for each power of two.
const STEP_BITS: u32 = 4;
const STEPS: u64 = 1 << STEP_BITS;
/// The largest power of two: 2^36 µs are 19 hours. Longer durations count as that.
const MAX_POWER: u32 = 36;
const BUCKETS: usize = (MAX_POWER - STEP_BITS + 2) as usize * STEPS as usize;

pub(super) struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
    max_micros: AtomicU64,
}

/// A copy of a histogram at one moment.
pub(super) struct Snapshot {
    buckets: Vec<u64>,
    count: u64,
    sum_micros: u64,
    max_micros: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Histogram { buckets, sum_micros: AtomicU64::new(0), max_micros: AtomicU64::new(0) }
    }

    pub(super) fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min((1 << (MAX_POWER + 1)) - 1);
        self.buckets[bucket_of(micros)].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
        self.max_micros.fetch_max(micros, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let buckets: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Snapshot {
            count: buckets.iter().sum(),
            buckets,
            sum_micros: self.sum_micros.load(Ordering::Relaxed),
            max_micros: self.max_micros.load(Ordering::Relaxed),
        }
    }
}

impl Snapshot {
    /// The duration that `percent` of the requests did not exceed, rounded up to its bucket's end.
    pub(super) fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return Duration::from_micros(last_of(index).min(self.max_micros));
            }
        }
        Duration::ZERO
    }

    pub(super) fn mean(&self) -> Duration {
        Duration::from_micros(self.sum_micros.checked_div(self.count).unwrap_or(0))
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_micros(self.max_micros)
    }
}

fn bucket_of(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let power = micros.ilog2();
    let step = (micros >> (power - STEP_BITS)) - STEPS;
    (u64::from(power - STEP_BITS + 1) * STEPS + step) as usize
}

/// The largest value of a bucket.
fn last_of(index: usize) -> u64 {
    let (octave, step) = (index as u64 / STEPS, index as u64 % STEPS);
    match octave {
        0 => step,
        _ => ((STEPS + step + 1) << (octave - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_a_bucket_that_ends_at_most_one_sixteenth_above_it() {
        let edges = (0..=MAX_POWER).flat_map(|power| {
            let edge = 1_u64 << power;
            [edge - 1, edge, edge + 1, edge + edge / 3]
        });
        for value in edges {
            let last = last_of(bucket_of(value));
            assert!(last >= value, "{value} is above its bucket's end {last}");
            assert!(last - value <= value / STEPS, "{value}: {last}");
            assert!(bucket_of(last) == bucket_of(value) && bucket_of(last + 1) == bucket_of(value) + 1, "{value}");
        }
        assert_eq!(bucket_of((1 << (MAX_POWER + 1)) - 1), BUCKETS - 1);
    }

    #[test]
    fn percentiles_of_a_thousand_durations_are_within_the_promised_error() {
        let histogram = Histogram::new();
        for millis in 1..=1000 {
            histogram.record(Duration::from_millis(millis));
        }
        let snapshot = histogram.snapshot();
        for percent in [1, 50, 90, 99, 100] {
            let (is, should) = (snapshot.percentile(percent), Duration::from_millis(percent * 10));
            assert!(is >= should && is <= should + should / 16, "p{percent}: {is:?}");
        }
        assert_eq!(snapshot.max(), Duration::from_secs(1));
        assert_eq!(snapshot.mean(), Duration::from_micros(500_500));
    }

    #[test]
    fn an_empty_histogram_and_a_duration_without_end_have_percentiles() {
        let histogram = Histogram::new();
        assert_eq!(histogram.snapshot().percentile(99), Duration::ZERO);
        histogram.record(Duration::MAX);
        histogram.record(Duration::ZERO);
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.percentile(50), Duration::ZERO);
        assert_eq!(snapshot.percentile(100), snapshot.max());
        assert!(snapshot.max() > Duration::from_secs(36 * 3600));
    }
}
