//! The recent median of a route's response times.

use std::time::Duration;

/// How many routes have a median of their own. The others share one.
const MAX_ROUTES: usize = 64;
/// How many response times a median starts from. It is unknown before.
const FIRST: usize = 9;

/// The medians of an instance, by the hash of the route.
#[derive(Default)]
pub(super) struct Routes {
    known: Vec<(u64, Median)>,
    others: Median,
}

impl Routes {
    pub(super) fn p50(&self, route: u64) -> Option<Duration> {
        self.known.iter().find(|(known, _)| *known == route).map_or(&self.others, |(_, median)| median).value()
    }

    pub(super) fn record(&mut self, route: u64, time: Duration) {
        let median = match self.known.iter().position(|(known, _)| *known == route) {
            Some(at) => &mut self.known[at].1,
            None if self.known.len() < MAX_ROUTES => {
                self.known.push((route, Median::default()));
                &mut self.known.last_mut().expect("it was pushed").1
            }
            None => &mut self.others,
        };
        median.record(time);
    }
}

/// An estimate of the median that follows the recent values.
///
/// The median of the first values, and then a step of a sixteenth towards each value. It needs only
/// to know which side a value is on, so an outlier moves it no further than any other value does.
#[derive(Default)]
struct Median {
    nanos: u64,
    first: [u64; FIRST],
    count: usize,
}

impl Median {
    fn value(&self) -> Option<Duration> {
        (self.count == FIRST).then(|| Duration::from_nanos(self.nanos))
    }

    fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if self.count < FIRST {
            self.first[self.count] = nanos;
            self.count += 1;
            if self.count == FIRST {
                self.first.sort_unstable();
                self.nanos = self.first[FIRST / 2];
            }
        } else if nanos > self.nanos {
            // A sixteenth up, and a seventeenth down: one undoes the other.
            self.nanos = self.nanos.saturating_add(self.nanos / 16 + 1).min(nanos);
        } else {
            self.nanos = self.nanos.saturating_sub(self.nanos / 17 + 1).max(nanos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median_of(millis: impl IntoIterator<Item = u64>) -> Option<f64> {
        let mut median = Median::default();
        millis.into_iter().for_each(|time| median.record(Duration::from_millis(time)));
        median.value().map(|value| value.as_secs_f64() * 1e3)
    }

    #[test]
    fn a_median_is_known_after_nine_values_and_ignores_outliers() {
        assert_eq!(median_of(1..9), None);
        assert_eq!(median_of([9000, 1, 2, 3, 4, 5, 6, 7, 8]), Some(5.0));
        let with_outliers =
            median_of((0..200).map(|call| if call % 10 == 0 { 60_000 } else { 10 })).expect("it is known");
        assert!((10.0..12.0).contains(&with_outliers), "{with_outliers}");
    }

    #[test]
    fn a_median_follows_a_route_that_becomes_slower_or_faster() {
        let slower = median_of((0..200).map(|call| if call < 50 { 2 } else { 200 })).expect("it is known");
        assert!((190.0..201.0).contains(&slower), "{slower}");
        let faster = median_of((0..200).map(|call| if call < 50 { 200 } else { 2 })).expect("it is known");
        assert!((1.9..2.2).contains(&faster), "{faster}");
    }

    #[test]
    fn routes_beyond_the_limit_share_a_median() {
        let mut routes = Routes::default();
        for route in 0..1000 {
            (0..FIRST).for_each(|_| routes.record(route, Duration::from_millis(route)));
        }
        assert_eq!((routes.known.len(), routes.p50(7)), (MAX_ROUTES, Some(Duration::from_millis(7))));
        assert!(routes.p50(500).is_some() && routes.p50(500) == routes.p50(5000));
    }
}
