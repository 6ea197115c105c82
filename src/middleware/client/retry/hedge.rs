//! When a second attempt is sent beside the first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The number of calls that the percentile is taken of.
const MAX_SAMPLES: usize = 256;
/// The number of calls before hedging starts.
const MIN_SAMPLES: usize = 20;

#[derive(Clone)]
pub(super) enum Hedge {
    After(Duration),
    AtPercentile { share: f64, samples: Arc<Mutex<Samples>> },
}

impl Hedge {
    pub(super) fn at_percentile(share: f64) -> Self {
        let share = if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) };
        Hedge::AtPercentile { share, samples: Arc::default() }
    }

    /// How long to wait for the first attempt. `None`: do not send a second one.
    pub(super) fn delay(&self) -> Option<Duration> {
        match self {
            Hedge::After(delay) => Some(*delay),
            Hedge::AtPercentile { share, samples } => {
                samples.lock().unwrap_or_else(PoisonError::into_inner).percentile(*share)
            }
        }
    }

    /// Records the time from the send to the head of a response.
    pub(super) fn record(&self, time: Duration) {
        if let Hedge::AtPercentile { samples, .. } = self {
            samples.lock().unwrap_or_else(PoisonError::into_inner).push(time);
        }
    }
}

/// The times of the last calls, in no order.
#[derive(Default)]
pub(super) struct Samples {
    times: Vec<Duration>,
    /// The oldest one, once there are as many as can be.
    next: usize,
}

impl Samples {
    fn push(&mut self, time: Duration) {
        if self.times.len() < MAX_SAMPLES {
            self.times.push(time);
        } else {
            self.times[self.next] = time;
            self.next = (self.next + 1) % MAX_SAMPLES;
        }
    }

    fn percentile(&self, share: f64) -> Option<Duration> {
        if self.times.len() < MIN_SAMPLES {
            return None;
        }
        let mut times = self.times.clone();
        // The cast is exact: there are at most 256 samples, and `share` is from 0 to 1.
        let rank = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len());
        Some(*times.select_nth_unstable(rank - 1).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay_after(share: f64, millis: impl IntoIterator<Item = u64>) -> Option<u128> {
        let hedge = Hedge::at_percentile(share);
        millis.into_iter().for_each(|time| hedge.record(Duration::from_millis(time)));
        hedge.delay().map(|delay| delay.as_millis())
    }

    #[test]
    fn the_delay_is_the_percentile_of_the_last_calls() {
        assert_eq!(delay_after(0.95, 1..20), None, "too few calls");
        assert_eq!(delay_after(0.95, 1..=20), Some(19));
        assert_eq!(delay_after(0.5, 1..=100), Some(50));
        assert_eq!(delay_after(0.5, (0..300).map(|call| if call < 150 { 9 } else { 1 })), Some(1), "old calls go");
    }

    #[test]
    fn a_share_that_is_no_share_counts_as_the_nearest_one() {
        for (share, millis) in [(-1.0, 1), (0.0, 1), (1.0, 20), (95.0, 20), (f64::NAN, 20), (f64::INFINITY, 20)] {
            assert_eq!(delay_after(share, 1..=20), Some(millis), "{share}");
        }
    }
}
