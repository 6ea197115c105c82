use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

/// When a breaker opens, and for how long.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline_service::BreakerSettings;
///
/// let settings = BreakerSettings { failure_ratio: 0.25, min_requests: 50, ..BreakerSettings::default() };
/// assert_eq!(settings.open_time, Duration::from_secs(1));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerSettings {
    /// The share of failures among the requests of the window that opens the breaker: 0 to 1.
    ///
    /// Default: 0.5. Neutral results do not count. With NaN, this rule never opens it.
    pub failure_ratio: f64,
    /// The fewest successes and failures in the window before the ratio counts. Default: 10.
    ///
    /// Below it, a share says little.
    pub min_requests: u32,
    /// The length of the rolling window. Default: 10 s, in ten buckets.
    pub window: Duration,
    /// How many transport failures in a row open the breaker, whatever the ratio. Default: 5.
    ///
    /// A transport failure is an error with the code `UNAVAILABLE`, without a response. 0 switches
    /// this rule off.
    pub unreachable_limit: u32,
    /// How long the breaker stays open the first time. Default: 1 s, as gRPC's reconnects.
    pub open_time: Duration,
    /// The longest time that it stays open. Default: 30 s.
    pub max_open_time: Duration,
    /// The factor by which the time grows with each failed probe. Default: 2.
    pub open_time_growth: f64,
    /// The random share by which the time is longer or shorter: 0 to 1. Default: 0.2.
    ///
    /// Clients that opened together do not probe together.
    pub jitter: f64,
    /// How many probes may run at the same time. Default: 1. 0 counts as 1.
    pub probes: u32,
    /// How many times the route's p50 a call must be granted for its deadline to be fair.
    ///
    /// Default: 2. A missed fair deadline is a failure, any other is neutral.
    pub fair_share: f64,
    /// The time that is fair while a route has no p50 yet. Default: 1 s.
    ///
    /// So a callee that hangs from the start is found, and calls with a few milliseconds do not
    /// open the breaker.
    pub fair_time: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        BreakerSettings {
            failure_ratio: 0.5,
            min_requests: 10,
            window: Duration::from_secs(10),
            unreachable_limit: 5,
            open_time: Duration::from_secs(1),
            max_open_time: Duration::from_secs(30),
            open_time_growth: 2.0,
            jitter: 0.2,
            probes: 1,
            fair_share: 2.0,
            fair_time: Duration::from_secs(1),
        }
    }
}

impl BreakerSettings {
    /// How long the breaker stays open after `failed_probes` in a row.
    ///
    /// `random` is from 0 to 1.
    pub(super) fn pause(&self, failed_probes: u32, random: f64) -> Duration {
        let growth = if self.open_time_growth >= 1.0 { self.open_time_growth } else { 1.0 };
        let factor = growth.powi(i32::try_from(failed_probes).unwrap_or(i32::MAX));
        let seconds = (self.open_time.as_secs_f64() * factor).min(self.max_open_time.as_secs_f64());
        let jitter = if self.jitter.is_nan() { 0.0 } else { self.jitter.clamp(0.0, 1.0) };
        let seconds = seconds * (1.0 + jitter * (2.0 * random - 1.0));
        Duration::try_from_secs_f64(seconds).unwrap_or(self.max_open_time)
    }
}

/// Settings that breakers share, and that can change while they run.
#[derive(Clone)]
pub(crate) struct SharedSettings(Arc<ArcSwap<BreakerSettings>>);

impl SharedSettings {
    pub(crate) fn new(settings: BreakerSettings) -> Self {
        SharedSettings(Arc::new(ArcSwap::from_pointee(settings)))
    }

    pub(crate) fn set(&self, settings: BreakerSettings) {
        self.0.store(Arc::new(settings));
    }

    /// Takes over settings of another owner, if they are others than before.
    pub(crate) fn follow(&self, settings: &Arc<BreakerSettings>) {
        if !Arc::ptr_eq(&self.0.load(), settings) {
            self.0.store(Arc::clone(settings));
        }
    }

    pub(crate) fn load(&self) -> Guard<Arc<BreakerSettings>> {
        self.0.load()
    }
}

impl fmt::Debug for SharedSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.load().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_up_to_its_maximum_and_has_jitter() {
        let settings = BreakerSettings::default();
        let seconds = |failed, random| settings.pause(failed, random).as_secs_f64();
        assert_eq!([0, 1, 2, 5, 9, u32::MAX].map(|failed| seconds(failed, 0.5)), [1.0, 2.0, 4.0, 30.0, 30.0, 30.0]);
        assert!((seconds(0, 0.0) - 0.8).abs() < 1e-9 && (seconds(0, 1.0) - 1.2).abs() < 1e-9);
    }

    #[test]
    fn values_that_make_no_sense_do_no_harm() {
        for odd in [f64::NAN, -1.0, f64::INFINITY] {
            let settings = BreakerSettings { open_time_growth: odd, jitter: odd, ..BreakerSettings::default() };
            assert!(settings.pause(3, 1.0) <= 2 * settings.max_open_time, "{odd}");
        }
        let settings = BreakerSettings { max_open_time: Duration::MAX, ..BreakerSettings::default() };
        assert!(settings.pause(u32::MAX, 1.0) > Duration::from_secs(30));
    }
}
