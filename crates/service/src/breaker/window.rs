//! Successes and failures of the last seconds.

use std::time::Duration;

use tokio::time::Instant;

const BUCKETS: usize = 10;

#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) successes: u32,
    pub(super) failures: u32,
}

impl Tally {
    pub(super) fn total(self) -> u32 {
        self.successes.saturating_add(self.failures)
    }
}

/// A ring of buckets, each for a tenth of the window.
pub(super) struct Window {
    buckets: [Tally; BUCKETS],
    current: usize,
    current_ends: Instant,
    length: Duration,
    width: Duration,
    sum: Tally,
}

impl Window {
    /// A window of this length that begins at `now`.
    pub(super) fn new(now: Instant, length: Duration) -> Self {
        let width = (length / BUCKETS as u32).max(Duration::from_millis(1));
        let buckets = Default::default();
        Window { buckets, current: 0, current_ends: end(now, width), length, width, sum: Tally::default() }
    }

    /// Counts a result.
    ///
    /// A result of another window length starts a new window.
    pub(super) fn record(&mut self, now: Instant, length: Duration, is_failure: bool) -> Tally {
        if now >= self.current_ends || length != self.length {
            self.advance(now, length);
        }
        for tally in [&mut self.buckets[self.current], &mut self.sum] {
            let count = if is_failure { &mut tally.failures } else { &mut tally.successes };
            *count = count.saturating_add(1);
        }
        self.sum
    }

    fn advance(&mut self, now: Instant, length: Duration) {
        let past = now.saturating_duration_since(self.current_ends);
        if length != self.length || past >= self.width.saturating_mul(BUCKETS as u32) {
            *self = Window::new(now, length);
            return;
        }
        while now >= self.current_ends {
            self.current = (self.current + 1) % BUCKETS;
            let old = std::mem::take(&mut self.buckets[self.current]);
            self.sum.successes = self.sum.successes.saturating_sub(old.successes);
            self.sum.failures = self.sum.failures.saturating_sub(old.failures);
            self.current_ends = end(self.current_ends, self.width);
        }
    }
}

fn end(start: Instant, width: Duration) -> Instant {
    // A window that is longer than the clock can count does not end.
    start.checked_add(width).unwrap_or_else(|| start + Duration::from_secs(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_leave_the_window_when_they_are_old() {
        let (start, length) = (Instant::now(), Duration::from_secs(10));
        let mut window = Window::new(start, length);
        let mut at = |seconds, is_failure| {
            let tally = window.record(start + Duration::from_secs(seconds), length, is_failure);
            (tally.successes, tally.failures)
        };
        assert_eq!(at(0, true), (0, 1));
        assert_eq!(at(5, true), (0, 2));
        assert_eq!(at(9, false), (1, 2));
        assert_eq!(at(10, false), (2, 1), "the first second is over");
        assert_eq!(at(14, false), (3, 1));
        assert_eq!(at(15, false), (4, 0));
        assert_eq!(at(1000, false), (1, 0));
    }

    #[test]
    fn a_window_of_another_length_starts_empty() {
        let start = Instant::now();
        let mut window = Window::new(start, Duration::from_secs(10));
        assert_eq!(window.record(start, Duration::from_secs(10), true).total(), 1);
        assert_eq!(window.record(start, Duration::from_secs(5), true).total(), 1);
        assert_eq!(window.record(start, Duration::from_secs(5), true).total(), 2);
        assert_eq!(window.record(start, Duration::MAX, true).total(), 1);
        assert_eq!(window.record(start + Duration::from_secs(5), Duration::MAX, true).failures, 2);
    }
}
